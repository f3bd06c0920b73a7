"""`/admin/audit` and `/api/v1/audit`: who did what. Newest first; the older pages follow `cursor`."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from crosslogic.api.account_models import AuditEntryView, VerdictView
from crosslogic.api.auth import OperatorTenancy, OwnHome
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.tenancy.accounts import AuditService

router = APIRouter(prefix="/admin/audit", tags=["audit"])
own_router = APIRouter(prefix="/api/v1/audit", tags=["audit"])

Actor = Annotated[Word | None, Query(description="id of an operator, key or user")]
Action = Annotated[Word | None, Query(description="such as key.revoke, or key for all that begin so")]
Start = Annotated[datetime | None, Query(alias="from", description="first instant that counts")]
End = Annotated[datetime | None, Query(alias="to", description="first instant that counts no more")]
Entity = Annotated[Word | None, Query(description="id of what was changed")]


@router.get("")
async def list_audit(
    tenancy: OperatorTenancy,
    org: Word | None = None,
    actor: Actor = None,
    action: Action = None,
    entity: Entity = None,
    start: Start = None,
    end: End = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[AuditEntryView]:
    org_id = None if org is None else (await tenancy.org(org)).id
    return await _list(tenancy.audit, org_id, actor, action, entity, (start, end), cursor, limit)


@router.get("/verify")
async def verify_audit(tenancy: OperatorTenancy) -> VerdictView:
    """Follow the chain of hashes through the whole log."""
    return VerdictView.of(await tenancy.audit.verify())


@own_router.get("")
async def list_own_audit(
    home: OwnHome,
    actor: Actor = None,
    action: Action = None,
    entity: Entity = None,
    start: Start = None,
    end: End = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[AuditEntryView]:
    return await _list(home.tenancy.audit, home.org.id, actor, action, entity, (start, end), cursor, limit)


async def _list(
    audit: AuditService,
    org_id: str | None,
    actor: str | None,
    action: str | None,
    entity: str | None,
    within: tuple[datetime | None, datetime | None],
    cursor: str | None,
    limit: int,
) -> Page[AuditEntryView]:
    start, end = within
    found = await audit.entries(
        org_id=org_id,
        actor_id=actor,
        action=action,
        entity_id=entity,
        start=start and in_utc(start),
        end=end and in_utc(end),
        cursor=cursor,
        limit=limit,
    )
    return page_of([AuditEntryView.of(entry) for entry in found], [entry.seq for entry in found], limit)
