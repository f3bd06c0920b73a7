"""`/admin/orgs/{org}/environments` and `/api/v1/environments`: create, list, look at, suspend, limit."""

from fastapi import APIRouter

from crosslogic.api.auth import OperatorTenancy, OwnHome
from crosslogic.api.limit_models import limits_given, limits_or_none
from crosslogic.api.models import (
    EnvironmentChange,
    EnvironmentCreate,
    EnvironmentView,
    Limit,
    Page,
    Word,
    cache_given,
    cache_or_none,
    page_of,
)
from crosslogic.tenancy.model import Status
from crosslogic.tenancy.service import TenancyService

router = APIRouter(prefix="/admin/orgs/{org}/environments", tags=["environments"])
own_router = APIRouter(prefix="/api/v1/environments", tags=["environments"])


@router.post("", status_code=201)
async def create_environment(org: Word, body: EnvironmentCreate, tenancy: OperatorTenancy) -> EnvironmentView:
    return await _create(tenancy, org, body)


@router.get("")
async def list_environments(
    org: Word,
    tenancy: OperatorTenancy,
    prefix: Word | None = None,
    status: Status | None = None,
    region: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[EnvironmentView]:
    return await _list(tenancy, org, prefix, status, region, cursor, limit)


@router.get("/{env}")
async def get_environment(org: Word, env: Word, tenancy: OperatorTenancy) -> EnvironmentView:
    return EnvironmentView.of(await tenancy.environment(org, env))


@router.patch("/{env}")
async def change_environment(
    org: Word, env: Word, body: EnvironmentChange, tenancy: OperatorTenancy
) -> EnvironmentView:
    """A suspended environment's keys are refused with 403 on every gateway within a second."""
    return await _change(tenancy, org, env, body)


@own_router.post("", status_code=201)
async def create_own_environment(body: EnvironmentCreate, home: OwnHome) -> EnvironmentView:
    return await _create(home.tenancy, home.org.id, body)


@own_router.get("")
async def list_own_environments(
    home: OwnHome,
    prefix: Word | None = None,
    status: Status | None = None,
    region: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[EnvironmentView]:
    return await _list(home.tenancy, home.org.id, prefix, status, region, cursor, limit)


@own_router.get("/{env}")
async def get_own_environment(env: Word, home: OwnHome) -> EnvironmentView:
    return EnvironmentView.of(await home.tenancy.environment(home.org.id, env))


@own_router.patch("/{env}")
async def change_own_environment(env: Word, body: EnvironmentChange, home: OwnHome) -> EnvironmentView:
    """A suspended environment's keys are refused with 403 on every gateway within a second."""
    return await _change(home.tenancy, home.org.id, env, body)


async def _create(tenancy: TenancyService, org: str, body: EnvironmentCreate) -> EnvironmentView:
    env = await tenancy.create_environment(
        org,
        body.name,
        region=body.region,
        data_residency=body.data_residency,
        limits=limits_or_none(body.limits),
        allowed_models=body.allowed_models,
        key_limits=limits_or_none(body.key_limits),
        cache=cache_or_none(body.cache),
        at_cap=body.at_cap,
    )
    return EnvironmentView.of(env)


async def _list(
    tenancy: TenancyService,
    org: str,
    prefix: str | None,
    status: Status | None,
    region: str | None,
    cursor: str | None,
    limit: int,
) -> Page[EnvironmentView]:
    found = await tenancy.environments(
        org, name_prefix=prefix or "", status=status, region=region, after=cursor, limit=limit
    )
    return page_of([EnvironmentView.of(env) for env in found], [env.id for env in found], limit)


async def _change(tenancy: TenancyService, org: str, env: str, body: EnvironmentChange) -> EnvironmentView:
    changed = await tenancy.change_environment(
        org,
        env,
        status=body.status,
        limits=limits_given(body.limits),
        allowed_models=body.allowed_models,
        key_limits=limits_given(body.key_limits),
        region=body.region,
        unpin="region" in body.model_fields_set and body.region is None,
        data_residency=body.data_residency,
        cache=cache_given(body.cache),
        at_cap=body.at_cap,
    )
    return EnvironmentView.of(changed)
