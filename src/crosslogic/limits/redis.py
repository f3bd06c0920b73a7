"""Limits counted in Redis, exact for any number of gateway workers.

All admissions and settlements of one turn of the event loop travel in one Lua call, and a worker has one call
under way at a time: under load the calls grow instead of multiplying. A settlement waits up to `settle_delay_s`
for an admission to travel with, so a busy worker makes at most one call a request, usually far less.

Invariants:

- Redis decides all layers of a request at one instant of its own clock, or this worker decides alone.
- Concurrency is held as leases: per scope, how many requests of each worker run. They count while their worker is
  alive, that is, has called within `dead_after_s`; a killed worker's slots are free again after that time.
- What a settlement gives back reaches Redis exactly once: a batch of unknown fate is sent again under its number.
- Nothing waits longer than `wait_s` (and 5 ms, for an answer that has come but could not be read yet, because this
  process itself stood still). Without an answer by then, or without a connection, the worker is *alone*: it
  answers at once from its own buckets, an equal share (1/N of the workers it last knew) of every limit. When
  Redis answers in time again, what was taken alone is charged there, and Redis decides again.
- For `grace_s` after Redis has lost its memory, after a reconnection and after being alone, a worker takes no slot
  beyond its share, until the leases of all workers are written again.

What is not exact, and by how much: while Redis is away, and in that grace, concurrency may exceed a ceiling by what
single workers already held beyond their share. A Redis that lost its memory starts with full buckets: one burst
more. A worker that stands still for longer than `dead_after_s` with requests running may find its slots taken.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from crosslogic.kernel.clock import Clock
from crosslogic.limits import batch as batches
from crosslogic.limits import bucket
from crosslogic.limits.alone import Alone
from crosslogic.limits.batch import MAX_ASKS, Ask, Batch
from crosslogic.limits.bucket import Reservation
from crosslogic.limits.budget import NO_MONTH, month_at
from crosslogic.limits.conversation import Conversation
from crosslogic.limits.model import NO_CEILING, PUSD_PER_NUSD, Admitted, Demand, Layer, Rejected, Room, Scope
from crosslogic.limits.plan import MONEY, Plan, PlanBook
from crosslogic.limits.remote import RemoteCounter
from crosslogic.net.redis import RedisConnection
from crosslogic.net.turns import after_turns

logger = logging.getLogger(__name__)

GATHER_TURNS = 4  # of the event loop: the more there is to do, the more admissions travel together
PROBE_S = 0.1
SECOND_LOOK_S = 0.005
CLOSE_S = 1.0
QUIET_LOG_S = 30.0


class RedisLimiter:
    """A `Limiter` for one of many workers. The connection is not closed with it.

    `on_degraded(True)` is called when this worker begins to decide alone, `on_degraded(False)` when it ends;
    `decided_alone` counts the requests answered so.
    """

    def __init__(
        self,
        connection: RedisConnection,
        clock: Clock,
        *,
        prefix: str = "{crosslogic:limits}:",
        wait_s: float = 0.05,
        settle_delay_s: float = 0.002,
        heartbeat_s: float = 1.0,
        dead_after_s: float = 6.0,
        grace_s: float = 2.5,
        on_degraded: Callable[[bool], None] | None = None,
    ) -> None:
        """`prefix` must contain one hash tag (`{…}`), so that a Redis cluster keeps all keys together."""
        self._clock = clock
        self._now_s = clock.monotonic_s
        self._loop = asyncio.get_running_loop()
        self._wait_s = wait_s
        self._settle_delay_s = settle_delay_s
        self._heartbeat_s = heartbeat_s
        self._on_degraded = on_degraded
        self._book: PlanBook[RemoteCounter] = PlanBook(lambda scope: RemoteCounter(scope, prefix))
        self._asks: list[Ask] = []
        self._asks_since_s = 0.0
        self._alone = Alone()
        self._talk = Conversation(
            connection,
            self._now_s,
            self._book,
            prefix=prefix,
            dead_after_s=dead_after_s,
            grace_s=grace_s,
            on_answer=self._apply,
            on_ready=self._ready,
            on_failure=self._failed,
        )
        self._logged_s = float("-inf")
        self._flushing = False
        self._settling = False
        self._second_look = False
        self._closing = False
        self._closed = False
        self._drained: asyncio.Event = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self.degraded = False
        self._beat: asyncio.Handle = self._loop.call_soon(self._heartbeat)

    @property
    def decided_alone(self) -> int:
        """Requests answered without Redis so far."""
        return self._alone.decided

    @property
    def undelivered(self) -> int:
        """Scopes about which Redis has still to be told something."""
        return len(self._talk.news) + (self._talk.sent is not None)

    @property
    def workers(self) -> int:
        """Workers alive, this one included, as last heard."""
        return self._talk.session.workers

    # --- the port -----------------------------------------------------------------------------------------------

    async def admit(self, scopes: Sequence[Scope], demand: Demand) -> Admitted | Rejected:
        """Reserve one request, what it demands and one slot in all scopes, or nothing; waits at most `wait_s`."""
        now_s = self._now_s()
        plan = self._book.plan(scopes, now_s)
        if not plan.counters:
            return Admitted((), demand, None, None)
        if self.degraded:
            return self._decide_alone(plan, now_s, demand)
        answered: asyncio.Future[Admitted | Rejected] = self._loop.create_future()
        self._ask(Ask(plan, demand, answered), now_s)
        try:
            return await answered
        except asyncio.CancelledError:
            # The caller left in the very turn in which the answer came: nobody else will ever settle it.
            if answered.done() and not answered.cancelled():
                answer = answered.result()
                if isinstance(answer, Admitted):
                    self.release(answer)
            raise

    async def look(self, scopes: Sequence[Scope]) -> Room:
        """What is left at present; takes nothing, and waits at most `wait_s`."""
        now_s = self._now_s()
        plan = self._book.plan(scopes, now_s)
        if not any(part.gates for part in plan.parts):
            return NO_CEILING
        if self.degraded:
            return self._look_alone(plan, now_s)
        answered: asyncio.Future[Room] = self._loop.create_future()
        self._ask(Ask(plan, None, answered), now_s)
        return await answered

    def settle(self, admitted: Admitted, used: Demand) -> None:
        """Replace what was reserved by what was used, and give back the slot."""
        self._give_back(admitted, used)

    def release(self, admitted: Admitted) -> None:
        """Give back everything."""
        self._give_back(admitted, None)

    def spent(self, layer: Layer, scope_id: str, month: int, cost_pusd: int) -> None:
        """So much has been spent in that month at least, by the ledger; told to Redis with the scope's next call."""
        self._book.spent(layer, scope_id, month, -(-cost_pusd // PUSD_PER_NUSD))

    async def close(self) -> None:
        """Tell Redis what it does not know yet and give up the leases; waits at most a second."""
        self._closing = True
        self._beat.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._drain()
                self._talk.say([], self._asks_since_s, farewell=True)
                await self._drain()
        if self._watch is not None:
            self._watch.cancel()
        if self.undelivered:
            logger.warning("limits: Redis is away, %d settlements were not delivered", len(self._talk.news))
        self._closed = True

    # --- talking to Redis ---------------------------------------------------------------------------------------

    def _ask(self, ask: Ask, now_s: float) -> None:
        if not self._asks:
            self._asks_since_s = now_s
            if self._watch is None:
                self._watch = self._loop.call_later(self._wait_s, self._check_wait)
        self._asks.append(ask)
        if not self._flushing and self._talk.sent is None:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            after_turns(self._loop, GATHER_TURNS, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._talk.sent is None and not self.degraded:
            self._say()

    def _flush_settlements(self) -> None:
        self._settling = False
        if self._talk.news and self._talk.sent is None and not self.degraded:
            self._say()

    def _heartbeat(self) -> None:
        self._beat = self._loop.call_later(self._heartbeat_s, self._heartbeat)
        if self._talk.sent is None and not self.degraded:
            self._say()

    def _say(self) -> None:
        asks = [ask for ask in self._asks[:MAX_ASKS] if not ask.answered.done()]  # done: the caller left
        self._asks = self._asks[MAX_ASKS:]
        self._talk.say(asks, self._asks_since_s)

    def _ready(self, batch: Batch) -> None:
        if not self.degraded:
            self._go_on()
        elif self._now_s() - batch.sent_s <= self._wait_s:
            self._rejoin()
        self._drained.set()

    def _failed(self, why: str) -> None:
        self._go_alone(why)
        self._drained.set()

    def _go_on(self) -> None:
        if self._asks and not self._closing:
            self._flush_soon()
        elif self._asks or (self._talk.news and (self._closing or not self._settling)):
            self._say()

    def _apply(self, batch: Batch, answer: batches.Answer) -> None:
        for row, spent_nusd, elsewhere_nusd, here_nusd in answer.spends:
            batch.counters[row - 1].spend.learn(answer.month, spent_nusd, elsewhere_nusd, here_nusd)
        now_s = self._now_s()
        for ask, verdict in zip(batch.asks, answer.verdicts, strict=True):
            outcome = batches.outcome(ask, verdict, answer.month, now_s)
            if isinstance(outcome, Admitted) and ask.demand is not None:
                reservation = outcome.reservation
                assert isinstance(reservation, Reservation)
                for counter in reservation.charged():
                    counter.in_flight += 1
                for spend in reservation.spends():
                    spend.hold(answer.month, ask.demand.units[MONEY])
            if not ask.answered.done():
                ask.answered.set_result(outcome)
            elif isinstance(outcome, Admitted):
                # The caller is gone, or was answered here: Redis must forget the request.
                self.release(outcome)

    def _give_back(self, admitted: Admitted, used: Demand | None) -> None:
        """`used` None: nothing ran, and the request itself is given back, too."""
        reservation = admitted.reservation
        if not isinstance(reservation, Reservation) or not reservation.open:
            return
        reservation.open = False
        if reservation.local and self.degraded:
            bucket.settle(admitted, self._now_s(), used)
            for counter in reservation.charged():
                self._talk.news.add(counter)
            return
        taken = admitted.reserved.units
        needed = bucket.NOTHING if used is None else used.units
        back = bucket.difference(taken, needed)
        for counter in reservation.charged():
            counter.in_flight -= 1
            if counter.turnover is not None and counter.turnover.ended(self._now_s()):
                counter.turnover = None
            if counter.give_back(back):
                self._talk.news.add(counter)
        for spend in reservation.spends():
            spend.settle(reservation.month, taken[MONEY], needed[MONEY])
        if self._talk.news and not self._settling:
            self._settling = True
            self._loop.call_later(self._settle_delay_s, self._flush_settlements)

    async def _drain(self) -> None:
        while self._talk.news or self._asks or self._talk.sent is not None:
            if self._talk.sent is None and not self.degraded:
                self._say()
            self._drained.clear()
            await self._drained.wait()

    # --- alone --------------------------------------------------------------------------------------------------

    def _check_wait(self) -> None:
        self._watch = None
        sent = self._talk.sent
        if sent is not None and sent.asks and not sent.abandoned:
            since_s = sent.asked_s
        elif self._asks:
            if sent is None:  # it was this process that stood still, before the call even left
                self._asks_since_s = self._now_s()
                self._flush()
            since_s = self._asks_since_s
        else:
            return
        left_s = since_s + self._wait_s - self._now_s()
        if left_s > 0:
            self._second_look = False
            self._watch = self._loop.call_later(left_s, self._check_wait)
        elif not self._second_look:
            # After a pause of this process the answer may have come long ago and only wait to be read.
            self._second_look = True
            self._watch = self._loop.call_later(SECOND_LOOK_S, self._check_wait)
        else:
            self._second_look = False
            self._go_alone(f"no answer within {self._wait_s * 1000:.0f} ms")

    def _go_alone(self, why: str) -> None:
        if not self.degraded:
            self.degraded = True
            self._report(True, why)
            self._loop.call_later(PROBE_S, self._probe)
        waiting = self._asks
        self._asks = []
        if self._talk.sent is not None and not self._talk.sent.abandoned:
            self._talk.sent.abandoned = True
            waiting = self._talk.sent.asks + waiting
        now_s = self._now_s()
        for ask in waiting:
            if not ask.answered.done():
                ask.answered.set_result(self._answer_alone(ask, now_s))

    def _decide_alone(self, plan: Plan[RemoteCounter], now_s: float, demand: Demand) -> Admitted | Rejected:
        session = self._talk.session
        month = month_at(self._clock.now()) if plan.budgets else NO_MONTH
        return self._alone.reserve(plan, session.workers, session.rank, now_s, demand, month)

    def _answer_alone(self, ask: Ask, now_s: float) -> Admitted | Rejected | Room:
        if ask.demand is None:
            return self._look_alone(ask.plan, now_s)
        return self._decide_alone(ask.plan, now_s, ask.demand)

    def _look_alone(self, plan: Plan[RemoteCounter], now_s: float) -> Room:
        return self._alone.look(plan, self._talk.session.workers, self._talk.session.rank, now_s)

    def _probe(self) -> None:
        if not self.degraded or self._closed:
            return
        self._loop.call_later(PROBE_S, self._probe)
        if self._talk.connected:
            if self._talk.sent is None:
                self._say()
            else:
                self._talk.repeat()

    def _rejoin(self) -> None:
        self.degraded = False
        self._report(False, "Redis answers in time")
        now_s = self._now_s()
        self._talk.be_careful()  # the others may still be alone, with leases not told yet
        for counter in self._alone.owed(self._talk.session.workers, now_s):
            self._talk.news.add(counter)
        self._go_on()

    def _report(self, degraded: bool, why: str) -> None:
        if self._on_degraded is not None:
            self._on_degraded(degraded)
        now_s = self._now_s()
        if degraded and now_s - self._logged_s >= QUIET_LOG_S:
            self._logged_s = now_s
            share = f"1/{self._talk.session.workers}"
            logger.warning("limits: deciding alone with %s of every limit until Redis is back: %s", share, why)
