"""Limits counted in this process: the embedded product, and what a worker falls back on without Redis.

Invariant: `admit` decides and commits without awaiting, so one event loop never interleaves two decisions.
"""

from collections.abc import Sequence

from crosslogic.kernel.clock import Clock
from crosslogic.limits import bucket
from crosslogic.limits.bucket import Reservation
from crosslogic.limits.model import Admitted, Rejected, Scope
from crosslogic.limits.plan import Counter, PlanBook


class MemoryLimiter:
    """A `Limiter` for one process; exact, and gone with it."""

    def __init__(self, clock: Clock) -> None:
        self._now_s = clock.monotonic_s
        self._book: PlanBook[Counter] = PlanBook(Counter)

    async def admit(self, scopes: Sequence[Scope], tokens: int) -> Admitted | Rejected:
        """Reserve one request, `tokens` and one slot in all scopes, or nothing in any."""
        now_s = self._now_s()
        return bucket.reserve(self._book.plan(scopes, now_s), now_s, tokens)

    def settle(self, admitted: Admitted, tokens: int) -> None:
        """Replace the reserved tokens by those used, and give back the slot."""
        reservation = admitted.reservation
        if isinstance(reservation, Reservation) and reservation.open:
            reservation.open = False
            bucket.settle(reservation.plan, self._now_s(), admitted.tokens_reserved - tokens)

    def release(self, admitted: Admitted) -> None:
        """Give back everything."""
        reservation = admitted.reservation
        if isinstance(reservation, Reservation) and reservation.open:
            reservation.open = False
            bucket.release(reservation.plan, self._now_s(), admitted.tokens_reserved)

    async def close(self) -> None:
        """Nothing is buffered here."""

    @property
    def counters(self) -> int:
        """Scopes held in memory at present."""
        return len(self._book)
