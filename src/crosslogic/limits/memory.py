"""Limits counted in this process: the embedded product, and what a worker falls back on without Redis.

Invariant: `admit` decides and commits without awaiting, so one event loop never interleaves two decisions.
"""

from collections.abc import Sequence

from crosslogic.kernel.clock import Clock
from crosslogic.limits import bucket
from crosslogic.limits.bucket import Reservation
from crosslogic.limits.budget import NO_MONTH, month_at
from crosslogic.limits.model import PUSD_PER_NUSD, Admitted, Demand, Layer, Rejected, Room, Scope
from crosslogic.limits.plan import Counter, PlanBook


class MemoryLimiter:
    """A `Limiter` for one process; exact, and gone with it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._now_s = clock.monotonic_s
        self._book: PlanBook[Counter] = PlanBook(Counter)

    async def admit(self, scopes: Sequence[Scope], demand: Demand) -> Admitted | Rejected:
        """Reserve one request, what it demands and one slot in all scopes, or nothing in any."""
        now_s = self._now_s()
        plan = self._book.plan(scopes, now_s)
        return bucket.reserve(plan, now_s, demand, month_at(self._clock.now()) if plan.budgets else NO_MONTH)

    async def look(self, scopes: Sequence[Scope]) -> Room:
        """What is left at present; takes nothing."""
        now_s = self._now_s()
        return bucket.look(self._book.plan(scopes, now_s), now_s)

    def settle(self, admitted: Admitted, used: Demand) -> None:
        """Replace what was reserved by what was used, and give back the slot."""
        if _close(admitted):
            bucket.settle(admitted, self._now_s(), used)

    def release(self, admitted: Admitted) -> None:
        """Give back everything."""
        if _close(admitted):
            bucket.settle(admitted, self._now_s(), None)

    def spent(self, layer: Layer, scope_id: str, month: int, cost_pusd: int) -> None:
        """So much has been spent in that month at least, by the ledger."""
        self._book.spent(layer, scope_id, month, -(-cost_pusd // PUSD_PER_NUSD))

    async def close(self) -> None:
        """Nothing is buffered here."""

    @property
    def counters(self) -> int:
        """Scopes held in memory at present."""
        return len(self._book)


def _close(admitted: Admitted) -> bool:
    """Whether it was still to be settled."""
    reservation = admitted.reservation
    if not isinstance(reservation, Reservation) or not reservation.open:
        return False
    reservation.open = False
    return True
