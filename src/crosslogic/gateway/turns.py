"""A request's turn in the queue: what it brings to it, and what its caller hears while it waits."""

import math
from typing import Protocol

from crosslogic.gateway import errors
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.request import Call
from crosslogic.gateway.sse import STREAM_HEADERS
from crosslogic.gateway.visit import Visit
from crosslogic.kernel.clock import Clock
from crosslogic.metering.model import Usage
from crosslogic.queueing.model import Shed, ShedReason, Standing, TrafficClass, Turn, TurnAsk
from crosslogic.queueing.policies import TIERS
from crosslogic.queueing.ports import TurnQueue
from crosslogic.scheduling.places import Places
from crosslogic.tenancy.model import Principal

_UNTIERED = TIERS["pro"]


class TurnTaker(Protocol):
    async def take(self, visit: Visit, principal: Principal, call: Call) -> Turn | Refusal:
        """A turn, at once where nobody waits; after it the dispatch must follow without a pause."""
        ...

    def done(self, turn: Turn, usage: Usage) -> None: ...


class NoTurns:
    """Nobody waits: `enable_queuing: false`. The scheduler alone says whether a node has room."""

    _anybodys = Turn(TurnAsk("", "", "", 0.0), 0.0, 0.0)

    async def take(self, visit: Visit, principal: Principal, call: Call) -> Turn:
        return self._anybodys

    def done(self, turn: Turn, usage: Usage) -> None:
        """Nothing was held."""


class Turns:
    """Between admission and dispatch. With `by_priority` a tenant's plan counts, else all are equal."""

    def __init__(
        self, queue: TurnQueue, places: Places, clock: Clock, *, longest_wait_s: float, by_priority: bool
    ) -> None:
        self._queue = queue
        self._places = places
        self._now_s = clock.monotonic_s
        self._longest_wait_s = longest_wait_s
        self._by_priority = by_priority

    async def take(self, visit: Visit, principal: Principal, call: Call) -> Turn | Refusal:
        ask = self._ask(visit, principal, call)
        exchange = visit.exchange
        exchange.on_closed = lambda: self._queue.leave(ask.id)
        answer = await self._queue.turn(ask)
        exchange.on_closed = None
        if isinstance(answer, Turn):
            return answer
        return _refusal(answer)

    def done(self, turn: Turn, usage: Usage) -> None:
        self._queue.done(turn, usage.prompt_tokens, usage.completion_tokens)

    def _ask(self, visit: Visit, principal: Principal, call: Call) -> TurnAsk:
        ask = TurnAsk(
            visit.request_id,
            self._places.line(call.model, principal.org_id),
            principal.org_id,
            self._now_s() + self._longest_wait_s,
            call.prompt_tokens_estimate,
            call.max_output_tokens * call.choices,
            max_waiting=principal.max_queue_depth,
        )
        if self._by_priority:
            tier = TIERS.get(principal.plan_id, _UNTIERED)
            ask.weight, ask.priority = tier.weight, principal.priority
            ask.traffic = TrafficClass(tier.traffic)
        if call.stream:
            ask.on_wait = lambda standing: _tell(visit, standing)
        return ask


def _tell(visit: Visit, standing: Standing) -> None:
    """A comment in the stream: clients ignore it, people and proxies see that it goes on."""
    exchange = visit.exchange
    if not exchange.alive:
        return
    if not exchange.started:
        exchange.start(200, visit.headers + STREAM_HEADERS)
    wait_s = standing.estimated_wait_s
    estimate = b"" if wait_s is None else b" estimated_wait_s=%.1f" % wait_s
    exchange.write(b": queued position=%d%b\n\n" % (standing.position, estimate))


def _refusal(shed: Shed) -> Refusal:
    if shed.reason is ShedReason.LEFT:
        return errors.CLIENT_CLOSED
    return errors.busy(max(1, math.ceil(shed.retry_after_s)))
