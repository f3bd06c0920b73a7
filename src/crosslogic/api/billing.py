"""What calls would cost and did cost: `/api/v1/billing/quote` and `/estimate`, receipts of requests; the same for
operators under `/admin`."""

from fastapi import APIRouter

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services
from crosslogic.api.models import Word
from crosslogic.api.money_models import EstimateView, QuoteBody, QuoteView, ReceiptView
from crosslogic.api.services import money_of
from crosslogic.billing.charges.inquiries import Asked

router = APIRouter(prefix="/admin", tags=["billing"])
own_router = APIRouter(prefix="/api/v1", tags=["billing"])


@own_router.post("/billing/quote")
async def quote(body: QuoteBody, home: OwnHome, services: Services) -> QuoteView:
    """What a call would cost now, line by line, and how much of it credits would pay."""
    return QuoteView.of(await money_of(services).inquiries.quote(home.org.id, _asked(body)))


@own_router.get("/billing/estimate")
async def get_own_estimate(home: OwnHome, services: Services) -> EstimateView:
    """Today, the month to date and what it comes to; against the reference price list; whether a commitment pays."""
    return EstimateView.of(await money_of(services).inquiries.estimate(home.org.id))


@own_router.get("/usage/requests/{request_id}/receipt")
async def get_own_receipt(request_id: Word, home: OwnHome, services: Services) -> ReceiptView:
    """Why a request cost what it did."""
    return ReceiptView.of(await money_of(services).inquiries.receipt(home.org.id, request_id))


@router.post("/billing/quote/{org}")
async def quote_for_org(org: Word, body: QuoteBody, tenancy: OperatorTenancy, services: Services) -> QuoteView:
    return QuoteView.of(await money_of(services).inquiries.quote((await tenancy.org(org)).id, _asked(body)))


@router.get("/billing/estimate/{org}")
async def get_estimate(org: Word, tenancy: OperatorTenancy, services: Services) -> EstimateView:
    return EstimateView.of(await money_of(services).inquiries.estimate((await tenancy.org(org)).id))


@router.get("/usage/{org}/requests/{request_id}/receipt")
async def get_receipt(org: Word, request_id: Word, tenancy: OperatorTenancy, services: Services) -> ReceiptView:
    return ReceiptView.of(await money_of(services).inquiries.receipt((await tenancy.org(org)).id, request_id))


def _asked(body: QuoteBody) -> Asked:
    return Asked(body.model, body.prompt_tokens, body.cached_tokens, body.completion_tokens, body.region, body.endpoint)
