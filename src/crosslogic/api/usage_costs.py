"""`/admin/usage`: what every organisation used and what it costs, from the store that is chosen for it."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from crosslogic.api.auth import OperatorTenancy, Services
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.api.usage_models import exact_usd
from crosslogic.kernel.errors import InvalidRequest, Unavailable
from crosslogic.metering.costs.ports import Cost, Period

router = APIRouter(prefix="/admin/usage", tags=["usage"])


class OrgCostView(BaseModel):
    org_id: str
    total_requests: int
    total_tokens: int
    cost_usd: str = Field(description="exact decimal, never rounded")
    currency: str

    @classmethod
    def of(cls, cost: Cost) -> "OrgCostView":
        return cls(
            org_id=cost.org_id,
            total_requests=cost.total_requests,
            total_tokens=cost.total_tokens,
            cost_usd=exact_usd(cost.cost_pusd),
            currency=cost.currency,
        )


@router.get("")
async def list_costs(
    tenancy: OperatorTenancy,
    services: Services,
    start: Annotated[
        datetime | None, Query(alias="from", description="first instant that counts; absent: that of this month")
    ] = None,
    end: Annotated[datetime | None, Query(alias="to", description="first that counts no more; absent: now")] = None,
    org: Annotated[Word | None, Query(description="only this org")] = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[OrgCostView]:
    """What every org used, by org; those that used nothing are left out. A copy in ClickHouse lags behind."""
    if services.costs is None:
        raise Unavailable("this process knows no costs")
    now = datetime.now(UTC) if end is None else in_utc(end)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) if start is None else in_utc(start)
    if first >= now:
        raise InvalidRequest("from must be before to", param="from")
    period = Period(first, now)
    if org is not None:
        found = [await services.costs.get_cost((await tenancy.org(org)).id, period)]
    else:
        costs = await services.costs.aggregate_usage(period)
        found = [costs[org_id] for org_id in sorted(costs)]
    page = [each for each in found if cursor is None or each.org_id > cursor][:limit]
    return page_of([OrgCostView.of(each) for each in page], [each.org_id for each in page], limit)
