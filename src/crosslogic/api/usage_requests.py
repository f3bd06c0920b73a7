"""`/admin/usage/{org}/requests` and `/api/v1/usage/requests`: single requests of the ledger, with their corrections.

Invariant: another org's request and one that never was have the same answer.
"""

from datetime import datetime
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Query

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.api.services import ApiServices
from crosslogic.api.usage_models import LogVerdictView, RequestUsageView
from crosslogic.kernel.errors import NotFound
from crosslogic.tenancy.service import TenancyService

router = APIRouter(prefix="/admin/usage/{org}/requests", tags=["usage"])
own_router = APIRouter(prefix="/api/v1/usage/requests", tags=["usage"])
ledger_router = APIRouter(prefix="/admin/ledger", tags=["usage"])

Start = Annotated[datetime | None, Query(alias="from", description="first instant that counts")]
End = Annotated[datetime | None, Query(alias="to", description="first instant that counts no more")]
CallersId = Annotated[Word | None, Query(description="what the caller sent as X-Request-Id")]


class _Asked(NamedTuple):
    """Which requests, and which page of them."""

    start: datetime | None
    end: datetime | None
    only: dict[str, str]
    cursor: str | None
    limit: int


def _asked(
    start: Start = None,
    end: End = None,
    env: Word | None = None,
    key: Word | None = None,
    model: Word | None = None,
    endpoint: Word | None = None,
    region: Word | None = None,
    outcome: Word | None = None,
    client_request_id: CallersId = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> _Asked:
    only = {"env": env, "key": key, "model": model, "endpoint": endpoint, "region": region, "outcome": outcome}
    only["client_request_id"] = client_request_id
    given = {name: value for name, value in only.items() if value is not None}
    return _Asked(start and in_utc(start), end and in_utc(end), given, cursor, limit)


Asked = Annotated[_Asked, Depends(_asked)]


@router.get("")
async def list_requests(
    org: Word, tenancy: OperatorTenancy, services: Services, asked: Asked
) -> Page[RequestUsageView]:
    """An org's requests, the newest first."""
    return await _list(services, tenancy, (await tenancy.org(org)).id, asked, operator=True)


@router.get("/{request_id}")
async def get_request(org: Word, request_id: Word, tenancy: OperatorTenancy, services: Services) -> RequestUsageView:
    return await _one(services, (await tenancy.org(org)).id, request_id, operator=True)


@own_router.get("")
async def list_own_requests(home: OwnHome, services: Services, asked: Asked) -> Page[RequestUsageView]:
    """The caller's own org's requests, the newest first."""
    return await _list(services, home.tenancy, home.org.id, asked, operator=False)


@own_router.get("/{request_id}")
async def get_own_request(request_id: Word, home: OwnHome, services: Services) -> RequestUsageView:
    return await _one(services, home.org.id, request_id, operator=False)


@ledger_router.get("/verify")
async def verify_ledger(
    tenancy: OperatorTenancy,
    services: Services,
    org: Annotated[Word | None, Query(description="only this org's log")] = None,
    cursor: Word | None = None,
    limit: Limit = 20,
) -> Page[LogVerdictView]:
    """Follow the chain of hashes of each org's log; also of orgs that are gone."""
    ledger = services.usage_log
    if org is not None:
        return Page(data=[LogVerdictView.of(await ledger.verify((await tenancy.org(org)).id))])
    org_ids = [head.org_id for head in await ledger.heads(after_org=cursor or "", limit=limit)]
    return page_of([LogVerdictView.of(await ledger.verify(one)) for one in org_ids], org_ids, limit)


async def _list(
    services: ApiServices, tenancy: TenancyService, org_id: str, asked: _Asked, *, operator: bool
) -> Page[RequestUsageView]:
    only = asked.only
    if "env" in only:
        only = {**only, "env": (await tenancy.environment(org_id, only["env"])).id}
    found = await services.requests.find(
        org_id, start=asked.start, end=asked.end, only=only, before=asked.cursor, limit=asked.limit
    )
    ids = [one.original.request_id for one in found]
    return page_of([RequestUsageView.of(one, operator=operator) for one in found], ids, asked.limit)


async def _one(services: ApiServices, org_id: str, request_id: str, *, operator: bool) -> RequestUsageView:
    found = await services.requests.one(org_id, request_id)
    if found is None:
        raise NotFound("there is no such request")
    return RequestUsageView.of(found, operator=operator)
