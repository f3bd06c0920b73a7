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
from crosslogic.limits.model import Dimension, Layer
from crosslogic.metering.model import Evidence, Outcome, Usage, UsageRecord
from crosslogic.net.exchange import Exchange
from crosslogic.queueing.model import ShedReason, TrafficClass, Turn
from crosslogic.scheduling.model import Candidate, Journey
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

    def picked(self, duration_s: float) -> None:
        """How long a choice among nodes took, of some choices."""
        ...

    def waited(self, waited_s: float) -> None:
        """A request that had to wait in the queue has its turn."""
        ...

    def shed(self, reason: ShedReason, traffic: TrafficClass) -> None:
        """The queue refused one."""
        ...

    def put_back(self) -> None:
        """A running request gave its place to a higher one."""
        ...

    def retried(self, node_id: NodeId, failure: str) -> None: ...
    def rescued(self, way: str) -> None:
        """A stream broke after its first byte; `way` says what became of it."""
        ...

    def left_out(self, node_id: NodeId, events: int) -> None:
        """So many events of a node were no JSON."""
        ...

    def finished(self, shown_id: bytes, record: UsageRecord) -> None: ...
    def refused(
        self, shown_id: bytes, endpoint: Endpoint, principal: Principal | None, refusal: Refusal, duration_s: float
    ) -> None: ...
    def rate_limited(self, layer: Layer, dimension: Dimension) -> None: ...
    def shadowed(self, layer: Layer, dimension: Dimension) -> None:
        """A ceiling in shadow would have refused the request."""
        ...

    def bad_key_slowed(self) -> None: ...


class GatewaySettings(msgspec.Struct, frozen=True):
    timeouts: Timeouts = Timeouts()
    max_attempts: int = MAX_ATTEMPTS
    retry_backoff_s: float = 0.05  # before the second attempt; doubles, and is drawn from its upper half
    retry_budget_s: float = 90.0  # after its arrival a request is given no further node
    retry_wait_s: float = 10.0  # the longest wait for a node that asked to be left alone
    hedge_after_s: float | None = None  # a second node for streams that have not begun by then
    continuations: int = 3  # nodes that may break under one stream after its first byte
    kept_chars: int = 262_144  # of an answer's text, for the case that its node dies
    default_output_tokens: int = 1024  # reserved when the caller gives no maximum
    region: str = "local"


class Race:
    """Attempts of one request that run side by side: the first that begins ends the others."""

    def __init__(self) -> None:
        self.won = False
        self._relays: list[Relay] = []

    def enter(self, relay: Relay) -> None:
        self._relays.append(relay)
        relay.on_begin = lambda: self.end(relay)

    def listen(self) -> None:
        """One has ended, and the caller is no longer listened to: those that run do it."""
        for relay in self._relays:
            relay.listen_again()

    def end(self, winner: Relay | None = None) -> None:
        """Give up all but the winner."""
        self.won = True
        for relay in self._relays:
            if relay is not winner:
                relay.put_back()


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
    journey: Journey = msgspec.field(default_factory=Journey)  # which region it asked for, and may it leave that
    covered: bool = False  # within its org's reserved capacity
    plan: Plan | None = None  # what cache and idempotency do for it
    shortened: bool = False  # its body bounds the answer, which its caller left open
    cost_pusd: int = 0  # what it may cost at most, where money is counted
    turn: Turn | None = None
    relay: Relay | None = None  # the attempt under way
    race: Race | None = None  # with a second attempt at the same time
    interrupted: bool = False  # its place is wanted by a higher request

    def interrupt(self) -> None:
        """Give up the attempt under way, as long as its caller has seen nothing of it."""
        self.interrupted = True
        if self.relay is not None:
            self.relay.put_back()


class PutBack(msgspec.Struct, frozen=True):
    """The attempt was given up for a higher request: nothing of it counts, and its request waits again."""


PUT_BACK = PutBack()


_ENDED_BADLY = (Outcome.TRUNCATED, Outcome.TIMEOUT, Outcome.UPSTREAM_ERROR)


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
    gone: bool = False  # nobody is there: refused, or lost before a byte of the answer
    retry_after_s: float | None = None  # the node asked to be left alone for so long
    presumed: Usage = Usage(0, 0)  # of an answer whose caller left, and of which nothing is proven

    @property
    def worked(self) -> Usage:
        """What counts against limits and shares: who leaves before anything is proven has used a node all the same."""
        return self.usage if self.evidence is not Evidence.NONE else self.presumed

    @property
    def broke(self) -> bool:
        """Whether the caller has seen a part of a stream that did not end well."""
        relay = self.relay
        return self.outcome in _ENDED_BADLY and relay is not None and relay.streaming and relay.passed
