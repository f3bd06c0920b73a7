"""Exports and reconciliation over the management API: operators choose, look, hurry and repair; orgs see their own."""

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest_asyncio
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import PaymentRooms
from crosslogic.billing.exports.service import Exports
from crosslogic.billing.exports.stripe_meter import StripeMeters
from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.payments import stripe as stripe_adapter
from crosslogic.billing.postings import book
from crosslogic.billing.postings.sql import post
from crosslogic.billing.reconciliation.service import Reconciler
from crosslogic.kernel.clock import ManualClock
from crosslogic.metering.ledger import Ledger
from crosslogic.store.tables import charges
from crosslogic.tenancy.audit_sql import AuditTrail
from tests.contract.test_api_admin import HEADERS, client_of, error_of, house, services_on
from tests.contract.test_api_payments import admin_key
from tests.contract.test_ledger_sql import PRICES
from tests.exports_rig import charge_row
from tests.fake_stripe import server
from tests.metering_samples import usage
from tests.payments_rig import Rig, stripe_side


class Office:
    def __init__(self, admin: httpx.AsyncClient, acme: httpx.AsyncClient, exports: Exports, clock: ManualClock) -> None:
        self.admin, self.acme, self.exports, self.clock = admin, acme, exports, clock
        self.org = ""


@pytest_asyncio.fixture
async def office(engine: AsyncEngine) -> AsyncIterator[Office]:
    clock = ManualClock()
    async with stripe_side(clock) as side:
        rig, trail = Rig(engine, side, clock), AuditTrail(clock=clock)
        client, http = stripe_adapter.new_client(server.API_KEY, base_url=side.fake.base_url, network_retries=0)
        meters = StripeMeters(client)
        exports = Exports(engine, clock, meters, rig.service.methods.customer, trail)
        inbound = Inbound(engine, clock, rig.service, {}, exports.on_meter_report)
        reconciler = Reconciler(engine, clock, trail, rig.service, meters)
        rooms = PaymentRooms(rig.service, inbound, rig.chargebacks, exports)
        services = dataclasses.replace(services_on(engine), payments=rooms, reconciler=reconciler)
        async with client_of(services, **HEADERS) as admin:
            made = await house(admin, "acme")
            token = await admin_key(admin, "acme")
            async with client_of(services, Authorization=f"Bearer {token}") as acme:
                office = Office(admin, acme, exports, clock)
                office.org = made["org"]
                yield office
        await http.close_async()


async def test_an_orgs_way_is_chosen_and_written_down(office: Office) -> None:
    path = "/admin/exports/modes/acme"
    assert (await office.admin.get(path)).json()["mode"] == "stripe_invoice"
    assert (await office.admin.put(path, json={"mode": "stripe_meter"})).json()["mode"] == "stripe_meter"
    assert error_of(await office.admin.put(path, json={"mode": "both"}))[0] == 400
    assert error_of(await office.admin.put("/admin/exports/modes/none", json={"mode": "none"}))[0] == 404
    entries = (await office.admin.get("/admin/audit", params={"action": "export"})).json()["data"]
    assert [(each["action"], each["after"]["mode"]) for each in entries] == [("export.mode", "stripe_meter")]


async def test_windows_are_listed_and_hurried(office: Office) -> None:
    await office.admin.put("/admin/exports/modes/acme", json={"mode": "stripe_meter"})
    async with office.exports.engine.begin() as conn:
        await conn.execute(insert(charges), [charge_row(office.org, 1, office.clock.now(), 5, 2, 7)])
    office.clock.advance(4000)
    await office.exports.seal_due()
    listed = (await office.admin.get("/admin/exports/windows", params={"org": "acme", "limit": 2})).json()
    assert [each["status"] for each in listed["data"]] == ["sealed", "sealed"]
    rest = await office.admin.get("/admin/exports/windows", params={"cursor": listed["next_cursor"]})
    assert len(rest.json()["data"]) == 1
    hurried = await office.admin.post(f"/admin/exports/windows/{listed['data'][0]['id']}/retry")
    assert hurried.status_code == 200
    assert error_of(await office.admin.post("/admin/exports/windows/cic:none/retry"))[0] == 404
    await office.exports.drive()
    assert (await office.admin.get("/admin/exports/windows", params={"status": "sealed"})).json()["data"] == []
    assert (await office.admin.get("/admin/exports/windows", params={"failed": True})).json()["data"] == []


async def test_books_are_compared_on_command_and_reports_are_kept(office: Office) -> None:
    made = await office.admin.post("/admin/reconciliations", json={"days": 3, "org": "acme"})
    assert made.status_code == 201
    assert made.json()["agrees"]
    report = made.json()["id"]
    assert (await office.admin.get(f"/admin/reconciliations/{report}")).json() == made.json()
    assert (await office.admin.get("/admin/reconciliations")).json()["data"] == [made.json()]
    assert error_of(await office.admin.post("/admin/reconciliations", json={"days": 0}))[0] == 400
    repair = await office.admin.post(f"/admin/reconciliations/{report}/repair", json={"entity": "x"})
    assert error_of(repair)[0] == 409


async def test_a_dispute_pack_is_for_its_own_org(office: Office) -> None:
    mine, other = usage(1, org_id=office.org), usage(2)
    await Ledger(office.exports.engine, office.clock).insert([mine, other], PRICES)
    pack = (await office.acme.get("/api/v1/billing/disputes/req_000001")).json()
    assert pack["proof"]["intact"]
    assert pack == (await office.admin.get("/admin/disputes/req_000001")).json()
    foreign = await office.acme.get("/api/v1/billing/disputes/req_000002")
    unknown = await office.acme.get("/api/v1/billing/disputes/req_000009")
    assert error_of(foreign)[0] == 404
    assert foreign.json() == unknown.json()


async def test_postings_are_listed_page_by_page_and_their_balance_is_told(office: Office) -> None:
    engine, now = office.exports.engine, office.clock.now()
    async with engine.begin() as conn:
        for n, kind in enumerate(("receipt", "refund", "receipt")):
            made = book.of_receipt(1000 if kind == "receipt" else -300, "USD")
            at = now + timedelta(seconds=n)
            await post(conn, f"receipt:{n}", kind, made, org_id=office.org, currency="usd", at=at)
    first = (await office.admin.get("/admin/postings", params={"org": "acme", "limit": 2})).json()
    assert [row["ref"] for row in first["data"]] == ["receipt:2", "receipt:1"]
    assert first["data"][0]["postings"] == [
        {"account": "cash", "amount": "10.00"}, {"account": "receivable", "amount": "-10.00"},
    ]  # fmt: skip
    rest = (await office.admin.get("/admin/postings", params={"cursor": first["next_cursor"], "limit": 2})).json()
    assert [row["ref"] for row in rest["data"]] == ["receipt:0"]
    refunds = (await office.admin.get("/admin/postings", params={"kind": "refund", "currency": "usd"})).json()
    assert [row["ref"] for row in refunds["data"]] == ["receipt:1"]
    assert (await office.admin.get("/admin/postings", params={"cursor": "x"})).status_code == 400
    balances = (await office.admin.get("/admin/postings/balances", params={"org": "acme"})).json()["balances"]
    accounts = {"cash": "17.00", "receivable": "-17.00"}
    assert balances == [{"currency": "USD", "accounts": accounts, "total": "0.00"}]
    assert (await office.admin.get("/admin/postings/balances")).json()["balances"] == balances
    assert (await office.acme.get("/admin/postings")).status_code == 403
