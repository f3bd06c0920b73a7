"""Allocations in this process: for one process that shares out its own machine, and gone with it."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from crosslogic.capacity.allocations import shares
from crosslogic.capacity.allocations.model import NOTHING, Allocation, Reserve, Resources, Standing, Totals
from crosslogic.capacity.allocations.shares import Shares
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import InvalidRequest, NotFound
from crosslogic.kernel.ids import AllocationId, OrgId, new_allocation_id
from crosslogic.tenancy.audit import Actor


class MemoryAllocator:
    """A `ResourceAllocator`; what is decided is done before anybody else is asked, for nothing here waits."""

    def __init__(self, totals: Callable[[], Totals], clock: Clock) -> None:
        self._totals = totals
        self._clock = clock
        self._reserves: dict[OrgId, Reserve] = {}
        self._allocations: dict[AllocationId, Allocation] = {}

    def acting_as(self, actor: Actor) -> "MemoryAllocator":
        return self

    async def allocate(self, org_id: OrgId, wanted: Resources, *, lasts_s: float) -> Allocation:
        shares.check_duration(lasts_s)
        now = self._clock.now()
        self._shares(now).check_allocation(org_id, shares.checked(wanted))
        made = Allocation(new_allocation_id(), org_id, wanted, now, now + timedelta(seconds=lasts_s))
        self._allocations[made.id] = made
        return made

    async def release(self, allocation_id: AllocationId) -> Allocation:
        found = self._allocations.get(allocation_id)
        if found is None or found.expires_at <= self._clock.now():
            raise NotFound("there is no such allocation")
        return self._allocations.pop(allocation_id)

    async def available(self, org_id: OrgId) -> Standing:
        return self._shares(self._clock.now()).standing(org_id)

    async def reserve(self, org_id: OrgId, resources: Resources, *, expires_at: datetime | None = None) -> Reserve:
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise InvalidRequest("expires_at lies in the past", param="expires_at")
        self._shares(now).check_reserve(org_id, shares.checked(resources))
        reserve = Reserve(org_id, resources, expires_at)
        if resources == NOTHING:
            self._reserves.pop(org_id, None)
        else:
            self._reserves[org_id] = reserve
        return reserve

    async def allocations(
        self, *, org_id: OrgId | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Allocation]:
        now = self._clock.now()
        living = (each for each in self._allocations.values() if each.expires_at > now)
        return shares.page((each for each in living if org_id in (None, each.org_id)), after=after, limit=limit)

    async def sweep(self) -> int:
        now = self._clock.now()
        over = [each.id for each in self._allocations.values() if each.expires_at <= now]
        for allocation_id in over:
            del self._allocations[allocation_id]
        past = [each.org_id for each in self._reserves.values() if each.expires_at and each.expires_at <= now]
        for org_id in past:
            del self._reserves[org_id]
        return len(over) + len(past)

    def _shares(self, now: datetime) -> Shares:
        return Shares(self._totals(), self._reserves.values(), self._allocations.values(), now)
