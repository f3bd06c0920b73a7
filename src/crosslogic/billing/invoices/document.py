"""The invoice itself: canonical JSON that says everything that is printed, and its digest. Pure.

Invariant: equal contents give equal bytes (sorted keys, no spaces, UTF-8, integers and texts only, no floats), so that
the SHA-256 that stands in the database proves what was issued; PDF and e-invoice are functions of these bytes alone.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from crosslogic.billing.invoices.currency import exact_text, minor_digits
from crosslogic.billing.invoices.draft import Draft
from crosslogic.billing.invoices.model import Invoice, Line
from crosslogic.billing.invoices.periods import local_day
from crosslogic.billing.profiles.model import BillingProfile, BillingTerms, Seller
from crosslogic.billing.tax.model import Taxes

SCHEMA = "crosslogic.invoice/1"
CREDIT_NOTE_SCHEMA = "crosslogic.credit-note/1"


class Hours(msgspec.Struct, frozen=True):
    """What usage came to in each hour of the period, from `start` on; `earlier` is of late usage from before it."""

    start: datetime
    amounts: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    earlier: int = 0


class Setting(msgspec.Struct, frozen=True):
    """What surrounds an invoice besides its lines."""

    seller: Seller
    buyer: BillingProfile
    org_name: str
    terms: BillingTerms
    hours: Hours
    next_invoice_at: datetime
    payment_method: str | None = None  # as its owner knows it: "Visa ending in 4242"
    replaces_number: str | None = None


def canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


def written(invoice: Invoice, draft: Draft, setting: Setting) -> str:
    """The document of an invoice that has its number (a preview has none, and says so)."""
    currency = invoice.currency
    return canonical(
        {
            "schema": SCHEMA,
            "id": invoice.id,
            "number": invoice.number,
            "kind": invoice.kind.value,
            "revision": invoice.revision,
            "replaces": setting.replaces_number,
            "org": {"id": invoice.org_id, "name": setting.org_name},
            "period": _period(invoice, setting.terms.time_zone),
            "issued_at": _iso(invoice.issued_at),
            "issued_on": _day(invoice.issued_at, setting.terms.time_zone),
            "due_at": _iso(invoice.due_at),
            "due_on": _day(invoice.due_at, setting.terms.time_zone),
            "next_invoice_on": _day(setting.next_invoice_at, setting.terms.time_zone),
            "currency": {"code": currency, "digits": minor_digits(currency)},
            "seller": _plain(setting.seller),
            "buyer": _buyer(setting),
            "lines": [_line(n, line, currency) for n, line in enumerate(draft.lines, 1)],
            "tax": _taxes(draft.taxes),
            "totals": _totals(invoice, currency),
            "hours": _hours(setting.hours, currency),
            "payment": {
                "auto_charge": setting.terms.auto_charge,
                "method": setting.payment_method,
                "instructions": setting.seller.payment_instructions,
            },
        }
    )


def written_credit_note(
    invoice_document: Mapping[str, Any],
    *,
    number: str,
    note_id: str,
    issued_at: datetime,
    time_zone: str,
    reason: str,
    net_minor: int,
    taxes: Sequence[Mapping[str, Any]],
) -> str:
    """Refers to its invoice, and to its seller and buyer as they stand there."""
    tax_minor = sum(int(part["amount_minor"]) for part in taxes)
    kept = ("seller", "buyer", "org", "currency")
    return canonical(
        {
            "schema": CREDIT_NOTE_SCHEMA,
            "id": note_id,
            "number": number,
            "invoice": {name: invoice_document[name] for name in ("id", "number", "issued_on", "period")},
            "issued_at": _iso(issued_at),
            "issued_on": _day(issued_at, time_zone),
            "reason": reason,
            "tax": {**invoice_document["tax"], "parts": list(taxes)},
            "totals": {"net_minor": net_minor, "tax_minor": tax_minor, "total_minor": net_minor + tax_minor},
            **{name: invoice_document[name] for name in kept},
        }
    )


def _period(invoice: Invoice, time_zone: str) -> dict[str, Any]:
    return {
        "start": _iso(invoice.period_start),
        "end": _iso(invoice.period_end),
        "time_zone": time_zone,
        "first_day": local_day(invoice.period_start, time_zone).isoformat(),
        "last_day": local_day(_before(invoice.period_end), time_zone).isoformat(),
    }


def _before(instant: datetime) -> datetime:
    return instant - datetime.resolution


def _line(n: int, line: Line, currency: str) -> dict[str, Any]:
    return {
        "n": n,
        "kind": line.kind.value,
        "description": line.description,
        "model": line.model,
        "region": line.region,
        "quantity": line.quantity,
        "details": line.details,
        "exact_amount": exact_text(line.exact_amount, currency),
        "amount_minor": line.amount_minor,
    }


def _buyer(setting: Setting) -> dict[str, Any]:
    buyer = setting.buyer
    return {
        "legal_name": buyer.legal_name or setting.org_name,
        "address": _plain(buyer.address),
        "email": buyer.email,
        "gstin": buyer.gstin,
        "vat_id": buyer.vat_id,
        "tax_exemption": buyer.tax_exemption,
        "purchase_order": buyer.purchase_order,
    }


def _taxes(taxes: Taxes) -> dict[str, Any]:
    return {**_plain(taxes), "parts": [_plain(part) for part in taxes.parts]}


def _totals(invoice: Invoice, currency: str) -> dict[str, Any]:
    names = ("subtotal", "discount", "credit", "tax", "total", "prepaid")
    return {
        **{f"{name}_minor": getattr(invoice, f"{name}_minor") for name in names},
        "due_minor": invoice.total_minor - invoice.prepaid_minor,
        "exact_amount": exact_text(invoice.exact_amount, currency),
        "rounding_amount": exact_text(invoice.rounding_amount, currency),
    }


def _hours(hours: Hours, currency: str) -> dict[str, Any]:
    return {
        "start": _iso(hours.start),
        "amounts": [exact_text(amount, currency) if amount else "0" for amount in hours.amounts],
        "tokens": list(hours.tokens),
        "earlier": exact_text(hours.earlier, currency),
    }


def _plain(value: msgspec.Struct) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="seconds")


def _day(instant: datetime | None, time_zone: str) -> str | None:
    return None if instant is None else local_day(instant, time_zone).isoformat()
