"""What an event is about, of what each provider tells. Pure.

Invariant: an event only says what to look at. What has become of it is asked of the provider, so that events may come
twice, late and in any order, and a forged one that got through would still change nothing but when we look.
"""

from enum import StrEnum
from typing import Any

import msgspec

from crosslogic.billing.inbound.model import InboundEvent


class About(StrEnum):
    PAYMENT = "payment"
    REFUND = "refund"
    SETUP = "setup"
    METHOD = "method"
    CHARGEBACK = "chargeback"
    METER = "meter"  # a report of usage that was not taken
    INVOICE = "invoice"
    NOTHING = "nothing"  # that concerns us


class Notice(msgspec.Struct, frozen=True):
    about: About
    our_id: str | None = None
    provider_ref: str | None = None
    customer_ref: str | None = None


_NOTHING = Notice(About.NOTHING)
_METER_REPORTS = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")


def notice_of(event: InboundEvent) -> Notice:
    try:
        content = event.content()
        return _of_stripe(event.type, content) if event.provider == "stripe" else _of_paypal(event.type, content)
    except (AttributeError, LookupError, TypeError, AssertionError, msgspec.DecodeError):
        return _NOTHING  # a shape that we do not know


def _of_stripe(kind: str, content: dict[str, Any]) -> Notice:
    if kind in _METER_REPORTS:
        return Notice(About.METER, provider_ref=_text(content, "id"))
    told = content.get("data", {}).get("object", {}) if isinstance(content.get("data"), dict) else {}
    tags = told.get("metadata") or {}
    ref, customer = _text(told, "id"), _text(told, "customer")
    if kind.startswith("payment_intent."):
        return Notice(About.PAYMENT, _text(tags, "crosslogic_payment"), ref, customer)
    if kind.startswith(("refund.", "charge.refund.")):
        return Notice(About.REFUND, _text(tags, "crosslogic_refund"), ref, customer)
    if kind.startswith("charge.dispute."):
        return Notice(About.CHARGEBACK, provider_ref=ref)
    if kind.startswith("charge."):
        return Notice(About.PAYMENT, _text(tags, "crosslogic_payment"), _text(told, "payment_intent"), customer)
    if kind == "setup_intent.succeeded":
        return Notice(About.SETUP, None, ref, customer)
    if kind.startswith("payment_method."):
        return Notice(About.METHOD, None, ref, customer)
    return _NOTHING


def _of_paypal(kind: str, content: dict[str, Any]) -> Notice:
    told = content.get("resource") if isinstance(content.get("resource"), dict) else {}
    assert isinstance(told, dict)
    our_id = (_text(told, "custom_id") or "").partition(".")[0] or None
    ref = _text(told, "id")
    if kind in ("PAYMENT.CAPTURE.REFUNDED", "PAYMENT.CAPTURE.REVERSED", "PAYMENT.REFUND.FAILED"):
        return Notice(About.REFUND, our_id, ref)
    if kind.startswith("PAYMENT.CAPTURE."):
        order = told.get("supplementary_data", {}).get("related_ids", {}).get("order_id")
        return Notice(About.PAYMENT, our_id, order if isinstance(order, str) else None)
    if kind.startswith("CHECKOUT.ORDER."):
        units = told.get("purchase_units") or [{}]
        return Notice(About.PAYMENT, (_text(units[0], "custom_id") or "").partition(".")[0] or None, ref)
    if kind.startswith("CUSTOMER.DISPUTE."):
        return Notice(About.CHARGEBACK, provider_ref=_text(told, "dispute_id"))
    if kind.startswith("VAULT.PAYMENT-TOKEN."):
        return Notice(About.METHOD, None, ref, _text(told.get("customer") or {}, "id"))
    return _NOTHING


def _text(values: Any, name: str) -> str | None:
    value = values.get(name) if isinstance(values, dict) else None
    return value if isinstance(value, str) and len(value) <= 300 else None
