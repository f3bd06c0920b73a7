"""Values of the interface document's `ResourceAllocator`: what machines have, and who has how much until when."""

from datetime import datetime

import msgspec

from crosslogic.kernel.ids import AllocationId, OrgId


class Resources(msgspec.Struct, frozen=True):
    """An amount of each; never negative."""

    gpu_memory_mb: int = 0
    cpu_cores: float = 0.0
    concurrency: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(
            self.gpu_memory_mb + other.gpu_memory_mb,
            self.cpu_cores + other.cpu_cores,
            self.concurrency + other.concurrency,
        )


NOTHING = Resources()


class Totals(msgspec.Struct, frozen=True):
    """All there is to share out; None: nobody says how much, and nothing is refused for want of it."""

    gpu_memory_mb: int | None = None
    cpu_cores: float | None = None
    concurrency: int | None = None


class Allocation(msgspec.Struct, frozen=True):
    """Taken by an org until it is released, or expires."""

    id: AllocationId
    org_id: OrgId
    resources: Resources
    allocated_at: datetime
    expires_at: datetime


class Reserve(msgspec.Struct, frozen=True):
    """What an org may count on, used or not, until `expires_at`; None: for good."""

    org_id: OrgId
    resources: Resources
    expires_at: datetime | None = None


class Standing(msgspec.Struct, frozen=True):
    """How an org stands: `available` is what it could take now, its own reserve and what is nobody's together."""

    reserved: Resources
    allocated: Resources
    available: Totals
