"""`/admin/invoices`: close, list, issue, void, credit, take payments; `/api/v1/billing/invoices`: an org's own.

Invariant: an org sees what was issued to it, and nothing of anybody else's; a draft is nobody's but the operators'.
"""

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services, require_operator
from crosslogic.api.invoice_models import (
    CloseBody,
    CreditNoteBody,
    CreditNoteView,
    InvoiceDetail,
    InvoiceView,
    OwnProfileChange,
    PaymentBody,
    ProfileChange,
    ProfileView,
    ReasonBody,
    minor_of,
)
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.billing.invoices.einvoice import einvoice_of
from crosslogic.billing.invoices.invoicing import Invoicing
from crosslogic.billing.invoices.model import Invoice, InvoiceKind, InvoiceStatus
from crosslogic.billing.invoices.paper.pdf import pdf_of
from crosslogic.kernel.errors import InvalidRequest, NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.tenancy.audit import Actor

router = APIRouter(prefix="/admin/invoices", tags=["invoices"])
profiles_router = APIRouter(prefix="/admin/billing-profiles", tags=["invoices"])
own_router = APIRouter(prefix="/api/v1/billing/invoices", tags=["invoices"])
own_profile_router = APIRouter(prefix="/api/v1/billing/profile", tags=["invoices"])

Start = Annotated[datetime | None, Query(alias="from", description="periods that end at this instant or later")]
End = Annotated[datetime | None, Query(alias="to", description="periods that end before this instant")]
_PDF: dict[int | str, dict[str, Any]] = {200: {"content": {"application/pdf": {}}}}


class PdfResponse(Response):
    media_type = "application/pdf"


