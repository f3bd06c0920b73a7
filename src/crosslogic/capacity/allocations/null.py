"""Nothing is shared out: `resources.enable_reservations: false`."""

from collections.abc import Sequence
from datetime import datetime
from typing import NoReturn

from crosslogic.capacity.allocations.model import Allocation, Reserve, Resources, Standing
from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import AllocationId, OrgId
from crosslogic.tenancy.audit import Actor


class NullAllocator:
    """Refuses to give anything, and says which setting to change."""

    def acting_as(self, actor: Actor) -> "NullAllocator":
        return self

    async def allocate(self, org_id: OrgId, wanted: Resources, *, lasts_s: float) -> Allocation:
        _refuse()

    async def release(self, allocation_id: AllocationId) -> Allocation:
        _refuse()

    async def available(self, org_id: OrgId) -> Standing:
        _refuse()

    async def reserve(
        self,
        org_id: OrgId,
        resources: Resources,
        *,
        expires_at: datetime | None = None,
    ) -> Reserve:
        _refuse()

    async def allocations(
        self,
        *,
        org_id: OrgId | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Allocation]:
        return []

    async def sweep(self) -> int:
        return 0


def _refuse() -> NoReturn:
    raise Conflict("resources are not shared out here; set resources.enable_reservations: true and restart")
