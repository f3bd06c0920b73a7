"""`/admin/plans`: what is sold, as data; `/api/v1/plans`: the same to look at.

A plan of the database comes before one of the configuration, and that before a shipped one.
"""

from fastapi import APIRouter, Response

from crosslogic.api.account_models import PlanBody, PlanView
from crosslogic.api.auth import OperatorTenancy, OwnHome
from crosslogic.api.models import Limit, Page, Word, page_of
from crosslogic.kernel.errors import NotFound
from crosslogic.tenancy.plans import PlanInForce, PlanSource

router = APIRouter(prefix="/admin/plans", tags=["plans"])
own_router = APIRouter(prefix="/api/v1/plans", tags=["plans"])


@router.get("")
async def list_plans(
    tenancy: OperatorTenancy,
    prefix: Word | None = None,
    source: PlanSource | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[PlanView]:
    return _page(await tenancy.plans.plans(), prefix, source, cursor, limit)


@router.get("/{plan}")
async def get_plan(plan: Word, tenancy: OperatorTenancy) -> PlanView:
    return PlanView.of(await tenancy.plans.plan(plan))


@router.put("/{plan}")
async def put_plan(plan: Word, body: PlanBody, tenancy: OperatorTenancy) -> PlanView:
    """Create or replace; every gateway follows within a second."""
    return PlanView.of(await tenancy.plans.put(body.plan(plan)))


@router.delete("/{plan}", status_code=204, response_class=Response)
async def remove_plan(plan: Word, tenancy: OperatorTenancy) -> None:
    """Forget what operators wrote: a configured or shipped plan of this name is in force again."""
    await tenancy.plans.remove(plan)


@own_router.get("")
async def list_plans_on_sale(
    home: OwnHome, prefix: Word | None = None, cursor: Word | None = None, limit: Limit = 100
) -> Page[PlanView]:
    return _page(await home.tenancy.plans.plans_seen_by(home.org), prefix, None, cursor, limit)


@own_router.get("/{plan}")
async def get_plan_on_sale(plan: Word, home: OwnHome) -> PlanView:
    for found in await home.tenancy.plans.plans_seen_by(home.org):
        if found.plan.id == plan:
            return PlanView.of(found)
    raise NotFound("there is no such plan")


def _page(
    plans: list[PlanInForce], prefix: str | None, source: PlanSource | None, cursor: str | None, limit: int
) -> Page[PlanView]:
    """In order of id: there are few, so the page is cut out of all of them."""
    found = sorted(
        (
            each
            for each in plans
            if each.plan.id.startswith(prefix or "")
            and (source is None or each.source is source)
            and (cursor is None or each.plan.id > cursor)
        ),
        key=lambda each: each.plan.id,
    )[:limit]
    return page_of([PlanView.of(each) for each in found], [each.plan.id for each in found], limit)
