"""`/admin/orgs`: create, list, look at, suspend, limit; `/api/v1/org`: one's own. An org is named by id or name."""

from fastapi import APIRouter

from crosslogic.api.auth import OperatorTenancy, OwnHome
from crosslogic.api.licences import GROWS
from crosslogic.api.limit_models import limits_given, limits_or_none
from crosslogic.api.models import (
    Limit,
    OrgChange,
    OrgCreate,
    OrgView,
    OwnOrgChange,
    Page,
    Word,
    cache_given,
    cache_or_none,
    page_of,
)
from crosslogic.tenancy.model import Status

router = APIRouter(prefix="/admin/orgs", tags=["orgs"])
own_router = APIRouter(prefix="/api/v1/org", tags=["org"])


@router.post("", status_code=201, dependencies=[GROWS])
async def create_org(body: OrgCreate, tenancy: OperatorTenancy) -> OrgView:
    org = await tenancy.create_org(
        body.name,
        billing_plan=body.billing_plan,
        limits=limits_or_none(body.limits),
        allowed_models=body.allowed_models,
        env_limits=limits_or_none(body.env_limits),
        key_limits=limits_or_none(body.key_limits),
        region_preferences=body.region_preferences,
        data_residency=body.data_residency,
        billing_enabled=body.billing_enabled,
        cache=cache_or_none(body.cache),
        at_cap=body.at_cap,
    )
    return OrgView.of(org)


@router.get("")
async def list_orgs(
    tenancy: OperatorTenancy,
    prefix: Word | None = None,
    status: Status | None = None,
    billing_plan: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[OrgView]:
    found = await tenancy.orgs(
        name_prefix=prefix or "", status=status, billing_plan=billing_plan, after=cursor, limit=limit
    )
    return page_of([OrgView.of(org) for org in found], [org.id for org in found], limit)


@router.get("/{org}")
async def get_org(org: Word, tenancy: OperatorTenancy) -> OrgView:
    return OrgView.of(await tenancy.org(org))


@router.patch("/{org}")
async def change_org(org: Word, body: OrgChange, tenancy: OperatorTenancy) -> OrgView:
    """A suspended org's keys are refused with 403 on every gateway within a second."""
    changed = await tenancy.change_org(
        org,
        status=body.status,
        billing_plan=body.billing_plan,
        limits=limits_given(body.limits),
        allowed_models=body.allowed_models,
        env_limits=limits_given(body.env_limits),
        key_limits=limits_given(body.key_limits),
        region_preferences=body.region_preferences,
        data_residency=body.data_residency,
        billing_enabled=body.billing_enabled,
        cache=cache_given(body.cache),
        at_cap=body.at_cap,
    )
    return OrgView.of(changed)


@own_router.get("")
async def get_own_org(home: OwnHome) -> OrgView:
    return OrgView.of(home.org)


@own_router.patch("")
async def change_own_org(body: OwnOrgChange, home: OwnHome) -> OrgView:
    """Regions, cache, and ceilings of environments and keys; not status, plan, models and the org's own ceilings."""
    changed = await home.tenancy.change_org(
        home.org.id,
        env_limits=limits_given(body.env_limits),
        key_limits=limits_given(body.key_limits),
        region_preferences=body.region_preferences,
        data_residency=body.data_residency,
        cache=cache_given(body.cache),
    )
    return OrgView.of(changed)
