"""`/admin/orgs`: create, list, look at, suspend, limit. An org is named by id or name everywhere."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from crosslogic.api.models import OrgChange, OrgCreate, OrgView, Page, Word, limits_or_none
from crosslogic.api.services import ApiServices, services_of
from crosslogic.tenancy.model import Status

router = APIRouter(prefix="/admin/orgs", tags=["orgs"])
Services = Annotated[ApiServices, Depends(services_of)]


@router.post("", status_code=201)
async def create_org(body: OrgCreate, services: Services) -> OrgView:
    org = await services.tenancy.create_org(
        body.name,
        billing_plan=body.billing_plan,
        limits=limits_or_none(body.limits),
        allowed_models=body.allowed_models,
    )
    return OrgView.of(org)


@router.get("")
async def list_orgs(
    services: Services,
    prefix: Word | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Page[OrgView]:
    found = await services.tenancy.orgs(name_prefix=prefix or "", status=status, after=cursor, limit=limit)
    return Page(data=[OrgView.of(org) for org in found], next_cursor=found[-1].id if len(found) == limit else None)


@router.get("/{org}")
async def get_org(org: Word, services: Services) -> OrgView:
    return OrgView.of(await services.tenancy.org(org))


@router.patch("/{org}")
async def change_org(org: Word, body: OrgChange, services: Services) -> OrgView:
    """A suspended org's keys are refused with 403 on every gateway within a second."""
    changed = await services.tenancy.change_org(
        org,
        status=body.status,
        billing_plan=body.billing_plan,
        limits=None if body.limits is None else body.limits.value(),
        allowed_models=body.allowed_models,
    )
    return OrgView.of(changed)
