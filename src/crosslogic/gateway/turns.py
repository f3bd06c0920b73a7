"""A request's turn in the queue: what it brings to it, and what its caller hears while it waits."""

import math
from collections.abc import Callable
from typing import Protocol

from crosslogic.gateway import errors
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.request import Call
from crosslogic.gateway.sse import STREAM_HEADERS
from crosslogic.gateway.visit import Observer, Visit
from crosslogic.kernel.clock import Clock
from crosslogic.metering.model import Usage
from crosslogic.queueing.model import Shed, ShedReason, Standing, TrafficClass, Turn, TurnAsk
from crosslogic.queueing.policies import DEFAULT_POLICY, PREEMPTIVE
from crosslogic.queueing.ports import TurnQueue
from crosslogic.scheduling.places import Places
from crosslogic.tenancy.model import Feature, Principal

OnPace = Callable[[str, bool, int, float], None]
"""Told of each request that has left its node: its line, whether it was reserved, its tokens, and for how many
seconds it held its place."""


def _unmeasured(line: str, reserved: bool, tokens: int, seconds: float) -> None:
    """Nobody asks."""


class TurnTaker(Protocol):
    async def take(self, visit: Visit, principal: Principal, call: Call) -> Turn | Refusal:
        """A turn, at once where nobody waits; after it the dispatch must follow without a pause."""
        ...

    async def again(self, visit: Visit, turn: Turn) -> Turn | Refusal:
        """Give up a turn in which nothing was sent, for `visit.interrupt` was called; then as `take`."""
        ...

    def done(self, turn: Turn, usage: Usage) -> None: ...
    def order_by(self, policy: str) -> None:
        """From now on who comes goes by this policy, where the plan names none."""
        ...


class NoTurns:
    """Nobody waits: `enable_queuing: false`. The scheduler alone says whether a node has room."""

    _anybodys = Turn(TurnAsk("", "", "", 0.0), 0.0, 0.0)

    async def take(self, visit: Visit, principal: Principal, call: Call) -> Turn:
        return self._anybodys

    async def again(self, visit: Visit, turn: Turn) -> Turn:
        """Nobody is put back."""
        return turn

    def done(self, turn: Turn, usage: Usage) -> None:
        """Nothing was held."""

    def order_by(self, policy: str) -> None:
        """Nobody waits."""


class Turns:
    """Between admission and dispatch. With `by_priority` a tenant's plan counts, else all are equal.

    `policy` orders those whose plan names none. Where it is `preemptive`, whatever is not reserved may be put back for
    what is higher.
    """

    def __init__(
        self,
        queue: TurnQueue,
        places: Places,
        clock: Clock,
        observer: Observer,
        *,
        longest_wait_s: float,
        by_priority: bool,
        policy: str = DEFAULT_POLICY,
        on_pace: OnPace = _unmeasured,
    ) -> None:
        self._queue = queue
        self._places = places
        self._now_s = clock.monotonic_s
        self._observer = observer
        self._longest_wait_s = longest_wait_s
        self._by_priority = by_priority
        self._policy = policy
        self._on_pace = on_pace

    async def take(self, visit: Visit, principal: Principal, call: Call) -> Turn | Refusal:
        ask = self._ask(visit, principal, call)
        visit.exchange.on_closed = lambda: self._queue.leave(ask.id)
        return self._answer(visit, ask, await self._queue.turn(ask), ask.enqueued_s)

    async def again(self, visit: Visit, turn: Turn) -> Turn | Refusal:
        ask = turn.ask
        visit.exchange.on_closed = lambda: self._queue.leave(ask.id)
        interrupted_s = self._now_s()
        return self._answer(visit, ask, await self._queue.again(turn), interrupted_s)

    def done(self, turn: Turn, usage: Usage) -> None:
        ask, tokens = turn.ask, usage.prompt_tokens + usage.completion_tokens
        if tokens:
            self._on_pace(ask.line, ask.traffic is TrafficClass.RESERVED, tokens, self._now_s() - turn.started_s)
        self._queue.done(turn, usage.prompt_tokens, usage.completion_tokens)

    def order_by(self, policy: str) -> None:
        self._policy = policy

    def _answer(self, visit: Visit, ask: TurnAsk, answer: Turn | Shed, since_s: float | None) -> Turn | Refusal:
        visit.exchange.on_closed = None
        if isinstance(answer, Turn):
            if since_s is not None and answer.started_s > since_s:
                self._observer.waited(answer.started_s - since_s)
            return answer
        self._observer.shed(answer.reason, ask.traffic)
        return _refusal(answer)

    def _ask(self, visit: Visit, principal: Principal, call: Call) -> TurnAsk:
        ask = TurnAsk(
            visit.request_id,
            self._places.line(call.model, principal.org_id),
            principal.org_id,
            self._now_s() + self._longest_wait_s,
            call.prompt_tokens_estimate,
            call.max_output_tokens * call.choices,
            max_waiting=principal.max_queue_depth,
            shown_id=visit.shown_id,
            policy=self._policy,
        )
        if self._by_priority:
            ask.weight, ask.priority = principal.weight, principal.priority
            ask.traffic = traffic_class(principal)
            if principal.policy is not None:
                ask.policy = principal.policy
            ask.preempts = ask.policy == PREEMPTIVE
            if not visit.covered:
                ask.preemptible = True
                ask.on_preempt = visit.interrupt
        if visit.covered:
            ask.traffic = TrafficClass.RESERVED
        if call.stream:
            ask.on_wait = lambda standing: _tell(visit, standing)
        return ask


def traffic_class(principal: Principal) -> TrafficClass:
    """What overload sheds first are tenants whose plan does not include the priority queue."""
    features = principal.features
    if features is None or Feature.PRIORITY_QUEUE in features:
        return TrafficClass.SERVERLESS
    return TrafficClass.FREE


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
    if shed.reason is ShedReason.REMOVED:
        return errors.REMOVED_FROM_QUEUE
    return errors.busy(max(1, math.ceil(shed.retry_after_s)))
