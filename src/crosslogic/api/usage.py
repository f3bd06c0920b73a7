"""`/admin/usage/{org}` and `/api/v1/usage`: what an org used and what it costs, summed from the ledger.

Invariant: `totals` is the sum of `data`, and an answer is whole or refused, never cut.
"""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from crosslogic.api.auth import OwnHome, Services
from crosslogic.api.models import Word, in_utc
from crosslogic.api.services import ApiServices
from crosslogic.api.usage_models import UsageSumView, UsageView
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.metering.model import UsageSum

MAX_GROUPS = 10_000

Dimension = Literal["model", "env", "key", "day", "endpoint", "region", "outcome"]
Start = Annotated[datetime | None, Query(alias="from", description="first instant that counts")]
End = Annotated[datetime | None, Query(alias="to", description="first instant that counts no more")]
Groups = Annotated[list[Dimension] | None, Query(description="may be given several times")]

router = APIRouter(prefix="/admin/usage", tags=["usage"])
own_router = APIRouter(prefix="/api/v1/usage", tags=["usage"])


@router.get("/{org}")
async def get_usage(
    org: Word, services: Services, start: Start = None, end: End = None, group_by: Groups = None
) -> UsageView:
    """Sums of requests, tokens and cost; times without a zone are taken for UTC, days are UTC days."""
    return await _summed(services, (await services.tenancy.org(org)).id, start, end, group_by or [])


@own_router.get("")
async def get_own_usage(
    home: OwnHome, services: Services, start: Start = None, end: End = None, group_by: Groups = None
) -> UsageView:
    """The same, of the caller's own org."""
    return await _summed(services, home.org.id, start, end, group_by or [])


async def _summed(
    services: ApiServices, org_id: str, start: datetime | None, end: datetime | None, group_by: list[Dimension]
) -> UsageView:
    start, end = start and in_utc(start), end and in_utc(end)
    if start is not None and end is not None and start >= end:
        raise InvalidRequest("from must be before to", param="from")
    sums = await services.usage.summary(org_id, start=start, end=end, group_by=tuple(dict.fromkeys(group_by)))
    if len(sums) > MAX_GROUPS:
        raise InvalidRequest(
            f"this has {len(sums)} groups, more than {MAX_GROUPS}: choose a shorter time or fewer group_by",
            param="group_by",
        )
    return UsageView(
        org_id=org_id,
        start=start,
        end=end,
        data=[UsageSumView.of(usage) for usage in sums],
        totals=UsageSumView.of(_total(sums)),
    )


def _total(sums: list[UsageSum]) -> UsageSum:
    return UsageSum(
        group={},
        requests=sum(usage.requests for usage in sums),
        prompt_tokens=sum(usage.prompt_tokens for usage in sums),
        completion_tokens=sum(usage.completion_tokens for usage in sums),
        cached_tokens=sum(usage.cached_tokens for usage in sums),
        total_tokens=sum(usage.total_tokens for usage in sums),
        cost_pusd=sum(usage.cost_pusd for usage in sums),
    )
