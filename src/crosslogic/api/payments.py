"""`/api/v1/billing/payment-methods`, `/api/v1/billing/payments`: an org's own; `/admin/payments`, `/admin/refunds`:
operators', with the events that providers sent."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Header

from crosslogic.api.auth import OperatorTenancy, OperatorTrail, OwnHome, Services
from crosslogic.api.models import Limit, Page, Word, after_instant, page_of
from crosslogic.api.payment_models import (
    EventView,
    MethodView,
    OwnPaymentCreate,
    PaymentCreate,
    PaymentView,
    PortalCreate,
    PortalView,
    RefundCreate,
    RefundView,
    SetupCreate,
    SetupFinish,
    SetupView,
)
from crosslogic.api.services import ApiServices, PaymentRooms
from crosslogic.billing.inbound import sql as inbound_sql
from crosslogic.billing.payments.model import MethodKind, Status
from crosslogic.billing.payments.service import PaymentService
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import OrgId

router = APIRouter(prefix="/admin", tags=["payments"])
own_router = APIRouter(prefix="/api/v1/billing", tags=["payments"])

IdempotencyKey = Annotated[
    Word | None, Header(alias="Idempotency-Key", description="a repeat under the same one moves no money twice")
]


@dataclass(frozen=True)
class OwnPayments:
    org_id: OrgId
    service: PaymentService


def rooms_of(services: ApiServices) -> PaymentRooms:
    """Raises Conflict where payments are off."""
    if services.payments is None:
        raise Conflict("payments are off; set enable_payments: true and payments.provider")
    return services.payments


def _own(home: OwnHome, services: Services) -> OwnPayments:
    return OwnPayments(home.org.id, rooms_of(services).service.recording(home.tenancy.audit.trail))


def _of_operator(trail: OperatorTrail, services: Services) -> PaymentService:
    return rooms_of(services).service.recording(trail)


Own = Annotated[OwnPayments, Depends(_own)]
OperatorPayments = Annotated[PaymentService, Depends(_of_operator)]


# an org's own


@own_router.get("/payment-methods")
async def list_methods(
    own: Own, kind: MethodKind | None = None, cursor: Word | None = None, limit: Limit = 100
) -> Page[MethodView]:
    """What the org may pay with."""
    known = await own.service.methods.all(own.org_id)  # at most twenty
    found = [each for each in known if kind in (None, each.kind) and (cursor is None or each.id > cursor)][:limit]
    return page_of([MethodView.of(each) for each in found], [each.id for each in found], limit)


@own_router.post("/payment-methods", status_code=201)
async def begin_setup(body: SetupCreate, own: Own) -> SetupView:
    """Begin to set up a card or an account; its owner goes on at the provider, so that no number of it comes here."""
    begun = await own.service.methods.begin_setup(own.org_id, body.kind)
    return SetupView(setup_ref=begun.setup_ref, client_secret=begun.client_secret, url=begun.url)


@own_router.post("/payment-methods/confirm")
async def finish_setup(body: SetupFinish, own: Own) -> MethodView:
    """Take up what was set up at the provider; the first method becomes the default. Harmless to repeat."""
    return MethodView.of(await own.service.methods.finish_setup(own.org_id, body.setup_ref))


@own_router.post("/payment-methods/{method_id}/default")
async def set_default(method_id: Word, own: Own) -> MethodView:
    return MethodView.of(await own.service.methods.set_default(own.org_id, method_id))


@own_router.delete("/payment-methods/{method_id}", status_code=204)
async def remove_method(method_id: Word, own: Own) -> None:
    await own.service.methods.remove(own.org_id, method_id)


@own_router.post("/portal", status_code=201)
async def open_portal(body: PortalCreate, own: Own) -> PortalView:
    """A link to the provider's own pages, where the org looks after methods and receipts."""
    return PortalView(url=await own.service.portal(own.org_id, str(body.return_url)))


@own_router.post("/payments", status_code=201)
async def pay(body: OwnPaymentCreate, own: Own, idempotency_key: IdempotencyKey = None) -> PaymentView:
    """Pay an invoice, or buy credits. `pending` with an `action_url`: its payer has to agree there (3-D Secure)."""
    if body.invoice_id is not None:
        if body.amount_minor is not None or body.currency is not None:
            raise InvalidRequest("an invoice is paid in full: leave amount and currency out", param="amount_minor")
        payment = await own.service.pay_invoice(
            body.invoice_id,
            org_id=own.org_id,
            method_id=body.payment_method,
            customer_present=True,
            creation_ref=idempotency_key,
        )
    elif body.amount_minor is None or body.currency is None:
        raise InvalidRequest("name an invoice_id, or amount_minor and currency", param="invoice_id")
    else:
        payment = await own.service.top_up(
            own.org_id,
            body.amount_minor,
            body.currency,
            method_id=body.payment_method,
            creation_ref=idempotency_key,
        )
    return PaymentView.of(payment)


@own_router.get("/payments")
async def list_own_payments(
    own: Own,
    invoice_id: Word | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[PaymentView]:
    """Newest first."""
    found = await own.service.payments(
        org_id=own.org_id, invoice_id=invoice_id, status=status, after=cursor, limit=limit
    )
    return page_of([PaymentView.of(each) for each in found], [each.id for each in found], limit)


@own_router.get("/payments/{payment_id}")
async def get_own_payment(payment_id: Word, own: Own) -> PaymentView:
    return PaymentView.of(await own.service.payment(payment_id, own.org_id))


# operators


@router.get("/payments")
async def list_payments(
    payments: OperatorPayments,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    invoice_id: Word | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[PaymentView]:
    """Newest first."""
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await payments.payments(org_id=org_id, invoice_id=invoice_id, status=status, after=cursor, limit=limit)
    return page_of([PaymentView.of(each) for each in found], [each.id for each in found], limit)


@router.post("/payments", status_code=201)
async def charge_invoice(body: PaymentCreate, payments: OperatorPayments) -> PaymentView:
    """Charge an invoice now, without its payer. 409 while another payment of it is under way."""
    return PaymentView.of(await payments.pay_invoice(body.invoice_id, method_id=body.payment_method))


@router.get("/payments/{payment_id}")
async def get_payment(payment_id: Word, payments: OperatorPayments) -> PaymentView:
    return PaymentView.of(await payments.payment(payment_id))


@router.post("/refunds", status_code=201)
async def refund(body: RefundCreate, payments: OperatorPayments, idempotency_key: IdempotencyKey = None) -> RefundView:
    """Give money back, never more than was captured. 409 for more than is left."""
    made = await payments.refund(body.payment_id, body.amount_minor, reason=body.reason, creation_ref=idempotency_key)
    return RefundView.of(made)


@router.get("/refunds")
async def list_refunds(
    payments: OperatorPayments,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    payment_id: Word | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[RefundView]:
    """Newest first."""
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await payments.refunds(org_id=org_id, payment_id=payment_id, status=status, after=cursor, limit=limit)
    return page_of([RefundView.of(each) for each in found], [each.id for each in found], limit)


@router.get("/payments-events")
async def list_events(
    services: Services,
    provider: Word | None = None,
    type: Word | None = None,
    failing: bool = False,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[EventView]:
    """What providers told by webhook, newest first; `failing`: those that could not be acted on yet."""
    found = await inbound_sql.events(
        rooms_of(services).inbound.engine,
        provider=provider,
        kind=type,
        failing=failing,
        after=after_instant(cursor),
        limit=limit,
    )
    cursors = [f"{each.received_at.isoformat()}|{each.event_id}" for each in found]
    return page_of([EventView.model_validate(each) for each in found], cursors, limit)
