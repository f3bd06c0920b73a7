"""Rows of payments for tests that only look at them."""

from typing import Any

from crosslogic.kernel.clock import ManualClock


def method_row(method_id: str, org_id: str) -> dict[str, Any]:
    return {
        "id": method_id,
        "org_id": org_id,
        "provider": "stripe",
        "method_ref": f"ref_{method_id}",
        "kind": "card",
        "is_default": True,
        "created_at": ManualClock().now(),
    }


def payment_row(payment_id: str, org_id: str, method_id: str, **changed: Any) -> dict[str, Any]:
    """A payment for credits that did not go through."""
    now = ManualClock().now()
    row = {
        "id": payment_id,
        "org_id": org_id,
        "provider": "stripe",
        "purpose": "top_up",
        "attempt": 1,
        "amount_minor": 100,
        "currency": "USD",
        "method_id": method_id,
        "customer_present": False,
        "status": "failed",
        "captured_minor": 0,
        "refund_reserved_minor": 0,
        "failure_code": "card_declined",
        "created_at": now,
        "resolved_at": now,
        "sendings": 1,
        "answered": True,
    }
    return row | changed


def chargeback_row(chargeback_id: str, org_id: str, payment_id: str) -> dict[str, Any]:
    """An inquiry, of which nothing was withdrawn."""
    now = ManualClock().now()
    return {
        "id": chargeback_id,
        "org_id": org_id,
        "payment_id": payment_id,
        "provider": "stripe",
        "provider_ref": f"dp_{chargeback_id}",
        "amount_minor": 100,
        "currency": "usd",
        "reason": "general",
        "status": "inquiry",
        "withdrawn_minor": 0,
        "lost_minor": 0,
        "opened_at": now,
        "updated_at": now,
        "version": 1,
    }
