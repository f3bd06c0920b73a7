"""vLLM (metrics of 0.6 to 0.32). Its `/health` turns 503 when the engine process behind the API has died.

An engine that dies in mid-stream still writes `[DONE]`, after an event with an `error`: the relay must not take
that end for a whole answer (reference/components.md).
"""

from crosslogic.fleet.backends.model import Backend, Fold, Gauge
from crosslogic.fleet.model import BackendKind

VLLM = Backend(
    kind=BackendKind.VLLM,
    health_path="/health",
    metrics_path="/metrics",
    gauges={
        "requests_running": Gauge(("vllm:num_requests_running",)),
        "requests_waiting": Gauge(("vllm:num_requests_waiting",)),
        "kv_cache_used_ratio": Gauge(("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), Fold.MAX),
    },
    tokenize_path="/tokenize",
    can_continue=True,
    completion_tokens=16,
    accepts_cache_salt=True,
)
