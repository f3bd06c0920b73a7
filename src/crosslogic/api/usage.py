"""`/admin/usage/{org}`: what an org used and what it costs, summed from the ledger.

Invariant: `totals` is the sum of `data`, and an answer is whole or refused, never cut.
"""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from crosslogic.api.models import UsageSumView, UsageView, Word, in_utc
from crosslogic.api.services import ApiServices, services_of
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.metering.model import UsageSum

MAX_GROUPS = 10_000

Dimension = Literal["model", "env", "key", "day", "endpoint", "region", "outcome"]
router = APIRouter(prefix="/admin/usage", tags=["usage"])


@router.get("/{org}")
async def get_usage(
    org: Word,
    services: Annotated[ApiServices, Depends(services_of)],
    start: Annotated[datetime | None, Query(alias="from", description="first instant that counts")] = None,
    end: Annotated[datetime | None, Query(alias="to", description="first instant that counts no more")] = None,
    group_by: Annotated[list[Dimension] | None, Query(description="may be given several times")] = None,
) -> UsageView:
    """Sums of requests, tokens and cost; times without a zone are taken for UTC, days are UTC days."""
    start, end = start and in_utc(start), end and in_utc(end)
    if start is not None and end is not None and start >= end:
        raise InvalidRequest("from must be before to", param="from")
    org_id = (await services.tenancy.org(org)).id
    sums = await services.usage.summary(org_id, start=start, end=end, group_by=tuple(dict.fromkeys(group_by or ())))
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
