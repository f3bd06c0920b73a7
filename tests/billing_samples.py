"""Orgs, charges, fees, grants and draws to put into databases of tests."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices.closing import Closer
from crosslogic.billing.invoices.issuing import Issuer
from crosslogic.billing.invoices.model import InvoicingTerms
from crosslogic.billing.profiles.model import Address, BillingProfile, Seller
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.tables import billing_profiles, charges, credit_draws, credit_grants, fees, orgs
from crosslogic.tenancy.keys import key_hasher

ORG = "org_1"
SELLER = Seller(
    legal_name="CrossLogic Systems Private Limited",
    address=Address(("4 Lavelle Road",), "Bengaluru", "KA", "560001", "IN"),
    email="billing@crosslogic.example",
    gstin="29AAPFU0939F1ZR",
)
BUYER = BillingProfile(
    legal_name="Acme Labs",
    address=Address(("12 Marine Drive",), "Mumbai", "MH", "400002", "IN"),
    gstin="27AAPFU0939F1ZV",
)


def charge_row(seq: int, at: datetime, amount: int, **changed: Any) -> dict[str, Any]:
    row = {
        "org_id": ORG,
        "seq": seq,
        "request_id": f"req_{seq}",
        "n": 0,
        "at": at,
        "env_id": "env_1",
        "key_id": "key_1",
        "endpoint": "chat/completions",
        "model": "llama-3-8b",
        "region": "in-mumbai",
        "prompt_tokens": 1000,
        "cached_tokens": 100,
        "completion_tokens": 500,
        "currency": "INR",
        "list_amount": amount,
        "discount_amount": 0,
        "amount": amount,
        "price_version": "2026-01",
        "terms": '{"lines":[]}',
    }
    return {**row, **changed, "request_id": changed.get("request_id", f"req_{changed.get('org_id', ORG)}_{seq}")}


def grant_row(grant_id: str, amount: int, credit_class: str = "promotional", **changed: Any) -> dict[str, Any]:
    row = {
        "id": grant_id,
        "org_id": ORG,
        "credit_class": credit_class,
        "priority": 0,
        "currency": "INR",
        "amount": amount,
        "starts_at": datetime(2025, 1, 1, tzinfo=UTC),
        "created_at": datetime(2025, 1, 1, tzinfo=UTC),
        "reason": "",
        "from_seq": 0,
    }
    return row | changed


def draw_row(seq: int, grant_id: str, amount: int, at: datetime, **changed: Any) -> dict[str, Any]:
    return {"org_id": ORG, "seq": seq, "grant_id": grant_id, "amount": amount, "at": at} | changed


def fee_row(fee_id: str, amount: int, at: datetime, **changed: Any) -> dict[str, Any]:
    row = {
        "id": fee_id,
        "org_id": ORG,
        "kind": "reserved_capacity",
        "reference": fee_id,
        "month": at.strftime("%Y-%m"),
        "at": at,
        "currency": "INR",
        "amount": amount,
        "description": "500 capacity units of llama-3-8b",
    }
    return row | changed


def org_row(org_id: str = ORG, name: str = "acme", **changed: Any) -> dict[str, Any]:
    row = {
        "id": org_id,
        "name": name,
        "status": "active",
        "billing_plan": "free",
        "limits": {},
        "allowed_models": [],
        "created_at": datetime(2025, 1, 1, tzinfo=UTC),
    }
    return row | changed


_TABLES = {"charges": charges, "fees": fees, "grants": credit_grants, "draws": credit_draws, "orgs": orgs}


async def put_rows(engine: AsyncEngine, **rows: Iterable[dict[str, Any]]) -> None:
    async with engine.begin() as conn:
        for name, values in rows.items():
            for value in values:
                await conn.execute(insert(_TABLES[name]).values(value))


async def put_profile(engine: AsyncEngine, profile: BillingProfile = BUYER, org_id: str = ORG) -> None:
    values = {"org_id": org_id, "profile": msgspec.to_builtins(profile), "updated_at": datetime(2025, 1, 1, tzinfo=UTC)}
    async with engine.begin() as conn:
        await conn.execute(insert(billing_profiles).values(values))


def desk(engine: AsyncEngine, clock: ManualClock, **changed: Any) -> tuple[Closer, Issuer]:
    """Who closes, and who issues."""
    terms = InvoicingTerms(**{"seller": SELLER, "time_zone": "Asia/Kolkata", "fiscal_year_first_month": 4, **changed})
    issuer = Issuer(engine, key_hasher(), clock, terms)
    return Closer(engine, issuer, clock), issuer
