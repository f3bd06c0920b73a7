"""`/admin/usage/{org}` and `/api/v1/usage`: what an org used and what it costs, as JSON, CSV or FOCUS.

Invariant: `totals` is the sum of `data` over all pages, and an answer without `limit` is whole or refused, never cut.
"""

import base64
import binascii
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services
from crosslogic.api.csv_text import csv_answer, csv_text
from crosslogic.api.models import Word, in_utc
from crosslogic.api.services import ApiServices
from crosslogic.api.usage_models import UsageSumView, UsageView
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.metering.focus import COLUMNS, GROUP_BY, focus_rows
from crosslogic.metering.model import UsageSum
from crosslogic.tenancy.model import Org
from crosslogic.tenancy.service import TenancyService

MAX_GROUPS = 10_000
ISSUER = "CrossLogic"
SUMS = (
    "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens", "cost_usd",
)  # fmt: skip

Dimension = Literal["model", "env", "key", "hour", "day", "month", "endpoint", "region", "outcome"]

router = APIRouter(prefix="/admin/usage", tags=["usage"])
own_router = APIRouter(prefix="/api/v1/usage", tags=["usage"])


class UsageQuery(msgspec.Struct, frozen=True):
    """What is asked for; the fields are the parameters of `usage_query`."""

    start: datetime | None
    end: datetime | None
    group_by: tuple[Dimension, ...]
    only: dict[str, str]
    after: tuple[str, ...] | None
    limit: int | None
    format: "Format"


class Format(StrEnum):
    JSON = "json"
    CSV = "csv"
    FOCUS = "focus"


def usage_query(
    start: Annotated[datetime | None, Query(alias="from", description="first instant that counts")] = None,
    end: Annotated[datetime | None, Query(alias="to", description="first instant that counts no more")] = None,
    group_by: Annotated[list[Dimension] | None, Query(description="may be given several times")] = None,
    env: Annotated[Word | None, Query(description="only of this environment, by id or name")] = None,
    key: Annotated[Word | None, Query(description="only of this key, by id")] = None,
    model: Word | None = None,
    endpoint: Word | None = None,
    region: Annotated[Word | None, Query(description="only what was served there")] = None,
    outcome: Word | None = None,
    cursor: Word | None = None,
    limit: Annotated[int | None, Query(ge=1, le=500, description="groups on a page; absent: all in one answer")] = None,
    format: Annotated[
        Format, Query(description="`csv` is a table of the same; `focus` is FOCUS 1.0, by day and all else there is")
    ] = Format.JSON,
) -> UsageQuery:
    """Raises InvalidRequest."""
    start, end = start and in_utc(start), end and in_utc(end)
    if start is not None and end is not None and start >= end:
        raise InvalidRequest("from must be before to", param="from")
    groups = tuple(dict.fromkeys(group_by or ()))
    asked = {"env": env, "key": key, "model": model, "endpoint": endpoint, "region": region, "outcome": outcome}
    return UsageQuery(
        start,
        end,
        groups,
        {name: value for name, value in asked.items() if value is not None},
        None if cursor is None else _after(cursor, groups),
        limit,
        format,
    )


Asked = Annotated[UsageQuery, Depends(usage_query)]


@router.get("/{org}", response_model=UsageView)
async def get_usage(org: Word, tenancy: OperatorTenancy, services: Services, query: Asked) -> UsageView | Response:
    """Sums of requests, tokens and cost; times without a zone are taken for UTC, days are UTC days."""
    return await _answer(services, tenancy, await tenancy.org(org), query)


@own_router.get("", response_model=UsageView)
async def get_own_usage(home: OwnHome, services: Services, query: Asked) -> UsageView | Response:
    """The same, of the caller's own org."""
    return await _answer(services, home.tenancy, home.org, query)


async def _answer(services: ApiServices, tenancy: TenancyService, org: Org, query: UsageQuery) -> UsageView | Response:
    if query.format is Format.FOCUS:
        if query.group_by:
            raise InvalidRequest("FOCUS has groups of its own; leave group_by out", param="group_by")
        query = msgspec.structs.replace(query, group_by=GROUP_BY)
    sums, totals, next_cursor = await _summed(services, tenancy, org.id, query)
    name = f"usage-{org.id}.csv"
    if query.format is Format.FOCUS:
        return csv_answer(csv_text(COLUMNS, focus_rows(org.id, org.name, ISSUER, sums)), f"focus-{name}")
    views = [UsageSumView.of(usage) for usage in sums]
    if query.format is Format.CSV:
        rows = (
            [*(view.group[each] for each in query.group_by), *(getattr(view, each) for each in SUMS)] for view in views
        )
        return csv_answer(csv_text((*query.group_by, *SUMS), rows), name)
    return UsageView(
        org_id=org.id,
        start=query.start,
        end=query.end,
        data=views,
        totals=UsageSumView.of(totals),
        next_cursor=next_cursor,
    )


async def _summed(
    services: ApiServices, tenancy: TenancyService, org_id: str, query: UsageQuery
) -> tuple[list[UsageSum], UsageSum, str | None]:
    """The sums of one page, that of all pages, and where the next one begins."""
    only = dict(query.only)
    if "env" in only:
        only["env"] = (await tenancy.environment(org_id, only["env"])).id
    summary = services.usage.summary
    sums = await summary(
        org_id,
        start=query.start,
        end=query.end,
        group_by=query.group_by,
        only=only,
        after=query.after,
        limit=MAX_GROUPS + 1 if query.limit is None else query.limit,
    )
    if len(sums) > MAX_GROUPS:
        raise InvalidRequest(
            f"this has more than {MAX_GROUPS} groups: read it in pages (limit), or choose fewer group_by",
            param="group_by",
        )
    is_whole = query.limit is None and query.after is None
    everything = sums if is_whole else await summary(org_id, start=query.start, end=query.end, only=only)
    more = query.limit is not None and len(sums) == query.limit and query.group_by
    return sums, _total(everything), _cursor(sums[-1], query.group_by) if more else None


def _cursor(last: UsageSum, groups: tuple[Dimension, ...]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([last.group[name] for name in groups])).decode()


def _after(cursor: str, groups: tuple[Dimension, ...]) -> tuple[str, ...]:
    """The values that `_cursor` was made of. Raises InvalidRequest."""
    try:
        values = msgspec.json.decode(base64.urlsafe_b64decode(cursor.encode()), type=tuple[str, ...])
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        values = ()
    if not groups or len(values) != len(groups) or any("\x00" in value for value in values):
        raise InvalidRequest("cursor is no cursor of this list", param="cursor")
    return values


def _total(sums: list[UsageSum]) -> UsageSum:
    return UsageSum(
        group={},
        requests=sum(usage.requests for usage in sums),
        prompt_tokens=sum(usage.prompt_tokens for usage in sums),
        completion_tokens=sum(usage.completion_tokens for usage in sums),
        cached_tokens=sum(usage.cached_tokens for usage in sums),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in sums),
        total_tokens=sum(usage.total_tokens for usage in sums),
        cost_pusd=sum(usage.cost_pusd for usage in sums),
    )
