"""The product's Prometheus metrics: their names, and one method for each thing that happens.

Names are those of the documents (control-plane overview, "Monitoring"; product documentation §18; architecture
document §47.1), and where they name none, the room's own name comes first.

Invariant: labels are bounded. What callers can invent (a model's name) gets at most `LABEL_VALUES` values;
further ones count as `other`.
"""

from bisect import bisect_left
from collections.abc import Mapping
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
SHADOWED = Metric(
    "limits_shadowed_total",
    "counter",
    "Requests that a limit in shadow would have refused.",
    ("layer", "dimension"),
)
SLOWED = Metric(
    "gateway_bad_keys_slowed_total", "counter", "Bad keys told to wait, too many having come from their address."
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
BILLED_TOKENS = Metric(
    "billing_tokens_total", "counter", "Tokens that came into the ledger, by model and kind.", ("model", "kind")
)
BILLED_COST = Metric("billing_cost_total", "counter", "US dollars that came into the ledger, by model.", ("model",))
NODE_HEALTH = Metric("node_health_score", "gauge", "0 to 1.", ("node",), combine="min")
SPOT_PRICE = Metric(
    "spot_price_dollars", "gauge", "US dollars an hour that a spot node said.", ("node",), combine="max"
)
NODES_UNWELL = Metric(
    "fleet_unwell_nodes", "gauge", "Active nodes that are not healthy, by what is wrong.", ("symptom",), combine="max"
)
NODES_EJECTED = Metric("fleet_ejected_nodes", "gauge", "Active nodes that get nothing new.", combine="max")
STREAMS = Metric("gateway_streams_in_flight", "gauge", "Streams open now.")
IN_FLIGHT = Metric("gateway_requests_in_flight", "gauge", "Requests being served now.")
UPSTREAM_ERRORS = Metric("gateway_upstream_errors_total", "counter", "Failures of nodes.", ("reason",))
RETRIES = Metric("gateway_retries_total", "counter", "Requests sent to another node.")
RESCUES = Metric("gateway_rescues_total", "counter", "Streams that broke, by what became of them.", ("way",))
PICK = Metric(
    "scheduling_pick_seconds", "histogram", "Time to pick a node; one pick in 64 is measured.", (), _PICK_BUCKETS
)
COMMIT = Metric("journal_commit_seconds", "histogram", "Time of a journal commit.", (), _DISK_BUCKETS)
JOURNALED = Metric("journal_records_total", "counter", "Records made durable.")
BACKLOG = Metric("journal_backlog_records", "gauge", "Records that the database did not take yet.")
LEDGER_WHOLE = Metric(
    "ledger_whole_timestamp_seconds",
    "gauge",
    "Unix time at which all that the journals held was last in the ledger.",
    combine="max",
)
LEADING = Metric("control_leading", "gauge", "1 while this control process leads.", combine="max")
DEGRADED = Metric("limits_degraded", "gauge", "1 while limits count per process.", combine="max")
QUEUE_WAITING = Metric("queue_waiting_requests", "gauge", "Requests that wait for a place on a node.")
QUEUE_WAIT = Metric(
    "queue_wait_seconds", "histogram", "How long a request waited that then had its turn.", (), _LATENCY_BUCKETS
)
QUEUE_SHED = Metric("queue_shed_total", "counter", "Requests that the queue refused.", ("reason", "traffic"))
QUEUE_PREEMPTED = Metric("queue_preempted_total", "counter", "Running requests that were put back for higher ones.")
QUEUE_DEGRADED = Metric("queue_degraded", "gauge", "1 while fairness counts per process.", combine="max")
PICTURE_AGE = Metric(
    "gateway_picture_age_seconds", "gauge", "How long ago a worker last read what had changed.", combine="max"
)
CACHE_REQUESTS = Metric(
    "cache_requests_total",
    "counter",
    "Requests for the response cache: hit, miss, refresh, bypass.",
    ("model", "result"),
)
CACHE_STORED = Metric("cache_stored_total", "counter", "Answers kept.", ("model",))
CACHE_STORED_BYTES = Metric("cache_stored_bytes_total", "counter", "Bytes of answers kept.", ("model",))
CACHE_EVICTED = Metric("cache_evicted_total", "counter", "Answers that gave way to others before their time.")
CACHE_BYTES = Metric("cache_memory_bytes", "gauge", "Bytes of answers in the memory of gateways.")
KEYS_USED = Metric("idempotency_requests_total", "counter", "Requests with an Idempotency-Key.", ("result",))
BILLING_PUSHED = Metric(
    "billing_records_pushed_total", "counter", "Sums of usage and invoices that the payment provider has taken."
)
BILLING_FAILED = Metric(
    "billing_records_failed_total", "counter", "Of them, tries that did not work; each is tried again."
)
BILLING_EXPORTED = Metric("billing_usage_exported_total", "counter", "Tokens that the payment provider was told of.")
LOG_DROPPED = Metric("log_lines_dropped_total", "counter", "Log lines dropped as the writer lagged.")

ALL = (
    REQUESTS,
    DURATION,
    ACTIVE_NODES,
    RATE_LIMITED,
    REJECTED,
    SHADOWED,
    SLOWED,
    INFERENCES,
    INFERENCE_DURATION,
    FIRST_TOKEN,
    TOKENS,
    BILLED_TOKENS,
    BILLED_COST,
    NODE_HEALTH,
    SPOT_PRICE,
    NODES_UNWELL,
    NODES_EJECTED,
    STREAMS,
    IN_FLIGHT,
    UPSTREAM_ERRORS,
    RETRIES,
    RESCUES,
    PICK,
    COMMIT,
    JOURNALED,
    BACKLOG,
    LEDGER_WHOLE,
    LEADING,
    DEGRADED,
    QUEUE_WAITING,
    QUEUE_WAIT,
    QUEUE_SHED,
    QUEUE_PREEMPTED,
    QUEUE_DEGRADED,
    PICTURE_AGE,
    CACHE_REQUESTS,
    CACHE_STORED,
    CACHE_STORED_BYTES,
    CACHE_EVICTED,
    CACHE_BYTES,
    KEYS_USED,
    BILLING_PUSHED,
    BILLING_FAILED,
    BILLING_EXPORTED,
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
        self._nodes: dict[str, set[str]] = {}  # by metric
        self._streams = self.number(STREAMS)
        self._in_flight = self.number(IN_FLIGHT)
        self._retries = self.number(RETRIES)
        self._slowed = self.number(SLOWED)
        self._pick = self.histogram(PICK)
        self._commit = self.histogram(COMMIT)
        self._journaled = self.number(JOURNALED)
        self._backlog = self.number(BACKLOG)
        self._degraded = self.number(DEGRADED)
        self._active_nodes = self.number(ACTIVE_NODES)
        self._queue_waiting = self.number(QUEUE_WAITING)
        self._queue_wait = self.histogram(QUEUE_WAIT)
        self._queue_preempted = self.number(QUEUE_PREEMPTED)
        self._queue_degraded = self.number(QUEUE_DEGRADED)
        self._picture_age = self.number(PICTURE_AGE)
        self._log_dropped = self.number(LOG_DROPPED)
        gauges = (self._streams, self._in_flight, self._backlog, self._degraded, self._active_nodes)
        for gauge in (*gauges, self._queue_waiting, self._queue_degraded, self._picture_age):
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

    def billed(self, model: str, tokens: Mapping[str, int], cost_usd: float) -> None:
        """Rows of this model came into the ledger. What corrections take back is left out: counters only rise."""
        model = self._label_of(model)
        for kind, count in tokens.items():
            if count > 0:
                self._number(BILLED_TOKENS, model, kind).add(count)
        if cost_usd > 0:
            self._number(BILLED_COST, model).add(cost_usd)

    def request_refused(self, endpoint: str, status: int, reason: str, duration_s: float) -> None:
        """A request was answered without a node: refused, invalid, or about ourselves (`reason` "none")."""
        self._number(REQUESTS, endpoint, str(status)).add()
        self._histogram(DURATION, endpoint).observe(duration_s)
        if reason != "none":
            self._number(REJECTED, reason).add()

    def rescued(self, way: str) -> None:
        self._number(RESCUES, way).add()

    def rate_limited(self, layer: str, dimension: str) -> None:
        self._number(RATE_LIMITED, layer, dimension).add()

    def shadowed(self, layer: str, dimension: str) -> None:
        self._number(SHADOWED, layer, dimension).add()

    def bad_key_slowed(self) -> None:
        self._slowed.add()

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

    def ledger_whole(self, at_s: float) -> None:
        self._number(LEDGER_WHOLE).set(at_s)

    def control_leads(self, leads: bool) -> None:
        self._number(LEADING).set(float(leads))

    def limiter_degraded(self, degraded: bool) -> None:
        self._degraded.set(float(degraded))

    def queue_waiting(self, requests: int) -> None:
        self._queue_waiting.set(requests)

    def queue_waited(self, duration_s: float) -> None:
        self._queue_wait.observe(duration_s)

    def queue_shed(self, reason: str, traffic: str) -> None:
        """Both from fixed sets: `ShedReason`, and the class that was shed."""
        self._number(QUEUE_SHED, reason, traffic).add()

    def queue_preempted(self) -> None:
        self._queue_preempted.add()

    def queue_degraded(self, degraded: bool) -> None:
        self._queue_degraded.set(float(degraded))

    def picture_age(self, age_s: float) -> None:
        self._picture_age.set(age_s)

    def cache_asked(self, model: str, result: str) -> None:
        """`result` is hit, miss, refresh or bypass."""
        self._number(CACHE_REQUESTS, self._label_of(model), result).add()

    def cache_stored(self, model: str, size_bytes: int) -> None:
        label = self._label_of(model)
        self._number(CACHE_STORED, label).add()
        self._number(CACHE_STORED_BYTES, label).add(size_bytes)

    def cache_evicted(self, answers: int) -> None:
        self._number(CACHE_EVICTED).add(answers)

    def cache_held(self, size_bytes: int) -> None:
        self._number(CACHE_BYTES).set(size_bytes)

    def key_used(self, result: str) -> None:
        """`result` is run, replayed, joined, or the code of a refusal."""
        self._number(KEYS_USED, result).add()

    def billing_pushed(self, records: int, tokens: int) -> None:
        """A sum that takes back counts as a record, and takes no tokens off what was told."""
        self._number(BILLING_PUSHED).add(records)
        self._number(BILLING_EXPORTED).add(max(tokens, 0))

    def billing_failed(self, records: int) -> None:
        self._number(BILLING_FAILED).add(records)

    def log_dropped(self, lines: int) -> None:
        self._log_dropped.add(lines)

    def nodes(
        self, health: dict[str, float], active: int, spot_usd_per_hour: Mapping[str, float] | None = None
    ) -> None:
        """The nodes known now with their scores, how many of them take requests, and what those on spot cost."""
        self._of_nodes(NODE_HEALTH, health)
        self._of_nodes(SPOT_PRICE, spot_usd_per_hour or {})
        self._active_nodes.set(active)

    def _of_nodes(self, metric: Metric, values: Mapping[str, float]) -> None:
        known = self._nodes.get(metric.name, set())
        for node in known - values.keys():
            self.slots.give_back(metric.name, (node,))
            self._numbers.pop((metric.name, (node,)), None)
        self._nodes[metric.name] = set(values)
        for node, value in values.items():
            self._number(metric, node).set(value)

    def nodes_unwell(self, by_symptom: Mapping[str, int], ejected: int) -> None:
        """Of the active nodes; symptoms are from a fixed set, and all of it is named."""
        for symptom, nodes in by_symptom.items():
            self._number(NODES_UNWELL, symptom).set(nodes)
        self._number(NODES_EJECTED).set(ejected)

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

    def _label_of(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= LABEL_VALUES:
                return OTHER
            self._models.add(model)
        return model

    def _first_finished(self, key: tuple[str, str, int, str]) -> _Finished:
        endpoint, model, status, outcome = key
        model = self._label_of(model)
        known = (endpoint, model, status, outcome)
        series = self._finished.get(known)
        if series is None:
            series = self._finished[known] = _Finished(self, endpoint, model, str(status), outcome)
        return series
