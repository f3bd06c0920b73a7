"""Holds the slots of the requests that run here, and waits where another request holds them.

Invariants: every slot taken here is renewed until it is finished, given up, or this process dies; a wait ends when
the answer is there, the caller is gone, or `join_s` is over; waiting requests of this process are at most
`most_joined`. A finished answer that could not be delivered to the other workers is offered again until it is taken,
within `most_undelivered_bytes`.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum

import msgspec

from crosslogic.cache.idempotency.ports import SlotKey, Slots
from crosslogic.cache.idempotency.slot import Conflict, Join, Replay, Run
from crosslogic.cache.model import ENTRY_OVERHEAD_BYTES, Recording
from crosslogic.cache.null import Uncounted
from crosslogic.cache.ports import CacheObserver
from crosslogic.kernel.errors import Unavailable

FIRST_POLL_S = 0.02
MAX_POLL_S = 0.25


class Claim(msgspec.Struct, frozen=True):
    """A slot that a running request holds. It must be finished or given up exactly once."""

    key: SlotKey
    fingerprint: bytes
    holder: str


class Problem(StrEnum):
    """Why a request with a key is neither run nor answered; the values are codes of the error that the caller gets."""

    INVALID = "invalid_idempotency_key"
    REUSED = "idempotency_key_reused"  # for another body
    IN_USE = "idempotency_key_in_use"  # still running, and no more waiting
    NOT_KEPT = "idempotency_answer_not_kept"  # answered and billed, but too large to be kept
    UNSURE = "idempotency_unavailable"  # strict, and Redis is away


class Idempotency:
    """What the request path asks of idempotency keys."""

    def __init__(
        self,
        slots: Slots,
        *,
        renew_s: float = 10.0,
        join_s: float = 600.0,
        most_joined: int = 1000,
        most_undelivered_bytes: int = 64 * 1024 * 1024,
        observer: CacheObserver | None = None,
    ) -> None:
        """`renew_s` must be well below the lease of the slots."""
        self._slots = slots
        self._observer = observer or Uncounted()
        self._loop = asyncio.get_running_loop()
        self._renew_s = renew_s
        self._join_s = join_s
        self._most_joined = most_joined
        self._most_undelivered_bytes = most_undelivered_bytes
        self._held: dict[SlotKey, Claim] = {}
        self._undelivered: OrderedDict[SlotKey, tuple[Claim, Recording | None]] = OrderedDict()
        self._undelivered_bytes = 0
        self._joined: dict[SlotKey, set[asyncio.Future[None]]] = {}
        self.joined = 0
        self._tending = self._loop.create_task(self._tend())

    async def claim(
        self, key: SlotKey, fingerprint: bytes, holder: str, alive: Callable[[], bool]
    ) -> Claim | Replay | Problem:
        """Take the slot; or wait for who has it, and say what was answered. `holder` is new for every request."""
        taken, waited = await self._take(key, fingerprint, holder, alive)
        if isinstance(taken, Problem):
            self._observer.key_used(taken)
        elif isinstance(taken, Claim):
            self._observer.key_used("run")
        else:
            self._observer.key_used("joined" if waited else "replayed")
        return taken

    async def _take(
        self, key: SlotKey, fingerprint: bytes, holder: str, alive: Callable[[], bool]
    ) -> tuple[Claim | Replay | Problem, bool]:
        """What `claim` returns, and whether another request ran meanwhile."""
        deadline_s = self._loop.time() + self._join_s
        poll_s = FIRST_POLL_S
        waits = False
        try:
            while True:
                decision = await self._slots.begin(key, fingerprint, holder)
                if isinstance(decision, Run):
                    claim = Claim(key, fingerprint, holder)
                    self._held[key] = claim
                    return claim, waits
                if isinstance(decision, Replay):
                    return decision, waits
                if not isinstance(decision, Join):
                    return Problem.REUSED if isinstance(decision, Conflict) else Problem.NOT_KEPT, waits
                if not waits and self.joined >= self._most_joined:
                    return Problem.IN_USE, waits
                if not alive() or self._loop.time() >= deadline_s:
                    return Problem.IN_USE, waits
                self.joined += not waits
                waits = True
                await self._change_of(key, poll_s)
                poll_s = min(2 * poll_s, MAX_POLL_S)
        except Unavailable:
            return Problem.UNSURE, waits
        except asyncio.CancelledError:
            self._slots.release(key, holder)  # Redis may have given it to us although we never heard of it
            raise
        finally:
            self.joined -= waits

    async def finish(self, claim: Claim, recording: Recording | None) -> None:
        """Put the answer into the slot; None when it was too large to be recorded. Waits as long as the slots do."""
        if not await self._slots.complete(claim.key, claim.fingerprint, claim.holder, recording):
            self._put_off(claim, recording)
        self._let_go(claim)

    def give_up(self, claim: Claim) -> None:
        """The request failed: let a repeat run. Returns at once."""
        self._slots.release(claim.key, claim.holder)
        self._let_go(claim)

    async def close(self) -> None:
        """Give up what is still held, and offer what was not delivered a last time."""
        self._tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._tending
        for claim in list(self._held.values()):
            self.give_up(claim)
        await self._deliver()

    def _let_go(self, claim: Claim) -> None:
        if self._held.get(claim.key) is claim:
            del self._held[claim.key]
        for waiter in self._joined.pop(claim.key, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def _change_of(self, key: SlotKey, timeout_s: float) -> None:
        """Wait until the slot is let go here; elsewhere that is seen only by asking again."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        waiters = self._joined.setdefault(key, set())
        waiters.add(waiter)
        timer = self._loop.call_later(timeout_s, lambda: None if waiter.done() else waiter.set_result(None))
        try:
            await waiter
        finally:
            timer.cancel()
            waiters.discard(waiter)
            if not waiters and self._joined.get(key) is waiters:
                del self._joined[key]

    def _put_off(self, claim: Claim, recording: Recording | None) -> None:
        earlier = self._undelivered.pop(claim.key, None)
        if earlier is not None:
            self._undelivered_bytes -= _size_bytes(earlier[1])
        self._undelivered[claim.key] = (claim, recording)
        self._undelivered_bytes += _size_bytes(recording)
        while self._undelivered_bytes > self._most_undelivered_bytes:
            self._undelivered_bytes -= _size_bytes(self._undelivered.popitem(last=False)[1][1])

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(self._renew_s)
            for claim in list(self._held.values()):
                await self._slots.renew(claim.key, claim.holder)
            await self._deliver()

    async def _deliver(self) -> None:
        for key, (claim, recording) in list(self._undelivered.items()):
            if not await self._slots.complete(key, claim.fingerprint, claim.holder, recording):
                return  # Redis is still away: the others need not be tried now
            if self._undelivered.pop(key, None) is not None:
                self._undelivered_bytes -= _size_bytes(recording)


def _size_bytes(recording: Recording | None) -> int:
    return ENTRY_OVERHEAD_BYTES + (0 if recording is None else recording.size_bytes)
