"""`/admin/ledger/…`: how long rows of the ledger are kept, what was dropped, what waits, and what came too late."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from crosslogic.api.auth import OperatorTenancy, Services
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.api.services import ApiServices
from crosslogic.billing.retention.service import RetentionService
from crosslogic.billing.retention.settled import Wait
from crosslogic.kernel.errors import InvalidRequest, Unavailable
from crosslogic.metering.retention import Drop, TooLate

router = APIRouter(prefix="/admin/ledger", tags=["usage"])


class RetentionView(BaseModel):
    retention_months: int | None = Field(description="whole months before this one that are kept; null: all")
    cutoff: datetime | None = Field(description="rows that arrived before it go, once nothing waits for them")


class DropView(BaseModel):
    """Sums of what was dropped stay in the roll-ups, and charges and invoices where they are."""

    before: datetime = Field(description="rows that arrived before it were dropped")
    rows: int
    logs: int = Field(description="organisations whose logs begin later since then")
    decided_at: datetime
    removed_at: datetime | None = Field(description="null: rows of it may still take up room")

    @classmethod
    def of(cls, drop: Drop) -> "DropView":
        return cls(
            before=drop.cutoff,
            rows=drop.row_count,
            logs=drop.org_count,
            decided_at=drop.decided_at,
            removed_at=drop.removed_at,
        )


class WaitView(BaseModel):
    org_id: str
    through: int = Field(description="position in the log up to which nothing waits")
    why: str

    @classmethod
    def of(cls, wait: Wait) -> "WaitView":
        return cls(org_id=wait.org_id, through=wait.through, why=wait.why)


class TooLateView(BaseModel):
    request_id: str
    org_id: str
    at: datetime = Field(description="when it came")
    row: dict[str, Any] = Field(description="the row that it would have been")

    @classmethod
    def of(cls, late: TooLate) -> "TooLateView":
        row = msgspec.json.decode(late.document)
        return cls(request_id=late.request_id, org_id=late.org_id, at=late.at, row=row)


@router.get("/retention")
async def get_retention(services: Services) -> RetentionView:
    """How long rows are kept."""
    retention = _of(services)
    return RetentionView(retention_months=retention.months, cutoff=retention.cutoff())


@router.get("/drops")
async def list_drops(
    services: Services,
    until: Annotated[datetime | None, Query(alias="to", description="only what arrived before it")] = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[DropView]:
    """What was dropped, the newest first."""
    before = None if until is None else in_utc(until)
    if cursor is not None:
        last = _month(cursor)
        before = last if before is None else min(before, last)
    found = await _of(services).drops(before=before, limit=limit)
    return page_of([DropView.of(each) for each in found], [f"{each.cutoff:%Y-%m}" for each in found], limit)


@router.get("/waiting")
async def list_waiting(
    tenancy: OperatorTenancy,
    services: Services,
    org: Annotated[Word | None, Query(description="only of this org")] = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[WaitView]:
    """Orgs whose rows are older than what is kept and may not go yet, and why."""
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await _of(services).waiting(after_org=cursor or "", org_id=org_id, limit=limit)
    return page_of([WaitView.of(each) for each in found], [each.org_id for each in found], limit)


@router.get("/too-late")
async def list_too_late(
    tenancy: OperatorTenancy,
    services: Services,
    org: Annotated[Word | None, Query(description="only of this org")] = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[TooLateView]:
    """Records of a time whose rows were dropped: they may have been among those, so nobody was billed for them."""
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await _of(services).too_late(org_id=org_id, after=cursor or "", limit=limit)
    return page_of([TooLateView.of(each) for each in found], [each.request_id for each in found], limit)


def _of(services: ApiServices) -> RetentionService:
    if services.retention is None:
        raise Unavailable("this process does not see to how long usage is kept")
    return services.retention


def _month(cursor: str) -> datetime:
    try:
        return datetime.strptime(cursor, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise InvalidRequest("cursor is no cursor of this list", param="cursor") from None
