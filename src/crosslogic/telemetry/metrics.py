"""The product's Prometheus metrics: their names, and one method for each thing that happens.

Names are those of the documents (control-plane overview, "Monitoring"; product documentation §18; architecture
document §47.1), and where they name none, the room's own name comes first.

Invariant: labels are bounded. What callers can invent (a model's name) gets at most `LABEL_VALUES` values;
further ones count as `other`.
"""

from bisect import bisect_left
from typing import Literal

import msgspec

from crosslogic.telemetry.slots import Slots

LABEL_VALUES = 200
OTHER = "other"

# Seconds; from the gateway's own share (under 1 ms) to the longest answers.
_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_DISK_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_PICK_BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.01)


class Metric(msgspec.Struct, frozen=True):
    """`combine` says what several workers' values make together."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    combine: Literal["sum", "max", "min"] = "sum"

    @property
    def width(self) -> int:
        """Slots of one series; a histogram has its buckets, one for all above them, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


REQUESTS = Metric("control_plane_requests_total", "counter", "Requests answered.", ("endpoint", "status"))
DURATION = Metric(
    "control_plane_request_duration_seconds",
    "histogram",
    "From the request's first byte to the answer's last.",
    ("endpoint",),
    _LATENCY_BUCKETS,
)
ACTIVE_NODES = Metric("control_plane_active_nodes", "gauge", "Nodes that take requests.", combine="max")
RATE_LIMITED = Metric(
    "control_plane_rate_limit_exceeded_total",
    "counter",
    "Requests refused by a limit.",
    ("layer", "dimension"),
)
REJECTED = Metric(
    "control_plane_rejected_requests_total", "counter", "Requests refused before a node saw them.", ("reason",)
)
INFERENCES = Metric("inference_requests_total", "counter", "Requests that a node got.", ("model", "outcome"))
INFERENCE_DURATION = Metric(
    "inference_duration_seconds", "histogram", "Time of a dispatched request.", ("model",), _LATENCY_BUCKETS
)
FIRST_TOKEN = Metric(
    "inference_first_token_seconds",
    "histogram",
    "From the request to the first byte of its answer.",
    ("model",),
    _LATENCY_BUCKETS,
)
TOKENS = Metric("tokens_processed_total", "counter", "Tokens, by model and kind.", ("model", "kind"))
NODE_HEALTH = Metric("node_health_score", "gauge", "0 to 1.", ("node",), combine="min")
STREAMS = Metric("gateway_streams_in_flight", "gauge", "Streams open now.")
IN_FLIGHT = Metric("gateway_requests_in_flight", "gauge", "Requests being served now.")
UPSTREAM_ERRORS = Metric("gateway_upstream_errors_total", "counter", "Failures of nodes.", ("reason",))
RETRIES = Metric("gateway_retries_total", "counter", "Requests sent to another node.")
PICK = Metric("scheduling_pick_seconds", "histogram", "Time to pick a node.", (), _PICK_BUCKETS)
COMMIT = Metric("journal_commit_seconds", "histogram", "Time of a journal commit.", (), _DISK_BUCKETS)
JOURNALED = Metric("journal_records_total", "counter", "Records made durable.")
BACKLOG = Metric("journal_backlog_records", "gauge", "Records not yet in the database.")
DEGRADED = Metric("limits_degraded", "gauge", "1 while limits count per process.", combine="max")
LOG_DROPPED = Metric("log_lines_dropped_total", "counter", "Log lines dropped as the writer lagged.")

ALL = (
    REQUESTS,
    DURATION,
    ACTIVE_NODES,
    RATE_LIMITED,
    REJECTED,
    INFERENCES,
    INFERENCE_DURATION,
    FIRST_TOKEN,
    TOKENS,
    NODE_HEALTH,
    STREAMS,
    IN_FLIGHT,
    UPSTREAM_ERRORS,
    RETRIES,
    PICK,
    COMMIT,
    JOURNALED,
    BACKLOG,
    DEGRADED,
    LOG_DROPPED,
)
SCHEMA = repr([(metric.name, metric.labels, metric.buckets) for metric in ALL])


class Histogram:
    """One series of a histogram."""

    __slots__ = ("_bounds", "_first", "_sum", "_values")

    def __init__(self, values: "memoryview[float]", first: int, bounds: tuple[float, ...]) -> None:
        self._values, self._first, self._bounds = values, first, bounds
        self._sum = first + len(bounds) + 1

    def observe(self, value: float) -> None:
        self._values[self._first + bisect_left(self._bounds, value)] += 1.0
        self._values[self._sum] += value


class Number:
    """One series of a counter or gauge."""

    __slots__ = ("_slot", "_values")

    def __init__(self, values: "memoryview[float]", slot: int) -> None:
        self._values, self._slot = values, slot

    def add(self, amount: float = 1.0) -> None:
        self._values[self._slot] += amount

    def set(self, value: float) -> None:
        self._values[self._slot] = value


class _Finished:
    """What one kind of dispatched request adds to, found once."""

    __slots__ = ("cached", "completion", "duration", "first_token", "inference", "inferences", "prompt", "requests")

    def __init__(self, metrics: "Metrics", endpoint: str, model: str, status: str, outcome: str) -> None:
        self.requests = metrics.number(REQUESTS, endpoint, status)
        self.duration = metrics.histogram(DURATION, endpoint)
        self.inferences = metrics.number(INFERENCES, model, outcome)
        self.inference = metrics.histogram(INFERENCE_DURATION, model)
        self.first_token = metrics.histogram(FIRST_TOKEN, model)
        self.prompt = metrics.number(TOKENS, model, "prompt")
        self.completion = metrics.number(TOKENS, model, "completion")
        self.cached = metrics.number(TOKENS, model, "cached")


