"""The simulated node's `/metrics`: vLLM's own names, label and buckets, in the Prometheus text format.

Pure counters; the server tells them what happened, in wall-clock seconds as an observer would measure them.
"""

from bisect import bisect_left
from itertools import accumulate

_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_BETWEEN_TOKENS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
_REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
FINISH_REASONS = ("stop", "length", "abort")


class Histogram:
    """Counts by upper bound, with their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, label: str) -> list[str]:
        bounds = [*(repr(b) for b in self._bounds), "+Inf"]
        totals = list(accumulate(self._counts))
        lines = [f'{name}_bucket{{{label},le="{b}"}} {n}' for b, n in zip(bounds, totals, strict=True)]
        return [*lines, f"{name}_count{{{label}}} {totals[-1]}", f"{name}_sum{{{label}}} {self._sum}"]


class Metrics:
    """What one simulated node has done since it started."""

    def __init__(self, model: str) -> None:
        self._label = f'engine="0",model_name="{model}"'
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.first_token = Histogram(_FIRST_TOKEN_S)
        self.between_tokens = Histogram(_BETWEEN_TOKENS_S)
        self.request = Histogram(_REQUEST_S)
        self.queue = Histogram(_REQUEST_S)

    def render(self, running: int, waiting: int, kv_used_ratio: float, preemptions: int) -> bytes:
        """The exposition, with the engine's present state."""
        lines: list[str] = []

        def family(name: str, kind: str, text: str, *samples: str) -> None:
            lines.extend((f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}", *samples))

        def single(name: str, kind: str, text: str, value: float) -> None:
            name = f"{name}_total" if kind == "counter" else name
            family(name, kind, text, f"vllm:{name}{{{self._label}}} {float(value)}")

        single("num_requests_running", "gauge", "Sequences in the running batch.", running)
        single("num_requests_waiting", "gauge", "Sequences that wait for a seat.", waiting)
        single("kv_cache_usage_perc", "gauge", "Used share of the KV cache; 1 is full.", kv_used_ratio)
        single("num_preemptions", "counter", "Sequences that were preempted.", preemptions)
        single("prompt_tokens", "counter", "Prompt tokens processed.", self.prompt_tokens)
        single("generation_tokens", "counter", "Tokens generated.", self.generation_tokens)
        single("prefix_cache_queries", "counter", "Prompt tokens looked up.", self.prefix_queries)
        single("prefix_cache_hits", "counter", "Prompt tokens found cached.", self.prefix_hits)
        reasons = [
            f'vllm:request_success_total{{{self._label},finished_reason="{reason}"}} {float(count)}'
            for reason, count in self.finished.items()
        ]
        family("request_success_total", "counter", "Finished requests.", *reasons)
        for name, text, histogram in (
            ("time_to_first_token_seconds", "Time to first token.", self.first_token),
            ("inter_token_latency_seconds", "Time between two tokens.", self.between_tokens),
            ("e2e_request_latency_seconds", "Time from request to last token.", self.request),
            ("request_queue_time_seconds", "Time spent waiting for a seat.", self.queue),
        ):
            family(name, "histogram", text, *histogram.lines(f"vllm:{name}", self._label))
        return "\n".join(lines).encode() + b"\n"
