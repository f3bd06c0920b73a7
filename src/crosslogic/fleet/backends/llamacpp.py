"""llama.cpp's own `llama-server`. `/health` is 503 while the model loads; metrics need `--metrics`.

`llama-cpp-python` is another server with other quirks and counts as plain OpenAI.
"""

from crosslogic.fleet.backends.model import Backend, Fold, Gauge
from crosslogic.fleet.model import BackendKind

LLAMACPP = Backend(
    kind=BackendKind.LLAMACPP,
    health_path="/health",
    metrics_path="/metrics",
    gauges={
        "requests_running": Gauge(("llamacpp:requests_processing",)),
        "requests_waiting": Gauge(("llamacpp:requests_deferred",)),
        "kv_cache_used_ratio": Gauge(("llamacpp:kv_cache_usage_ratio",), Fold.MAX),
        "tokens_per_second": Gauge(("llamacpp:predicted_tokens_seconds",)),
    },
    tokenize_path="/tokenize",
)
