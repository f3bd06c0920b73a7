"""`/admin/prices`: draft, look at, change, publish, retire and compare price versions; `/admin/exchange-rates`."""

from typing import Annotated

from fastapi import APIRouter, Depends

from crosslogic.api.auth import OperatorTenancy, Services, require_operator
from crosslogic.api.models import Instant, Limit, Page, Word, in_utc, page_of
from crosslogic.api.money_models import (
    ComparisonView,
    Period,
    PriceDraft,
    PriceDraftChange,
    PriceVersionView,
    Publication,
    RateBody,
    RateView,
    Retirement,
)
from crosslogic.api.services import money_of
from crosslogic.pricing.service import PricesService
from crosslogic.pricing.versions import VersionStatus
from crosslogic.tenancy.audit import Actor

router = APIRouter(prefix="/admin/prices", tags=["prices"])
rates_router = APIRouter(prefix="/admin/exchange-rates", tags=["prices"])


def _as_operator(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> PricesService:
    return money_of(services).prices.acting_as(actor)


OperatorPrices = Annotated[PricesService, Depends(_as_operator)]


@router.post("", status_code=201)
async def draft_prices(body: PriceDraft, prices: OperatorPrices, tenancy: OperatorTenancy) -> PriceVersionView:
    """Write down prices that hold for nobody yet. 400 for what could not be charged exactly."""
    org_id = None if body.org is None else (await tenancy.org(body.org)).id
    made = await prices.draft(body.terms.value(), currency=body.currency, org_id=org_id, note=body.note)
    return PriceVersionView.of(made)


@router.get("")
async def list_prices(
    prices: OperatorPrices,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    status: VersionStatus | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[PriceVersionView]:
    """Of an org: its own and those for all."""
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await prices.versions(org_id=org_id, status=status, after=cursor, limit=limit)
    return page_of([PriceVersionView.of(each) for each in found], [each.id for each in found], limit)


@router.get("/{version_id}")
async def get_prices(version_id: Word, prices: OperatorPrices) -> PriceVersionView:
    return PriceVersionView.of(await prices.version(version_id))


@router.patch("/{version_id}")
async def change_draft(version_id: Word, body: PriceDraftChange, prices: OperatorPrices) -> PriceVersionView:
    """Of a draft only: what is published stays as it is."""
    return PriceVersionView.of(await prices.change(version_id, body.terms.value(), note=body.note))


@router.post("/{version_id}/publish")
async def publish_prices(version_id: Word, body: Publication, prices: OperatorPrices) -> PriceVersionView:
    """They hold from now or a later time on, and never reach back; harmless to repeat."""
    start = None if body.effective_from is None else in_utc(body.effective_from)
    return PriceVersionView.of(await prices.publish(version_id, effective_from=start))


@router.post("/{version_id}/retire")
async def retire_prices(version_id: Word, body: Retirement, prices: OperatorPrices) -> PriceVersionView:
    """They hold no more from now or a later time on: what held before them holds again."""
    end = None if body.retired_from is None else in_utc(body.retired_from)
    return PriceVersionView.of(await prices.retire(version_id, retired_from=end))


@router.post("/{version_id}/compare")
async def compare_prices(
    version_id: Word, body: Period, prices: OperatorPrices, tenancy: OperatorTenancy, services: Services
) -> ComparisonView:
    """What the usage of a period would have cost by this version, beside what it did cost; nothing is written."""
    org_id = None if body.org is None else (await tenancy.org(body.org)).id
    version = await prices.version(version_id)
    start, end = in_utc(body.start), in_utc(body.end)
    return ComparisonView.of(await money_of(services).shadow.compare(version, start, end, org_id=org_id))


@rates_router.get("")
async def list_rates(
    prices: OperatorPrices, currency: Word | None = None, cursor: Instant | None = None, limit: Limit = 100
) -> Page[RateView]:
    """Newest first; `cursor` is the time from which the last one of the page before holds."""
    found = await prices.rates(currency, before=None if cursor is None else in_utc(cursor), limit=limit)
    return page_of([RateView.of(each) for each in found], [each.effective_from.isoformat() for each in found], limit)


@rates_router.post("", status_code=201)
async def set_rate(body: RateBody, prices: OperatorPrices) -> RateView:
    """What a US dollar is worth from now or a later time on."""
    start = None if body.effective_from is None else in_utc(body.effective_from)
    return RateView.of(await prices.set_rate(body.currency, body.rate, effective_from=start, source=body.source))
