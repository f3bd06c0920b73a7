"""Values of the request path: the visit of one request, the attempts made for it, and who watches."""

from typing import Protocol

import msgspec

from crosslogic.cache.service import Plan
from crosslogic.gateway import evidence
from crosslogic.gateway.endpoints import Endpoint
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.relay import Relay, Timeouts
from crosslogic.gateway.request import Call
from crosslogic.kernel.ids import NodeId, RequestId
from crosslogic.limits.model import Rejected
from crosslogic.metering.model import Evidence, Outcome, Usage, UsageRecord
from crosslogic.net.exchange import Exchange
from crosslogic.scheduling.model import Candidate
from crosslogic.tenancy.model import Principal

MAX_ATTEMPTS = 3


class Observer(Protocol):
    """Metrics and access log; must return at once."""

    def dispatched(self, call: Call) -> None:
        """A node begins to work on it; `undispatched` follows."""
        ...

    def undispatched(self, call: Call) -> None: ...
    def failed(self, failure: str) -> None:
        """A node did not do its part: `connect`, `timeout`, `reset`, `status` or `malformed`."""
        ...

    def retried(self, node_id: NodeId, failure: str) -> None: ...
    def finished(self, shown_id: bytes, record: UsageRecord) -> None: ...
    def refused(
        self, shown_id: bytes, endpoint: Endpoint, principal: Principal | None, refusal: Refusal, duration_s: float
    ) -> None: ...
    def rate_limited(self, rejection: Rejected) -> None: ...


class GatewaySettings(msgspec.Struct, frozen=True):
    timeouts: Timeouts = Timeouts()
    max_attempts: int = MAX_ATTEMPTS
    default_output_tokens: int = 1024  # reserved when the caller gives no maximum
    region: str = "local"


class Visit(msgspec.Struct):
    """One request on its way through."""

    exchange: Exchange
    endpoint: Endpoint
    request_id: RequestId  # ours: unique, the key of the ledger
    shown_id: bytes  # the caller's own X-Request-Id if it gave a fit one, else ours
    arrived_ns: int
    arrived_s: float  # loop time
    principal: Principal | None = None  # None until the key is resolved
    headers: bytes = b""  # x-request-id and x-ratelimit-* lines of every answer from now on
    attempts: int = 0
    excluded: tuple[NodeId, ...] = ()
    plan: Plan | None = None  # what cache and idempotency do for it


class Attempt(msgspec.Struct):
    """How the last attempt ended, and what it left."""

    call: Call
    candidate: Candidate
    relay: Relay | None
    outcome: Outcome
    usage: Usage = evidence.NOTHING
    evidence: Evidence = Evidence.NONE
    finish_reason: str | None = None
    refusal: Refusal | None = None  # what to tell the caller; None: the node's own answer
    retry: bool = False
