"""`/admin/queue` and `/api/v1/queue`: what waits for a place on a node, for how long, and taking a request out.

What is seen is up to two seconds old where gateways are processes of their own. A request is named by its id, or by
what its caller gave as X-Request-Id.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services
from crosslogic.api.models import Limit, Page, Word, page_of
from crosslogic.api.services import ApiServices
from crosslogic.kernel.errors import NotFound
from crosslogic.queueing.board.model import TenantLine, Waiting
from crosslogic.queueing.model import TrafficClass
from crosslogic.scheduling.places import split_line
from crosslogic.tenancy.service import TenancyService

RequestId = Annotated[str, Path(max_length=200, description="ours, or the caller's own X-Request-Id")]

REMOVED = "queue.remove"  # in the audit log

router = APIRouter(prefix="/admin/queue", tags=["queue"])
own_router = APIRouter(prefix="/api/v1/queue", tags=["queue"])


class TenantQueueView(BaseModel):
    org_id: str
    model: str
    dedicated: bool = Field(description="on nodes of the org's own")
    waiting: int
    running: int
    oldest_wait_s: float
    estimated_wait_s: float | None = Field(description="of the last to come; null until something was measured")

    @classmethod
    def of(cls, row: TenantLine) -> "TenantQueueView":
        model, owner = split_line(row.line)
        return cls(
            org_id=row.tenant,
            model=model,
            dedicated=owner is not None,
            waiting=row.waiting,
            running=row.running,
            oldest_wait_s=round(row.oldest_wait_s, 3),
            estimated_wait_s=_rounded(row.estimated_wait_s),
        )

    @property
    def key(self) -> str:
        return f"{self.model} {self.org_id} {self.dedicated:d}"


class WaitingView(BaseModel):
    request_id: str
    client_request_id: str | None = Field(description="what the caller gave as X-Request-Id")
    org_id: str
    model: str
    dedicated: bool
    traffic: str = Field(description="class: free, serverless or reserved")
    priority: int
    position: int = Field(description="1 is next; among those that wait in the same gateway worker")
    waited_s: float
    estimated_wait_s: float | None = Field(description="still to wait; null until something was measured")

    @classmethod
    def of(cls, row: Waiting) -> "WaitingView":
        model, owner = split_line(row.line)
        return cls(
            request_id=row.request_id,
            client_request_id=None if row.client_request_id == row.request_id else row.client_request_id,
            org_id=row.tenant,
            model=model,
            dedicated=owner is not None,
            traffic=TrafficClass(row.traffic).name.lower(),
            priority=row.priority,
            position=row.position,
            waited_s=round(row.waited_s, 3),
            estimated_wait_s=_rounded(row.estimated_wait_s),
        )


@router.get("")
async def list_queues(
    services: Services,
    org: Word | None = None,
    model: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[TenantQueueView]:
    """What waits and runs, of each org for each model."""
    org_id = None if org is None else (await services.tenancy.org(org)).id
    rows = [TenantQueueView.of(row) for row in (await services.queues.board()).tenants]
    found = sorted(
        (row for row in rows if org_id in (None, row.org_id) and model in (None, row.model)), key=lambda row: row.key
    )
    page = [row for row in found if cursor is None or row.key > cursor][:limit]
    return page_of(page, [row.key for row in page], limit)


@router.get("/requests")
async def list_waiting(
    services: Services,
    org: Word | None = None,
    model: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[WaitingView]:
    """Requests that wait, in the order of their coming."""
    org_id = None if org is None else (await services.tenancy.org(org)).id
    return _page(await _waiting(services, org_id), model, cursor, limit)


@router.delete("/requests/{request_id}", status_code=202, response_class=Response)
async def remove_waiting(request_id: RequestId, services: Services, tenancy: OperatorTenancy) -> None:
    """Have a waiting request taken out within a second; its caller gets 410 `removed_from_queue`."""
    await _remove(services, tenancy, None, request_id)


@own_router.get("")
async def list_own_waiting(
    home: OwnHome,
    services: Services,
    model: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[WaitingView]:
    """The org's own requests that wait, in the order of their coming."""
    return _page(await _waiting(services, home.org.id), model, cursor, limit)


@own_router.get("/{request_id}")
async def get_own_waiting(request_id: RequestId, home: OwnHome, services: Services) -> WaitingView:
    """How one of them stands."""
    return _named(await _waiting(services, home.org.id), request_id)[0]


@own_router.delete("/{request_id}", status_code=202, response_class=Response)
async def remove_own_waiting(request_id: RequestId, home: OwnHome, services: Services) -> None:
    """Have it taken out within a second; its caller gets 410 `removed_from_queue`."""
    await _remove(services, home.tenancy, home.org.id, request_id)


async def _waiting(services: ApiServices, org_id: str | None) -> list[WaitingView]:
    rows = (await services.queues.board()).requests
    return [WaitingView.of(row) for row in rows if org_id in (None, row.tenant)]


def _named(rows: list[WaitingView], request_id: str) -> list[WaitingView]:
    """All of that name: callers may give the same one to several. Raises NotFound."""
    found = [row for row in rows if request_id in (row.request_id, row.client_request_id)]
    if not found:
        raise NotFound("there is no such request waiting")
    return found


async def _remove(services: ApiServices, tenancy: TenancyService, org_id: str | None, request_id: str) -> None:
    for row in _named(await _waiting(services, org_id), request_id):
        details = {"model": row.model, "waited_s": row.waited_s}
        await tenancy.audit.order(
            REMOVED, row.request_id, org_id=row.org_id, details=details, kind=REMOVED, message=row.request_id
        )
        await services.queues.remove(row.request_id)


def _page(rows: list[WaitingView], model: str | None, cursor: str | None, limit: int) -> Page[WaitingView]:
    found = sorted((row for row in rows if model in (None, row.model)), key=lambda row: row.request_id)
    page = [row for row in found if cursor is None or row.request_id > cursor][:limit]
    return page_of(page, [row.request_id for row in page], limit)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
