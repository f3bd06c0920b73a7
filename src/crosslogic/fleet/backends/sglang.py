"""SGLang. It has metrics only when started with `--enable-metrics`; without them its load is unknown, not zero."""

from crosslogic.fleet.backends.model import Backend, Fold, Gauge
from crosslogic.fleet.model import BackendKind

SGLANG = Backend(
    kind=BackendKind.SGLANG,
    health_path="/health",
    metrics_path="/metrics",
    gauges={
        "requests_running": Gauge(("sglang:num_running_reqs",)),
        "requests_waiting": Gauge(("sglang:num_queue_reqs",)),
        "kv_cache_used_ratio": Gauge(("sglang:token_usage",), Fold.MAX),
        "tokens_per_second": Gauge(("sglang:gen_throughput",)),
    },
    tokenize_path="/tokenize",
    can_continue=True,
)