class Metrics:
    """What happened, in the product's words. Every method takes under a microsecond or two and never waits."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self._finished: dict[tuple[str, str, int, str], _Finished] = {}
        self._numbers: dict[tuple[str, tuple[str, ...]], Number] = {}
        self._histograms: dict[tuple[str, tuple[str, ...]], Histogram] = {}
        self._models: set[str] = set()
        self._nodes: set[str] = set()
        self._streams = self.number(STREAMS)
        self._in_flight = self.number(IN_FLIGHT)
        self._retries = self.number(RETRIES)
        self._pick = self.histogram(PICK)
        self._commit = self.histogram(COMMIT)
        self._journaled = self.number(JOURNALED)
        self._backlog = self.number(BACKLOG)
        self._degraded = self.number(DEGRADED)
        self._active_nodes = self.number(ACTIVE_NODES)
        self._log_dropped = self.number(LOG_DROPPED)
        for gauge in (self._streams, self._in_flight, self._backlog, self._degraded, self._active_nodes):
            gauge.set(0.0)  # a worker that crashed may have left them anywhere

    def request_finished(
        self,
        endpoint: str,
        model: str,
        status: int,
        outcome: str,
        *,
        duration_s: float,
        first_token_s: float | None,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int = 0,
    ) -> None:
        """A request that a node got has ended, however it ended."""
        key = (endpoint, model, status, outcome)
        series = self._finished.get(key) or self._first_finished(key)
        series.requests.add()
        series.duration.observe(duration_s)
        series.inferences.add()
        series.inference.observe(duration_s)
        if first_token_s is not None:
            series.first_token.observe(first_token_s)
        series.prompt.add(prompt_tokens)
        series.completion.add(completion_tokens)
        if cached_tokens:
            series.cached.add(cached_tokens)

    def request_refused(self, endpoint: str, status: int, reason: str, duration_s: float) -> None:
        """A request was answered without a node: refused, invalid, or about ourselves (`reason` "none")."""
        self._number(REQUESTS, endpoint, str(status)).add()
        self._histogram(DURATION, endpoint).observe(duration_s)
        if reason != "none":
            self._number(REJECTED, reason).add()

    def rate_limited(self, layer: str, dimension: str) -> None:
        self._number(RATE_LIMITED, layer, dimension).add()

    def request_began(self) -> None:
        self._in_flight.add(1.0)

    def request_ended(self) -> None:
        self._in_flight.add(-1.0)

    def stream_opened(self) -> None:
        self._streams.add(1.0)

    def stream_closed(self) -> None:
        self._streams.add(-1.0)

    def upstream_failed(self, reason: str) -> None:
        """`reason` is one of a fixed set of words: connect, timeout, reset, status, malformed."""
        self._number(UPSTREAM_ERRORS, reason).add()

    def retried(self) -> None:
        self._retries.add()

    def picked(self, duration_s: float) -> None:
        self._pick.observe(duration_s)

    def journal_committed(self, duration_s: float, records: int) -> None:
        self._commit.observe(duration_s)
        self._journaled.add(records)

    def journal_backlog(self, records: int) -> None:
        self._backlog.set(records)

    def limiter_degraded(self, degraded: bool) -> None:
        self._degraded.set(float(degraded))

    def log_dropped(self, lines: int) -> None:
        self._log_dropped.add(lines)

    def nodes(self, health: dict[str, float], active: int) -> None:
        """The nodes known now with their scores, and how many of them take requests."""
        for node in self._nodes - health.keys():
            self.slots.give_back(NODE_HEALTH.name, (node,))
            self._numbers.pop((NODE_HEALTH.name, (node,)), None)
        self._nodes = set(health)
        for node, score in health.items():
            self._number(NODE_HEALTH, node).set(score)
        self._active_nodes.set(active)

    def number(self, metric: Metric, *labels: str) -> Number:
        """A series to keep and add to."""
        return Number(self.slots.values, self.slots.take(metric.name, labels, metric.width))

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """A series to keep and observe into."""
        return Histogram(self.slots.values, self.slots.take(metric.name, labels, metric.width), metric.buckets)

    def _number(self, metric: Metric, *labels: str) -> Number:
        found = self._numbers.get((metric.name, labels))
        if found is None:
            found = self._numbers[metric.name, labels] = self.number(metric, *labels)
        return found

    def _histogram(self, metric: Metric, *labels: str) -> Histogram:
        found = self._histograms.get((metric.name, labels))
        if found is None:
            found = self._histograms[metric.name, labels] = self.histogram(metric, *labels)
        return found

    def _first_finished(self, key: tuple[str, str, int, str]) -> _Finished:
        endpoint, model, status, outcome = key
        if model not in self._models:
            if len(self._models) >= LABEL_VALUES:
                model = OTHER
            else:
                self._models.add(model)
        known = (endpoint, model, status, outcome)
        series = self._finished.get(known)
        if series is None:
            series = self._finished[known] = _Finished(self, endpoint, model, str(status), outcome)
        return series
