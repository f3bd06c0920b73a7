"""`/admin/capacity/allocations` and `/admin/capacity/resources`: GPU memory, CPU cores and concurrency, shared out."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from crosslogic.api.auth import OperatorTenancy, Services, require_operator
from crosslogic.api.models import Body, Instant, Limit, Page, View, Word, in_utc, page_of
from crosslogic.capacity.allocations.model import Allocation, Resources, Standing
from crosslogic.capacity.allocations.ports import ResourceAllocator
from crosslogic.kernel.ids import AllocationId
from crosslogic.tenancy.audit import Actor

router = APIRouter(prefix="/admin/capacity/allocations", tags=["capacity"])
resources_router = APIRouter(prefix="/admin/capacity/resources", tags=["capacity"])


class ResourcesBody(Body):
    gpu_memory_mb: Annotated[int, Field(strict=True)] = 0
    cpu_cores: float = Field(default=0.0, allow_inf_nan=False)
    concurrency: Annotated[int, Field(strict=True, description="requests at the same time")] = 0

    def resources(self) -> Resources:
        return Resources(self.gpu_memory_mb, self.cpu_cores, self.concurrency)


class AllocationCreate(ResourcesBody):
    org: Word = Field(description="id or name")
    lasts_s: float = Field(allow_inf_nan=False, description="seconds until it expires by itself")


class ReserveBody(ResourcesBody):
    """What the org may count on, in the place of what was set aside before."""

    expires_at: Instant | None = Field(default=None, description="null: for good")


class ResourcesView(View):
    gpu_memory_mb: int
    cpu_cores: float
    concurrency: int


class TotalsView(View):
    """Null: nobody says how much there is, and nothing is refused for want of it."""

    gpu_memory_mb: int | None
    cpu_cores: float | None
    concurrency: int | None


class AllocationView(View):
    id: str
    org_id: str
    resources: ResourcesView
    allocated_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, allocation: Allocation) -> "AllocationView":
        return cls.model_validate(allocation)


class StandingView(View):
    reserved: ResourcesView
    allocated: ResourcesView
    available: TotalsView = Field(description="what the org could take now, its own reserve included")

    @classmethod
    def of(cls, standing: Standing) -> "StandingView":
        return cls.model_validate(standing)


def _as_operator(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> ResourceAllocator:
    return services.allocator.acting_as(actor)


Allocator = Annotated[ResourceAllocator, Depends(_as_operator)]


@router.post("", status_code=201)
async def allocate(body: AllocationCreate, allocator: Allocator, tenancy: OperatorTenancy) -> AllocationView:
    """Take resources for an org until it gives them back or they expire. 409 when so much is not available to it."""
    org_id = (await tenancy.org(body.org)).id
    return AllocationView.of(await allocator.allocate(org_id, body.resources(), lasts_s=body.lasts_s))


@router.get("")
async def list_allocations(
    allocator: Allocator,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[AllocationView]:
    """Those that have not expired."""
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await allocator.allocations(org_id=org_id, after=cursor, limit=limit)
    return page_of([AllocationView.of(each) for each in found], [each.id for each in found], limit)


@router.post("/{allocation_id}/release")
@router.delete("/{allocation_id}")
async def release(allocation_id: Word, allocator: Allocator) -> AllocationView:
    """Give it back before its time."""
    return AllocationView.of(await allocator.release(AllocationId(allocation_id)))


@resources_router.get("/{org}")
async def available(org: Word, allocator: Allocator, tenancy: OperatorTenancy) -> StandingView:
    """What the org has, and what it could have."""
    return StandingView.of(await allocator.available((await tenancy.org(org)).id))


@resources_router.put("/{org}")
async def set_aside(org: Word, body: ReserveBody, allocator: Allocator, tenancy: OperatorTenancy) -> StandingView:
    """Set resources aside for the org, used or not. 409 when the others leave less than that."""
    org_id = (await tenancy.org(org)).id
    expires_at = None if body.expires_at is None else in_utc(body.expires_at)
    await allocator.reserve(org_id, body.resources(), expires_at=expires_at)
    return StandingView.of(await allocator.available(org_id))
