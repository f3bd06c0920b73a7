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
import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from functools import partial

import hiredis
import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.limits import batch as batches
from crosslogic.limits import bucket
from crosslogic.limits.alone import Alone
from crosslogic.limits.batch import MAX_ASKS, SCRIPT, Ask, Batch, News, RemoteCounter, Session
from crosslogic.limits.bucket import Reservation
from crosslogic.limits.model import Admitted, Rejected, Scope
from crosslogic.limits.plan import Plan, PlanBook
from crosslogic.net.redis import RedisConnection, Reply
from crosslogic.net.turns import after_turns

logger = logging.getLogger(__name__)

SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
GATHER_TURNS = 4  # of the event loop: the more there is to do, the more admissions travel together
PROBE_S = 0.1
REASSERT_S = 600.0
SECOND_LOOK_S = 0.005
CLOSE_S = 1.0
MAX_OLD_SESSIONS = 8
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
        self._connection = connection
        self._now_s = clock.monotonic_s
        self._loop = asyncio.get_running_loop()
        self._prefix = prefix
        self._wait_s = wait_s
        self._settle_delay_s = settle_delay_s
        self._heartbeat_s = heartbeat_s
        self._dead_after_s = dead_after_s
        self._grace_s = grace_s
        self._on_degraded = on_degraded
        self._book: PlanBook[RemoteCounter] = PlanBook(lambda scope: RemoteCounter(scope, prefix))
        self._asks: list[Ask] = []
        self._asks_since_s = 0.0
        self._news = News()
        self._alone = Alone()
        self._sent: Batch | None = None
        self._session = Session(secrets.token_hex(4))
        self._generation = connection.generation
        self._careful_until_s = 0.0
        self._reassert_at_s = self._now_s() + REASSERT_S
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
        return len(self._news) + (self._sent is not None)

    @property
    def workers(self) -> int:
        """Workers alive, this one included, as last heard."""
        return self._session.workers

    # --- the port -----------------------------------------------------------------------------------------------

    async def admit(self, scopes: Sequence[Scope], tokens: int) -> Admitted | Rejected:
        """Reserve one request, `tokens` and one slot in all scopes, or nothing in any; waits at most `wait_s`."""
        now_s = self._now_s()
        plan = self._book.plan(scopes, now_s)
        if not plan.counters:
            return Admitted((), tokens, None, None)
        if self.degraded:
            return self._decide_alone(plan, now_s, tokens)
        answered: asyncio.Future[Admitted | Rejected] = self._loop.create_future()
        if not self._asks:
            self._asks_since_s = now_s
            if self._watch is None:
                self._watch = self._loop.call_later(self._wait_s, self._check_wait)
        self._asks.append(Ask(plan, tokens, answered))
        if not self._flushing and self._sent is None:
            self._flush_soon()
        try:
            return await answered
        except asyncio.CancelledError:
            # The caller left in the very turn in which the answer came: nobody else will ever settle it.
            if answered.done() and not answered.cancelled():
                answer = answered.result()
                if isinstance(answer, Admitted):
                    self.release(answer)
            raise

    def settle(self, admitted: Admitted, tokens: int) -> None:
        """Replace the reserved tokens by those used, and give back the slot."""
        reservation = admitted.reservation
        if isinstance(reservation, Reservation) and reservation.open:
            self._give_back(reservation, admitted.tokens_reserved - tokens, 0)

    def release(self, admitted: Admitted) -> None:
        """Give back everything."""
        reservation = admitted.reservation
        if isinstance(reservation, Reservation) and reservation.open:
            self._give_back(reservation, admitted.tokens_reserved, 1)

    async def close(self) -> None:
        """Tell Redis what it does not know yet and give up the leases; waits at most a second."""
        self._closing = True
        self._beat.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._drain()
                self._send(self._write(farewell=(self._session.name,)))
                await self._drain()
        if self._watch is not None:
            self._watch.cancel()
        if self.undelivered:
            logger.warning("limits: Redis is away, %d settlements were not delivered", len(self._news))
        self._closed = True

    # --- talking to Redis ---------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            after_turns(self._loop, GATHER_TURNS, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._sent is None and not self.degraded:
            self._send(self._write())

    def _flush_settlements(self) -> None:
        self._settling = False
        if self._news and self._sent is None and not self.degraded:
            self._send(self._write())

    def _heartbeat(self) -> None:
        self._beat = self._loop.call_later(self._heartbeat_s, self._heartbeat)
        if self._now_s() >= self._reassert_at_s:  # before the leases of very long requests expire in Redis
            self._tell_all_leases()
        if self._sent is None and not self.degraded:
            self._send(self._write())

    def _write(self, farewell: tuple[str, ...] = ()) -> Batch:
        if self._connection.generation != self._generation:
            self._generation = self._connection.generation
            self._renew_session(self._session.epoch)
        asks = [ask for ask in self._asks[:MAX_ASKS] if not ask.answered.done()]  # done: the caller left
        self._asks = self._asks[MAX_ASKS:]
        news = self._news.take()
        retires = not self._news
        return batches.write(
            self._session,
            self._prefix,
            news,
            asks,
            careful=self._now_s() < self._careful_until_s,
            dead_after_s=self._dead_after_s,
            farewell=farewell or (self._session.old if retires else ()),
            retires=retires,
            asked_s=self._asks_since_s,
        )

    def _send(self, batch: Batch, whole_script: bool = False) -> None:
        self._sent = batch
        batch.lost = False
        batch.sent_s = self._now_s()
        script = ("EVAL", SCRIPT) if whole_script else ("EVALSHA", SCRIPT_SHA)
        self._connection.call(partial(self._on_reply, batch), *script, len(batch.keys), *batch.keys, batch.payload)

    def _on_reply(self, batch: Batch, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            self._send(batch, whole_script=True)
            return
        if isinstance(reply, Exception):
            if batches.failed_for_good(str(reply)):
                self._give_up(batch, str(reply))
            else:
                batch.lost = True
                self._go_alone(str(reply))
            return
        try:
            answer = batches.read(reply)
        except msgspec.MsgspecError as error:
            self._give_up(batch, f"unreadable answer: {error}")
            return
        self._sent = None
        self._answer(batch, answer)  # before learning, which may have all leases written again
        self._learn(batch, answer)
        if not self.degraded:
            self._go_on()
        elif self._now_s() - batch.sent_s <= self._wait_s:
            self._rejoin()
        self._drained.set()

    def _give_up(self, batch: Batch, why: str) -> None:
        logger.error("limits: Redis refused a batch, what it gave back in %d scopes is lost: %s", batch.scopes, why)
        self._go_alone(why)
        self._sent = None
        self._drained.set()

    def _go_on(self) -> None:
        if self._asks and not self._closing:
            self._flush_soon()
        elif self._asks or (self._news and (self._closing or not self._settling)):
            self._send(self._write())

    def _answer(self, batch: Batch, answer: batches.Answer) -> None:
        for ask, verdict in zip(batch.asks, answer.verdicts, strict=True):
            counters = ask.plan.counters
            if ask.answered.done():  # the caller is gone, or was answered here: Redis must forget the request
                if verdict[0] == 0:
                    for counter in counters:
                        counter.back_tokens += ask.tokens
                        counter.back_requests += 1
                        self._news.add(counter)
                continue
            if verdict[0] == 0:
                for counter in counters:
                    counter.in_flight += 1
            ask.answered.set_result(batches.outcome(ask, verdict))

    def _learn(self, batch: Batch, answer: batches.Answer) -> None:
        session = self._session
        if batch.retires:
            session.old = ()
        if session.epoch == 0:
            session.epoch = answer.epoch
        elif session.epoch != answer.epoch:  # Redis lost its memory, and with it who else is there
            self._renew_session(answer.epoch)
            return
        if self._now_s() >= self._careful_until_s:
            session.workers = max(1, answer.workers)
            session.rank = min(answer.rank, session.workers - 1)

    def _renew_session(self, epoch: float) -> None:
        last = self._session
        old = (*last.old, last.name)[-MAX_OLD_SESSIONS:]
        self._session = Session(secrets.token_hex(4), old, 0, epoch, last.workers, last.rank)
        self._careful_until_s = self._now_s() + self._grace_s
        self._tell_all_leases()

    def _tell_all_leases(self) -> None:
        self._reassert_at_s = self._now_s() + REASSERT_S
        for counter in self._book.counters():
            if counter.in_flight and counter.has_slots:
                self._news.add(counter)

    def _give_back(self, reservation: Reservation, tokens: int, requests: int) -> None:
        reservation.open = False
        counters: Sequence[RemoteCounter] = reservation.plan.counters
        if reservation.local and self.degraded:
            give = bucket.release if requests else bucket.settle
            give(reservation.plan, self._now_s(), tokens)
            for counter in counters:
                self._news.add(counter)
            return
        for counter in counters:
            counter.in_flight -= 1
            counter.back_tokens += tokens
            counter.back_requests += requests
            if counter.told and (counter.has_slots or requests or (tokens and counter.has_tokens)):
                self._news.add(counter)
        if self._news and not self._settling:
            self._settling = True
            self._loop.call_later(self._settle_delay_s, self._flush_settlements)

    async def _drain(self) -> None:
        while self._news or self._asks or self._sent is not None:
            if self._sent is None and not self.degraded:
                self._send(self._write())
            self._drained.clear()
            await self._drained.wait()

    # --- alone --------------------------------------------------------------------------------------------------

    def _check_wait(self) -> None:
        self._watch = None
        sent = self._sent
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
        if self._sent is not None and not self._sent.abandoned:
            self._sent.abandoned = True
            waiting = self._sent.asks + waiting
        now_s = self._now_s()
        for ask in waiting:
            if not ask.answered.done():
                ask.answered.set_result(self._decide_alone(ask.plan, now_s, ask.tokens))

    def _decide_alone(self, plan: Plan[RemoteCounter], now_s: float, tokens: int) -> Admitted | Rejected:
        session = self._session
        return self._alone.reserve(plan, session.workers, session.rank, now_s, tokens)

    def _probe(self) -> None:
        if not self.degraded or self._closed:
            return
        self._loop.call_later(PROBE_S, self._probe)
        if self._connection.connected:
            if self._sent is None:
                self._send(self._write())
            elif self._sent.lost:
                self._send(self._sent)

    def _rejoin(self) -> None:
        self.degraded = False
        self._report(False, "Redis answers in time")
        now_s = self._now_s()
        self._careful_until_s = now_s + self._grace_s  # the others may still be alone, with leases not told yet
        for counter in self._alone.owed(self._session.workers, now_s):
            self._news.add(counter)
        self._go_on()

    def _report(self, degraded: bool, why: str) -> None:
        if self._on_degraded is not None:
            self._on_degraded(degraded)
        now_s = self._now_s()
        if degraded and now_s - self._logged_s >= QUIET_LOG_S:
            self._logged_s = now_s
            share = f"1/{self._session.workers}"
            logger.warning("limits: deciding alone with %s of every limit until Redis is back: %s", share, why)
