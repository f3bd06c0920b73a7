"""What PayPal's JSON says, in our words. Pure."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from crosslogic.billing.payments.currencies import minor_of
from crosslogic.billing.payments.model import ChargebackFound, ChargebackStatus, MethodFound, MethodKind
from crosslogic.kernel.errors import InvalidRequest

Json = dict[str, Any]
_EVENTS_KEPT = timedelta(days=30)
_AGAINST_US = ("RESOLVED_BUYER_FAVOUR", "ACCEPTED")


def link(answer: Json, rel: str) -> str | None:
    for each in answer.get("links", []):
        if each.get("rel") == rel:
            return str(each["href"])
    return None


def method_of(token: Json) -> MethodFound:
    source = token.get("payment_source", {})
    if "card" in source:
        card = source["card"]
        year, _, month = str(card.get("expiry", "")).partition("-")
        return MethodFound(
            str(token["id"]),
            MethodKind.CARD,
            str(card["brand"]).lower() if card.get("brand") else None,
            card.get("last_digits"),
            int(month) if month.isdigit() else None,
            int(year) if year.isdigit() else None,
        )
    return MethodFound(str(token["id"]), MethodKind.PAYPAL, "paypal")


def capture_of(order: Json) -> Json | None:
    """The capture of an order with one purchase unit, if there is one yet."""
    for unit in order.get("purchase_units", []):
        for capture in unit.get("payments", {}).get("captures", []):
            found: Json = capture
            return found
    return None


def chargeback_of(case: Json) -> ChargebackFound:
    """A case of PayPal's disputes v1. An inquiry withdraws nothing; from a claim on, its amount is held until it is
    resolved, and then what was given to the buyer is gone."""
    money = case["dispute_amount"]
    currency = str(money["currency_code"]).lower()
    amount = minor_of(number(money["value"]), currency)
    status, withdrawn = _stands(case, amount, currency)
    of = (case.get("disputed_transactions") or [{}])[0]
    charge = of.get("seller_transaction_id")
    respond_by = case.get("seller_response_due_date")
    return ChargebackFound(
        provider_ref=str(case["dispute_id"]),
        payment_ref=None,
        charge_ref=None if charge is None else str(charge),
        amount_minor=amount,
        currency=currency,
        reason=str(case.get("reason", "")).lower(),
        status=status,
        withdrawn_minor=withdrawn,
        opened_at=_instant(case["create_time"]),
        respond_by=None if respond_by is None else _instant(respond_by),
    )


def _stands(case: Json, amount: int, currency: str) -> tuple[ChargebackStatus, int]:
    if case.get("status") == "RESOLVED":
        outcome = case.get("dispute_outcome") or {}
        given = outcome.get("amount_refunded")
        if given is not None:
            lost = minor_of(number(given["value"]), currency)
        else:
            lost = amount if outcome.get("outcome_code") in _AGAINST_US else 0
        return (ChargebackStatus.LOST, lost) if lost else (ChargebackStatus.WON, 0)
    if case.get("dispute_life_cycle_stage", "INQUIRY") == "INQUIRY":
        return ChargebackStatus.INQUIRY, 0
    waits = case.get("status") == "WAITING_FOR_SELLER_RESPONSE"
    return (ChargebackStatus.NEEDS_RESPONSE if waits else ChargebackStatus.UNDER_REVIEW), amount


def _instant(text: Any) -> datetime:
    return datetime.fromisoformat(str(text).replace("Z", "+00:00"))


def failure_of(content: Any) -> tuple[str, str]:
    """Code and message of an error."""
    if not isinstance(content, dict):
        return "refused", "PayPal refused"
    details = content.get("details") or [{}]
    first = details[0] if isinstance(details, list) and isinstance(details[0], dict) else {}
    code = str(first.get("issue") or content.get("name") or "refused")
    return code, str(first.get("description") or content.get("message") or "PayPal refused")


def events_query(start: datetime, end: datetime | None) -> dict[str, str]:
    """PayPal wants both ends, and has no older events than those of thirty days."""
    until = start + _EVENTS_KEPT if end is None else end
    since = max(start, until - _EVENTS_KEPT)
    return {"start_time": time_text(since), "end_time": time_text(until), "page_size": "100"}


def number(text: Any) -> Decimal:
    """Raises InvalidRequest."""
    try:
        return Decimal(str(text))
    except InvalidOperation:
        raise InvalidRequest("an amount of PayPal's is no number") from None


def time_text(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