def _as_operator(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> Invoicing:
    return services.invoicing.acting_as(actor)


OperatorInvoicing = Annotated[Invoicing, Depends(_as_operator)]


@router.get("")
async def list_invoices(
    invoicing: OperatorInvoicing,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    status: InvoiceStatus | None = None,
    kind: InvoiceKind | None = None,
    currency: Word | None = None,
    number: Word | None = None,
    start: Start = None,
    end: End = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[InvoiceView]:
    """The newest first."""
    org_id = None if org is None else (await tenancy.org(org)).id
    only = {"status": status, "kind": kind, "currency": currency, "number": number}
    return await _list(invoicing, org_id, only, (start, end), cursor, limit)


@router.get("/preview")
async def preview_invoice(org: Word, invoicing: OperatorInvoicing, tenancy: OperatorTenancy) -> InvoiceDetail:
    """The invoice that the org would get if the running period ended now; nothing is stored."""
    return await _preview(invoicing, (await tenancy.org(org)).id)


@router.get("/preview/pdf", response_class=PdfResponse, responses=_PDF)
async def preview_pdf(org: Word, invoicing: OperatorInvoicing, tenancy: OperatorTenancy) -> Response:
    return await _preview_pdf(invoicing, (await tenancy.org(org)).id)


@router.post("/close")
async def close_periods(body: CloseBody, invoicing: OperatorInvoicing, tenancy: OperatorTenancy) -> Page[InvoiceView]:
    """Make the drafts of periods that have ended, as the job does; harmless to repeat."""
    if body.org is None:
        if body.now:
            raise InvalidRequest("say which org is to be closed up to now", param="org")
        await invoicing.closer.round()
        return Page(data=[])
    org_id = (await tenancy.org(body.org)).id
    closing = invoicing.closer.close_now(org_id) if body.now else invoicing.closer.close_ended(org_id)
    return Page(data=[InvoiceView.of(each) for each in await closing])


@router.get("/{invoice_id}")
async def get_invoice(invoice_id: Word, invoicing: OperatorInvoicing) -> InvoiceDetail:
    return await _detail(invoicing, await invoicing.invoices.invoice(invoice_id))


@router.get("/{invoice_id}/pdf", response_class=PdfResponse, responses=_PDF)
async def invoice_pdf(invoice_id: Word, invoicing: OperatorInvoicing) -> Response:
    return await _pdf(await invoicing.invoices.invoice(invoice_id))


@router.get("/{invoice_id}/document")
async def invoice_document(invoice_id: Word, invoicing: OperatorInvoicing) -> Response:
    """The very bytes whose SHA-256 is the invoice's digest."""
    return _document(await invoicing.invoices.invoice(invoice_id))


@router.get("/{invoice_id}/einvoice")
async def invoice_einvoice(invoice_id: Word, invoicing: OperatorInvoicing) -> dict[str, Any]:
    """As the Invoice Registration Portal of India takes it (INV-01, version 1.1)."""
    return einvoice_of(_document_of(await invoicing.invoices.invoice(invoice_id)))


@router.post("/{invoice_id}/issue")
async def issue_invoice(invoice_id: Word, invoicing: OperatorInvoicing) -> InvoiceView:
    """Give a draft its number and document, for good; harmless to repeat."""
    return InvoiceView.of(await invoicing.issuer.issue(invoice_id))


@router.post("/{invoice_id}/void")
async def void_invoice(invoice_id: Word, body: ReasonBody, invoicing: OperatorInvoicing) -> InvoiceView:
    """Take it back, whole. 409 where something was paid or credited of it; harmless to repeat."""
    return InvoiceView.of(await invoicing.issuer.void(invoice_id, body.reason))


@router.post("/{invoice_id}/reissue")
async def reissue_invoice(invoice_id: Word, body: ReasonBody, invoicing: OperatorInvoicing) -> InvoiceView:
    """Void it where it is not void yet, and bill the same charges by the profile of now."""
    return InvoiceView.of(await invoicing.issuer.reissue(invoice_id, body.reason))


@router.post("/{invoice_id}/credit-notes", status_code=201)
async def credit_invoice(invoice_id: Word, body: CreditNoteBody, invoicing: OperatorInvoicing) -> CreditNoteView:
    """Take back part of it or all, tax included, never more than it came to."""
    invoice = await invoicing.invoices.invoice(invoice_id)
    amount = None if body.amount is None else minor_of(body.amount, invoice.currency)
    note = await invoicing.issuer.credit_note(invoice.id, ref=body.ref, reason=body.reason, amount_minor=amount)
    return CreditNoteView.of(note)


@router.get("/{invoice_id}/credit-notes/{note_id}/pdf", response_class=PdfResponse, responses=_PDF)
async def credit_note_pdf(invoice_id: Word, note_id: Word, invoicing: OperatorInvoicing) -> Response:
    return await _note_pdf(invoicing, await invoicing.invoices.invoice(invoice_id), note_id)


@router.post("/{invoice_id}/payments")
async def pay_invoice(invoice_id: Word, body: PaymentBody, invoicing: OperatorInvoicing) -> InvoiceView:
    """Write down what came in by hand; a repeat under the same reference counts once."""
    invoice = await invoicing.invoices.invoice(invoice_id)
    at = invoicing.invoices.now() if body.at is None else in_utc(body.at)
    amount = minor_of(body.amount, invoice.currency)
    return InvoiceView.of(await invoicing.invoices.mark_paid(invoice.id, body.payment_ref, amount, at))


@profiles_router.get("/{org}")
async def get_profile(org: Word, invoicing: OperatorInvoicing, tenancy: OperatorTenancy) -> ProfileView:
    return await _profile(invoicing, (await tenancy.org(org)).id)


@profiles_router.patch("/{org}")
async def change_profile(
    org: Word, body: ProfileChange, invoicing: OperatorInvoicing, tenancy: OperatorTenancy
) -> ProfileView:
    """Whom the org's invoices are addressed to and on which terms, from the next one on."""
    org_id = (await tenancy.org(org)).id
    profile = await invoicing.profiles.change(org_id, **body.given())
    return ProfileView.of(profile, invoicing.profiles.terms(profile))


@own_router.get("")
async def list_own_invoices(
    home: OwnHome,
    services: Services,
    status: InvoiceStatus | None = None,
    kind: InvoiceKind | None = None,
    number: Word | None = None,
    start: Start = None,
    end: End = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[InvoiceView]:
    """What was issued to the org, the newest first."""
    only = {"status": status, "kind": kind, "number": number, "issued": True}
    return await _list(services.invoicing, home.org.id, only, (start, end), cursor, limit)


@own_router.get("/preview")
async def preview_own_invoice(home: OwnHome, services: Services) -> InvoiceDetail:
    """The invoice that there would be if the running period ended now."""
    return await _preview(services.invoicing, home.org.id)


@own_router.get("/preview/pdf", response_class=PdfResponse, responses=_PDF)
async def preview_own_pdf(home: OwnHome, services: Services) -> Response:
    return await _preview_pdf(services.invoicing, home.org.id)


@own_router.get("/{invoice_id}")
async def get_own_invoice(invoice_id: Word, home: OwnHome, services: Services) -> InvoiceDetail:
    return await _detail(services.invoicing, await _own(services.invoicing, invoice_id, home.org.id))


@own_router.get("/{invoice_id}/pdf", response_class=PdfResponse, responses=_PDF)
async def own_invoice_pdf(invoice_id: Word, home: OwnHome, services: Services) -> Response:
    return await _pdf(await _own(services.invoicing, invoice_id, home.org.id))


@own_router.get("/{invoice_id}/document")
async def own_invoice_document(invoice_id: Word, home: OwnHome, services: Services) -> Response:
    """The very bytes whose SHA-256 is the invoice's digest."""
    return _document(await _own(services.invoicing, invoice_id, home.org.id))


@own_router.get("/{invoice_id}/credit-notes/{note_id}/pdf", response_class=PdfResponse, responses=_PDF)
async def own_credit_note_pdf(invoice_id: Word, note_id: Word, home: OwnHome, services: Services) -> Response:
    return await _note_pdf(services.invoicing, await _own(services.invoicing, invoice_id, home.org.id), note_id)


@own_profile_router.get("")
async def get_own_profile(home: OwnHome, services: Services) -> ProfileView:
    return await _profile(services.invoicing, home.org.id)


@own_profile_router.patch("")
async def change_own_profile(body: OwnProfileChange, home: OwnHome, services: Services) -> ProfileView:
    """Whom the invoices are addressed to, from the next one on."""
    profiles = services.invoicing.profiles.acting_as(home.actor)
    profile = await profiles.change(home.org.id, **body.given())
    return ProfileView.of(profile, profiles.terms(profile))


async def _list(
    invoicing: Invoicing,
    org_id: OrgId | None,
    only: dict[str, Any],
    within: tuple[datetime | None, datetime | None],
    cursor: str | None,
    limit: int,
) -> Page[InvoiceView]:
    start, end = within
    found = await invoicing.invoices.invoices(
        org_id=org_id, **only, start=start and in_utc(start), end=end and in_utc(end), after=cursor, limit=limit
    )
    return page_of([InvoiceView.of(each) for each in found], [each.id for each in found], limit)


async def _own(invoicing: Invoicing, invoice_id: str, org_id: OrgId) -> Invoice:
    """Raises NotFound for a draft as for what is somebody else's."""
    found = await invoicing.invoices.invoice(invoice_id, org_id)
    if found.number is None:
        raise NotFound("there is no such invoice")
    return found


async def _detail(invoicing: Invoicing, invoice: Invoice) -> InvoiceDetail:
    invoices = invoicing.invoices
    return InvoiceDetail.with_lines(
        invoice, await invoices.lines(invoice), await invoices.payments(invoice), await invoices.credit_notes(invoice)
    )


async def _preview(invoicing: Invoicing, org_id: OrgId) -> InvoiceDetail:
    invoice, draft, _document = await invoicing.closer.preview(org_id)
    return InvoiceDetail.with_lines(invoice, list(draft.lines))


async def _preview_pdf(invoicing: Invoicing, org_id: OrgId) -> Response:
    _invoice, _draft, document = await invoicing.closer.preview(org_id)
    return _file(await asyncio.to_thread(pdf_of, document), "preview")


async def _pdf(invoice: Invoice) -> Response:
    if invoice.document is None:
        raise NotFound("a draft has no PDF; look at the preview, or issue it")
    return _file(await asyncio.to_thread(pdf_of, invoice.document), str(invoice.number))


async def _note_pdf(invoicing: Invoicing, invoice: Invoice, note_id: str) -> Response:
    for note in await invoicing.invoices.credit_notes(invoice):
        if note_id in (note.id, note.number):
            return _file(await asyncio.to_thread(pdf_of, note.document), note.number)
    raise NotFound("there is no such credit note")


def _file(content: bytes, name: str) -> Response:
    filename = f"{name.replace('/', '-')}.pdf"
    return PdfResponse(content, headers={"Content-Disposition": f'inline; filename="{filename}"'})


def _document(invoice: Invoice) -> Response:
    if invoice.document is None:
        raise NotFound("a draft has no document; issue it first")
    headers = {"Digest-SHA256": str(invoice.digest)}
    return Response(invoice.document.encode(), media_type="application/json", headers=headers)


def _document_of(invoice: Invoice) -> dict[str, Any]:
    if invoice.document is None:
        raise NotFound("a draft has no document; issue it first")
    content: dict[str, Any] = json.loads(invoice.document)
    return content


async def _profile(invoicing: Invoicing, org_id: OrgId) -> ProfileView:
    profile = await invoicing.profiles.profile(org_id)
    return ProfileView.of(profile, invoicing.profiles.terms(profile))
