"""`/admin/orgs/{org}/environments`: create, list, look at, suspend, limit."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from crosslogic.api.models import (
    EnvironmentChange,
    EnvironmentCreate,
    EnvironmentView,
    Page,
    Word,
    limits_or_none,
)
from crosslogic.api.services import ApiServices, services_of
from crosslogic.tenancy.model import Status

router = APIRouter(prefix="/admin/orgs/{org}/environments", tags=["environments"])
Services = Annotated[ApiServices, Depends(services_of)]


@router.post("", status_code=201)
async def create_environment(org: Word, body: EnvironmentCreate, services: Services) -> EnvironmentView:
    env = await services.tenancy.create_environment(
        org,
        body.name,
        region=body.region,
        limits=limits_or_none(body.limits),
        allowed_models=body.allowed_models,
    )
    return EnvironmentView.of(env)


@router.get("")
async def list_environments(
    org: Word,
    services: Services,
    prefix: Word | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Page[EnvironmentView]:
    found = await services.tenancy.environments(org, name_prefix=prefix or "", status=status, after=cursor, limit=limit)
    return Page(
        data=[EnvironmentView.of(env) for env in found],
        next_cursor=found[-1].id if len(found) == limit else None,
    )


@router.get("/{env}")
async def get_environment(org: Word, env: Word, services: Services) -> EnvironmentView:
    return EnvironmentView.of(await services.tenancy.environment(org, env))


@router.patch("/{env}")
async def change_environment(org: Word, env: Word, body: EnvironmentChange, services: Services) -> EnvironmentView:
    """A suspended environment's keys are refused with 403 on every gateway within a second."""
    changed = await services.tenancy.change_environment(
        org,
        env,
        status=body.status,
        limits=None if body.limits is None else body.limits.value(),
        allowed_models=body.allowed_models,
    )
    return EnvironmentView.of(changed)
