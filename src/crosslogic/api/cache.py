"""`/admin/cache` and `/api/v1/cache`: the answers that are kept for an org: list, look at, delete, clear.

Invariant: what is done here is about one org, the caller's own or the one that an operator names; an answer of another
org is found as little as one that never was. Every order is in the audit log before it is carried out.
"""

import re
from typing import Annotated

from fastapi import APIRouter, Query

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services
from crosslogic.api.cache_models import CacheClearing, ClearedView, EntryView, OrgCacheClearing
from crosslogic.api.models import Limit, Page, Word
from crosslogic.api.services import ApiServices
from crosslogic.cache.key import key_named
from crosslogic.cache.model import Selection
from crosslogic.cache.orders import CACHE_ORDERED, Order, obey, written
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.tenancy.service import TenancyService

router = APIRouter(prefix="/admin/cache", tags=["cache"])
own_router = APIRouter(prefix="/api/v1/cache", tags=["cache"])

_REQUEST_ID = re.compile(r"req_[0-9A-Za-z]{1,64}", re.ASCII)

OrgName = Annotated[Word, Query(alias="org", description="id or name")]
EnvName = Annotated[Word | None, Query(alias="environment", description="id, or name within the org")]
Model = Annotated[Word | None, Query(description="canonical name")]


@router.get("")
async def list_cache(
    org: OrgName,
    tenancy: OperatorTenancy,
    services: Services,
    environment: EnvName = None,
    model: Model = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[EntryView]:
    """In order of their end. A page may be short although more follow: only a null `next_cursor` is the end."""
    org_id = (await tenancy.org(org)).id
    return await _list(services, tenancy, org_id, environment, model, cursor, limit)


@router.get("/{ref}")
async def get_cached(ref: Word, org: OrgName, tenancy: OperatorTenancy, services: Services) -> EntryView:
    return await _get(services, (await tenancy.org(org)).id, ref)


@router.delete("/{ref}")
async def delete_cached(ref: Word, org: OrgName, tenancy: OperatorTenancy, services: Services) -> ClearedView:
    return await _delete(services, tenancy, (await tenancy.org(org)).id, ref)


@router.post("/clear")
async def clear_cache(body: OrgCacheClearing, tenancy: OperatorTenancy, services: Services) -> ClearedView:
    """Every gateway follows at once over Redis, within a second where workers keep answers in memory."""
    return await _clear(services, tenancy, (await tenancy.org(body.org)).id, body)


@own_router.get("")
async def list_own_cache(
    home: OwnHome,
    services: Services,
    environment: EnvName = None,
    model: Model = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[EntryView]:
    """In order of their end. A page may be short although more follow: only a null `next_cursor` is the end."""
    return await _list(services, home.tenancy, home.org.id, environment, model, cursor, limit)


@own_router.get("/{ref}")
async def get_own_cached(ref: Word, home: OwnHome, services: Services) -> EntryView:
    """By key (`x-cache-key` of an answer), or by the id of the request that a node answered."""
    return await _get(services, home.org.id, ref)


@own_router.delete("/{ref}")
async def delete_own_cached(ref: Word, home: OwnHome, services: Services) -> ClearedView:
    return await _delete(services, home.tenancy, home.org.id, ref)


@own_router.post("/clear")
async def clear_own_cache(body: CacheClearing, home: OwnHome, services: Services) -> ClearedView:
    """Every gateway follows at once over Redis, within a second where workers keep answers in memory."""
    return await _clear(services, home.tenancy, home.org.id, body)


async def _list(
    services: ApiServices,
    tenancy: TenancyService,
    org_id: OrgId,
    environment: str | None,
    model: str | None,
    cursor: str | None,
    limit: int,
) -> Page[EntryView]:
    of = await _selection(tenancy, org_id, environment, model)
    page = await services.cache.entries(org_id, of, cursor=cursor, limit=limit)
    return Page(data=[EntryView.of(entry) for entry in page.entries], next_cursor=page.next_cursor)


async def _get(services: ApiServices, org_id: OrgId, ref: str) -> EntryView:
    key = key_named(org_id, ref) or await services.cache.key_of(org_id, ref)
    entry = None if key is None else await services.cache.entry(key)
    if entry is None:
        raise _not_found()
    return EntryView.of(entry)


async def _delete(services: ApiServices, tenancy: TenancyService, org_id: OrgId, ref: str) -> ClearedView:
    key = key_named(org_id, ref)
    if key is None and _REQUEST_ID.fullmatch(ref) is None:
        raise _not_found()
    order = Order(org_id, request_id=ref) if key is None else Order(org_id, digest=key.digest)
    cleared = await _carry_out(services, tenancy, "cache.delete", ref, order, {"answer": ref})
    if cleared is not None and not cleared:
        raise _not_found()
    return ClearedView(cleared=cleared)


async def _clear(services: ApiServices, tenancy: TenancyService, org_id: OrgId, body: CacheClearing) -> ClearedView:
    of = await _selection(tenancy, org_id, body.environment, body.model)
    details = {"env_id": of.env_id, "model": of.model}
    cleared = await _carry_out(services, tenancy, "cache.clear", of.env_id or org_id, Order(org_id, of), details)
    return ClearedView(cleared=cleared)


async def _carry_out(
    services: ApiServices,
    tenancy: TenancyService,
    action: str,
    entity_id: str,
    order: Order,
    details: dict[str, str | None],
) -> int | None:
    await tenancy.audit.order(
        action, entity_id, org_id=order.org_id, details=details, kind=CACHE_ORDERED, message=written(order)
    )
    return await obey(order, services.cache)


async def _selection(tenancy: TenancyService, org_id: OrgId, environment: str | None, model: str | None) -> Selection:
    env_id = None if environment is None else (await tenancy.environment(org_id, environment)).id
    return Selection(env_id, model)


def _not_found() -> NotFound:
    return NotFound("there is no such answer in the cache")
