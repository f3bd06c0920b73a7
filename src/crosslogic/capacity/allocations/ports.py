"""The interface document's `ResourceAllocator`, in our words."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from crosslogic.capacity.allocations.model import Allocation, Reserve, Resources, Standing
from crosslogic.kernel.ids import AllocationId, OrgId
from crosslogic.tenancy.audit import Actor


class ResourceAllocator(Protocol):
    """Everything is decided and done in one step: calls made at once never get more than there is.

    Raises InvalidRequest, NotFound, and Conflict where there is not enough.
    """

    async def allocate(self, org_id: OrgId, wanted: Resources, *, lasts_s: float) -> Allocation:
        """Take `wanted` for so many seconds."""
        ...

    async def release(self, allocation_id: AllocationId) -> Allocation:
        """Give it back before its time."""
        ...

    async def available(self, org_id: OrgId) -> Standing:
        """What the org has and could have."""
        ...

    async def reserve(self, org_id: OrgId, resources: Resources, *, expires_at: datetime | None = None) -> Reserve:
        """Set so much aside for the org, in the place of what was before; nothing of everything ends it."""
        ...

    async def allocations(
        self, *, org_id: OrgId | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Allocation]:
        """Those that have not expired, in order of time."""
        ...

    async def sweep(self) -> int:
        """Forget what has expired; it counted for nothing since then. Returns how many there were."""
        ...

    def acting_as(self, actor: Actor) -> "ResourceAllocator":
        """The same, with what is done written down as done by `actor`."""
        ...
