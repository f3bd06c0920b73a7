"""What the request path tells the outside: metrics and one access-log line for each request. It never waits."""

import logging
import time

from crosslogic.gateway.endpoints import Endpoint
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.request import Call
from crosslogic.kernel.ids import NodeId
from crosslogic.limits.model import Dimension, Layer
from crosslogic.metering.model import UsageRecord
from crosslogic.queueing.model import ShedReason, TrafficClass
from crosslogic.telemetry.log import Access, LogWriter
from crosslogic.telemetry.metrics import Metrics
from crosslogic.tenancy.model import Principal

_log = logging.getLogger(__name__)


_debug_log = logging.getLogger(__name__)


class TelemetryObserver:
    """`visit.Observer` over Prometheus metrics and the access log; `log` None: no access log."""

    def __init__(self, metrics: Metrics, log: LogWriter | None) -> None:
        self._metrics = metrics
        self._log = log

    def dispatched(self, call: Call) -> None:
        self._metrics.request_began()
        if call.stream:
            self._metrics.stream_opened()

    def undispatched(self, call: Call) -> None:
        self._metrics.request_ended()
        if call.stream:
            self._metrics.stream_closed()

    def finished(self, shown_id: bytes, record: UsageRecord) -> None:
        first_token_ms = record.first_token_ms
        self._metrics.request_finished(
            record.endpoint,
            record.model,
            record.http_status,
            record.outcome,
            duration_s=record.latency_ms / 1000,
            first_token_s=None if first_token_ms is None else first_token_ms / 1000,
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            cached_tokens=record.cached_tokens,
        )
        if self._log is not None:
            self._log.access(
                Access(
                    record.timestamp_us / 1e6,
                    shown_id.decode(),
                    record.endpoint,
                    record.http_status,
                    record.latency_ms,
                    record.org_id,
                    record.env_id,
                    record.key_id,
                    record.model,
                    record.node_id,
                    record.outcome,
                    first_token_ms,
                    record.prompt_tokens,
                    record.completion_tokens,
                    record.attempts,
                )
            )

    def refused(
        self, shown_id: bytes, endpoint: Endpoint, principal: Principal | None, refusal: Refusal, duration_s: float
    ) -> None:
        self._metrics.request_refused(endpoint.name, refusal.status, refusal.code, duration_s)
        if self._log is not None:
            self._log.access(
                Access(
                    time.time(),
                    shown_id.decode(),
                    endpoint.name,
                    refusal.status,
                    duration_s * 1000,
                    principal.org_id if principal is not None else None,
                    principal.env_id if principal is not None else None,
                    principal.key_id if principal is not None else None,
                    reason=refusal.code,
                )
            )

    def rate_limited(self, layer: Layer, dimension: Dimension) -> None:
        self._metrics.rate_limited(layer, dimension)

    def shadowed(self, layer: Layer, dimension: Dimension) -> None:
        self._metrics.shadowed(layer, dimension)
        _debug_log.debug("the %s limit on %s is exceeded in shadow", layer.value, dimension.value)

    def bad_key_slowed(self) -> None:
        self._metrics.bad_key_slowed()

    def picked(self, duration_s: float) -> None:
        self._metrics.picked(duration_s)

    def waited(self, waited_s: float) -> None:
        self._metrics.queue_waited(waited_s)

    def shed(self, reason: ShedReason, traffic: TrafficClass) -> None:
        self._metrics.queue_shed(reason, traffic.name.lower())

    def put_back(self) -> None:
        self._metrics.queue_preempted()

    def retried(self, node_id: NodeId, failure: str) -> None:
        self._metrics.retried()

    def rescued(self, way: str) -> None:
        self._metrics.rescued(way)

    def left_out(self, node_id: NodeId, events: int) -> None:
        _log.warning("%d events of node %s are no JSON and were left out", events, node_id)

    def failed(self, failure: str) -> None:
        self._metrics.upstream_failed(failure)
