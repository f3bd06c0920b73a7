"""The queue of one process: futures and timers around the desk, which decides.

Invariant: whoever waits is answered exactly once, by a turn, a refusal, or its own cancellation, and by its deadline
at the latest.
"""

import asyncio
from collections.abc import Callable

import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.queueing.board.model import Board, look
from crosslogic.queueing.desk import Desk
from crosslogic.queueing.model import Queued, Shed, ShedReason, Standing, Turn, TurnAsk

REPORT_EVERY_S = 1.0
_LEFT = Shed(ShedReason.LEFT, 1.0)
_REMOVED = Shed(ShedReason.REMOVED, 1.0)


class _Waiter(msgspec.Struct, eq=False):
    ask: TurnAsk
    answered: "asyncio.Future[Turn | Shed]"


class MemoryQueue:
    """A `TurnQueue` for one process. Not thread-safe: it lives in one event loop."""

    def __init__(
        self,
        desk: Desk,
        clock: Clock,
        *,
        report_every_s: float = REPORT_EVERY_S,
        on_length: Callable[[int], None] | None = None,
    ) -> None:
        """`on_length` is told how many wait, whenever that changes."""
        self.desk = desk
        self._on_length = on_length
        self._now_s = clock.monotonic_s
        self._loop = asyncio.get_running_loop()
        self._report_every_s = report_every_s
        self._waiters: dict[str, _Waiter] = {}
        self._granting: asyncio.Handle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_at_s = float("inf")
        self._reporting: asyncio.TimerHandle | None = None

    async def turn(self, ask: TurnAsk) -> Turn | Shed:
        """A turn, at once or after waiting; or why there is none."""
        answer = self.desk.ask(ask, self._now_s())
        if isinstance(answer, Queued):
            return await self._wait(ask, answer)
        return answer

    def done(self, turn: Turn, prompt_tokens: int, output_tokens: int) -> None:
        """The request has left its node; whoever is next may go."""
        if self.desk.done(turn, prompt_tokens, output_tokens, self._now_s()) and self._waiters:
            self._grant()

    async def again(self, turn: Turn) -> Turn | Shed:
        """Give the turn back and wait for another one at the old place."""
        self.done(turn, 0, 0)
        answer = self.desk.again(turn, self._now_s())
        if isinstance(answer, Queued):
            return await self._wait(turn.ask, answer)
        return answer

    def leave(self, request_id: str) -> None:
        """The caller of a waiting request is gone."""
        self._take_out(request_id, _LEFT)

    def remove(self, request_id: str) -> bool:
        """Somebody else takes a waiting request out."""
        return self._take_out(request_id, _REMOVED)

    def board(self) -> Board:
        """What waits and runs in this process."""
        return look(self.desk.queue, self._now_s())

    def standing(self, request_id: str) -> Standing | None:
        """Position and estimated wait of a waiting request."""
        return self.desk.queue.standing(request_id, self._now_s())

    def waiting(self) -> int:
        """Requests that wait in this process."""
        return len(self.desk.queue)

    def places_changed(self) -> None:
        """The fleet has changed: look again, once for all changes of this turn of the event loop."""
        if self._waiters and self._granting is None:
            self._granting = self._loop.call_soon(self._grant)

    async def close(self) -> None:
        """Refuse all that wait."""
        for waiter in list(self._waiters.values()):
            self.desk.queue.remove(waiter.ask.id)
            self._answer(waiter, Shed(ShedReason.QUEUE_FULL, 1.0))
        for timer in (self._granting, self._expiry, self._reporting):
            if timer is not None:
                timer.cancel()

    def _take_out(self, request_id: str, why: Shed) -> bool:
        waiter = self._waiters.get(request_id)
        if waiter is None or self.desk.queue.remove(request_id) is None:
            return False
        self._answer(waiter, why)
        return True

    # --- inside -------------------------------------------------------------------------------------------------

    async def _wait(self, ask: TurnAsk, queued: Queued) -> Turn | Shed:
        waiter = _Waiter(ask, self._loop.create_future())
        self._waiters[ask.id] = waiter
        self._tell_length()
        if queued.displaced is not None:
            self._answer(self._waiters[queued.displaced.id], Shed(ShedReason.DISPLACED, 1.0))
        self._watch_deadlines()
        if ask.on_wait is not None and self._reporting is None:
            self._reporting = self._loop.call_later(self._report_every_s, self._report)
        victim = self.desk.preempt_for(ask)
        if victim is not None:
            self._loop.call_soon(_put_back, victim)
        try:
            answer = await waiter.answered
        except asyncio.CancelledError:
            self._cancelled(waiter)
            raise
        if isinstance(answer, Turn):
            self._claim()
        return answer

    def _cancelled(self, waiter: _Waiter) -> None:
        self._waiters.pop(waiter.ask.id, None)
        self._tell_length()
        self.desk.queue.remove(waiter.ask.id)
        answered = waiter.answered
        if answered.done() and not answered.cancelled():
            # The turn came in the very moment in which the caller left: it goes to the next.
            answer = answered.result()
            if isinstance(answer, Turn):
                self._claim()
                self.done(answer, 0, 0)

    def _claim(self) -> None:
        self.desk.claimed()
        if not self.desk.pending:
            self.places_changed()  # places of other lines may have counted as taken meanwhile

    def _grant(self) -> None:
        self._granting = None
        now_s = self._now_s()
        self._refuse_expired(now_s)
        for turn in self.desk.grant(now_s):
            self._answer(self._waiters[turn.ask.id], turn)

    def _answer(self, waiter: _Waiter, answer: Turn | Shed) -> None:
        del self._waiters[waiter.ask.id]
        self._tell_length()
        if waiter.answered.done():  # cancelled in this very turn of the loop, and not yet told
            if isinstance(answer, Turn):
                self.desk.claimed()
                self.desk.done(answer, 0, 0, self._now_s())
                self.places_changed()
            return
        waiter.answered.set_result(answer)

    def _tell_length(self) -> None:
        if self._on_length is not None:
            self._on_length(len(self._waiters))

    def _refuse_expired(self, now_s: float) -> None:
        for ask in self.desk.queue.expire(now_s):
            self._answer(self._waiters[ask.id], Shed(ShedReason.DEADLINE, 1.0))

    def _watch_deadlines(self) -> None:
        """One timer for the nearest deadline."""
        next_s = self.desk.queue.next_deadline_s
        if next_s is None or (self._expiry is not None and self._expiry_at_s <= next_s):
            return
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry_at_s = next_s
        self._expiry = self._loop.call_later(max(0.0, next_s - self._now_s()), self._on_deadline)

    def _on_deadline(self) -> None:
        self._expiry = None
        self._refuse_expired(self._now_s())
        self._watch_deadlines()

    def _report(self) -> None:
        """Tell those who want to know how they stand."""
        self._reporting = None
        now_s = self._now_s()
        for waiter in list(self._waiters.values()):
            ask = waiter.ask
            if ask.on_wait is not None:
                if self._reporting is None:
                    self._reporting = self._loop.call_later(self._report_every_s, self._report)
                standing = self.desk.queue.standing(ask.id, now_s)
                if standing is not None and standing.waited_s >= self._report_every_s:
                    ask.on_wait(standing)


def _put_back(turn: Turn) -> None:
    """Unless it has ended, or sent something, since that was decided."""
    if turn.open and not turn.sent and turn.ask.on_preempt is not None:
        turn.ask.on_preempt()
