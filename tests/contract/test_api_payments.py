"""Payments over the management API, on both databases: what orgs and operators may do, and webhooks."""

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import PaymentRooms
from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.inbound.verify_stripe import StripeVerifier
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import OrgId
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Status, SuspendedFor
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.contract.test_api_admin import HEADERS, client_of, error_of, house, services_on
from tests.fake_stripe import webhooks
from tests.payments_rig import Rig, StripeSide, stripe_side


async def admin_key(admin: httpx.AsyncClient, org: str) -> str:
    body = {"org": org, "environment": "prod", "name": "billing", "role": "admin"}
    return str((await admin.post("/admin/keys", json=body)).json()["key"])


class Shop:
    """Two orgs that pay through the API, and the operator."""

    def __init__(self, rig: Rig, admin: httpx.AsyncClient, acme: httpx.AsyncClient, bolt: httpx.AsyncClient) -> None:
        self.rig, self.admin, self.acme, self.bolt = rig, admin, acme, bolt
        self.org = OrgId("")

    @property
    def side(self) -> StripeSide:
        assert isinstance(self.rig.provider, StripeSide)
        return self.rig.provider

    async def method(self, behaviour: str = "ok") -> str:
        begun = (await self.acme.post("/api/v1/billing/payment-methods", json={"kind": "card"})).json()
        await self.side.enter(begun["setup_ref"], behaviour)
        body = {"setup_ref": begun["setup_ref"]}
        return str((await self.acme.post("/api/v1/billing/payment-methods/confirm", json=body)).json()["id"])


@pytest_asyncio.fixture
async def shop(engine: AsyncEngine) -> AsyncIterator[Shop]:
    clock = ManualClock()
    async with stripe_side(clock) as side:
        rig = Rig(engine, side, clock)
        inbound = Inbound(engine, clock, rig.service, {"stripe": StripeVerifier((webhooks.SECRET,)).verified})
        services = dataclasses.replace(
            services_on(engine), payments=PaymentRooms(rig.service, inbound, rig.chargebacks)
        )
        async with client_of(services, **HEADERS) as admin:
            houses = [await house(admin, "acme"), await house(admin, "bolt")]
            tokens = [{"Authorization": f"Bearer {await admin_key(admin, name)}"} for name in ("acme", "bolt")]
            async with client_of(services, **tokens[0]) as acme, client_of(services, **tokens[1]) as bolt:
                shop = Shop(rig, admin, acme, bolt)
                shop.org = OrgId(houses[0]["org"])
                yield shop


async def test_a_method_is_set_up_without_its_number_ever_coming_here(shop: Shop) -> None:
    begun = await shop.acme.post("/api/v1/billing/payment-methods", json={"kind": "card"})
    assert begun.status_code == 201
    assert begun.json()["client_secret"]
    confirm = {"setup_ref": begun.json()["setup_ref"]}
    early = await shop.acme.post("/api/v1/billing/payment-methods/confirm", json=confirm)
    assert error_of(early)[0] == 409
    await shop.side.enter(begun.json()["setup_ref"])
    method = (await shop.acme.post("/api/v1/billing/payment-methods/confirm", json=confirm)).json()
    assert (method["type"], method["last4"], method["is_default"]) == ("card", "4242", True)
    assert (await shop.acme.get("/api/v1/billing/payment-methods")).json()["data"] == [method]
    assert (await shop.bolt.get("/api/v1/billing/payment-methods")).json()["data"] == []
    for who, status in ((shop.bolt, 404), (shop.acme, 204)):
        assert (await who.delete(f"/api/v1/billing/payment-methods/{method['id']}")).status_code == status
    entries = (await shop.admin.get("/admin/audit", params={"action": "payment_method"})).json()["data"]
    assert [entry["action"] for entry in entries] == ["payment_method.remove", "payment_method.add"]


async def test_an_org_pays_its_invoices_and_buys_credits_and_sees_only_its_own(shop: Shop) -> None:
    await shop.method()
    shop.rig.books.add("in_1", 1050, shop.org)
    paid = await shop.acme.post("/api/v1/billing/payments", json={"invoice_id": "in_1"})
    assert paid.status_code == 201
    row = paid.json()
    assert (row["status"], row["amount"], row["captured_minor"]) == ("succeeded", "10.50", 1050)
    bought = await shop.acme.post("/api/v1/billing/payments", json={"amount_minor": 500, "currency": "USD"})
    assert (bought.json()["purpose"], bought.json()["status"]) == ("top_up", "succeeded")
    page = (await shop.acme.get("/api/v1/billing/payments", params={"limit": 1})).json()
    assert [each["id"] for each in page["data"]] == [bought.json()["id"]]
    rest = (await shop.acme.get("/api/v1/billing/payments", params={"cursor": page["next_cursor"]})).json()["data"]
    assert [each["id"] for each in rest] == [row["id"]]
    assert (await shop.bolt.get("/api/v1/billing/payments")).json()["data"] == []
    unknown = await shop.bolt.get("/api/v1/billing/payments/pay_none")
    foreign = await shop.bolt.get(f"/api/v1/billing/payments/{row['id']}")
    assert error_of(unknown) == error_of(foreign)
    assert unknown.json() == foreign.json()
    assert error_of(await shop.bolt.post("/api/v1/billing/payments", json={"invoice_id": "in_1"}))[0] == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"invoice_id": "in_1", "amount_minor": 5},
        {"amount_minor": 500},
        {"amount_minor": 0, "currency": "usd"},
        {"amount_minor": -5, "currency": "usd"},
        {"amount_minor": 5.5, "currency": "usd"},
        {"amount_minor": "500", "currency": "usd"},
        {"amount_minor": 1e400, "currency": "usd"},
        {"amount_minor": 10**30, "currency": "usd"},
        {"amount_minor": 500, "currency": "dollars"},
        {"amount_minor": 500, "currency": "usd", "status": "succeeded"},
        {"amount_minor": 500, "currency": "usd", "org_id": "org_x"},
    ],
)
async def test_wrong_orders_move_no_money(shop: Shop, body: dict[str, Any]) -> None:
    await shop.method()
    if any(value == float("inf") for value in body.values()):
        answer = await shop.acme.post(
            "/api/v1/billing/payments",
            content='{"amount_minor": 1e400, "currency": "usd"}',
            headers={"content-type": "application/json"},
        )
    else:
        answer = await shop.acme.post("/api/v1/billing/payments", json=body)
    assert error_of(answer)[0] == 400
    assert shop.side.captures() == 0


async def test_three_d_secure_is_pending_until_a_webhook_says_that_its_payer_agreed(shop: Shop) -> None:
    method = await shop.method("3ds")
    body = {"amount_minor": 700, "currency": "usd", "payment_method": method}
    row = (await shop.acme.post("/api/v1/billing/payments", json=body, headers={"Idempotency-Key": "k"})).json()
    assert row["status"] == "pending"
    assert row["action_url"].startswith("https://")
    payment = await shop.rig.service.payment(row["id"])
    shop.side.payer_acts(payment)
    for event in shop.side.fake.state.events:
        payload = webhooks.payload_of(event)
        signed = webhooks.signature(payload, int(shop.rig.clock.now().timestamp()))
        told = await shop.admin.post("/webhooks/stripe", content=payload, headers={"stripe-signature": signed})
        assert told.json() == {"received": True, "known": False}
        again = await shop.admin.post("/webhooks/stripe", content=payload, headers={"stripe-signature": signed})
        assert again.json()["known"]
    forged = await shop.admin.post("/webhooks/stripe", content=payload, headers={"stripe-signature": "t=1,v1=00"})
    assert error_of(forged)[0] == 400
    assert error_of(await shop.admin.post("/webhooks/paypal", content=b"{}"))[0] == 404
    events = (await shop.admin.get("/admin/payments-events", params={"limit": 2})).json()
    assert len(events["data"]) == 2
    more = await shop.admin.get("/admin/payments-events", params={"cursor": events["next_cursor"]})
    assert len(more.json()["data"]) == len(shop.side.fake.state.events) - 2
    await shop.rig.service.payment_driver.look_at(payment.id, payment.provider_ref or "")
    assert (await shop.acme.get(f"/api/v1/billing/payments/{row['id']}")).json()["status"] == "succeeded"


async def test_operators_charge_and_refund_and_everything_is_written_down(shop: Shop) -> None:
    await shop.method()
    shop.rig.books.add("in_1", 1000, shop.org)
    paid = (await shop.admin.post("/admin/payments", json={"invoice_id": "in_1"})).json()
    assert paid["status"] == "succeeded"
    assert error_of(await shop.admin.post("/admin/payments", json={"invoice_id": "in_1"}))[0] == 409
    body = {"payment_id": paid["id"], "amount_minor": 300, "reason": "late"}
    made = [await shop.admin.post("/admin/refunds", json=body, headers={"Idempotency-Key": "r"}) for _ in range(2)]
    assert [each.status_code for each in made] == [201, 201]
    assert made[0].json()["id"] == made[1].json()["id"]
    over = await shop.admin.post("/admin/refunds", json={**body, "amount_minor": 701})
    assert error_of(over)[0] == 409
    assert (await shop.admin.get(f"/admin/payments/{paid['id']}")).json()["refundable_minor"] == 700
    listed = (await shop.admin.get("/admin/refunds", params={"org": "acme", "payment_id": paid["id"]})).json()["data"]
    assert [each["amount"] for each in listed] == ["3.00"]
    assert (await shop.admin.get("/admin/payments", params={"org": "bolt"})).json()["data"] == []
    assert (await shop.admin.get("/admin/payments", params={"status": "failed"})).json()["data"] == []
    actions = {entry["action"] for entry in (await shop.admin.get("/admin/audit")).json()["data"]}
    assert {"payment.create", "payment.succeeded", "refund.create", "refund.succeeded"} <= actions
    for path in ("/admin/refunds", "/admin/payments"):
        assert (await shop.acme.post(path, json=body)).status_code in (401, 403)


async def test_where_payments_are_off_it_is_said(engine: AsyncEngine) -> None:
    async with client_of(services_on(engine), **HEADERS) as admin:
        await house(admin)
        token = await admin_key(admin, "acme")
        assert "enable_payments" in (await admin.get("/admin/payments")).json()["error"]["message"]
        assert (await admin.post("/webhooks/stripe", content=b"{}")).status_code == 404
        async with client_of(services_on(engine), Authorization=f"Bearer {token}") as own:
            assert error_of(await own.get("/api/v1/billing/payment-methods"))[0] == 409


async def test_the_portal_is_the_providers(shop: Shop) -> None:
    await shop.method()
    made = await shop.acme.post("/api/v1/billing/portal", json={"return_url": "https://console.test/billing"})
    assert made.json()["url"].startswith("https://billing.stripe.test/")
    wrong = await shop.acme.post("/api/v1/billing/portal", json={"return_url": "javascript:alert(1)"})
    assert error_of(wrong)[0] == 400


async def test_who_is_suspended_for_money_can_still_see_to_their_bills_and_nothing_else(shop: Shop) -> None:
    tenancy = TenancyService(TenancySql(shop.rig.engine), key_hasher(), shop.rig.clock)
    await tenancy.change_org("acme", status=Status.SUSPENDED, suspended_for=SuspendedFor.UNPAID)
    assert (await shop.acme.get("/api/v1/billing/payment-methods")).status_code == 200
    await shop.method()
    refused = await shop.acme.get("/api/v1/usage")
    assert error_of(refused)[0::2] == (403, "tenant_suspended")
    await tenancy.change_org("acme", status=Status.SUSPENDED)  # by somebody
    refused = await shop.acme.get("/api/v1/billing/payment-methods")
    assert error_of(refused)[0::2] == (403, "tenant_suspended")
    assert (await shop.bolt.get("/api/v1/usage")).status_code == 200


async def test_chargebacks_are_listed_with_their_pack(shop: Shop) -> None:
    await shop.method()
    bought = {"amount_minor": 500, "currency": "usd"}
    payment = (await shop.acme.post("/api/v1/billing/payments", json=bought)).json()
    ref = shop.side.dispute(await shop.rig.service.payment(payment["id"]))
    await shop.rig.chargebacks.look_at(ref)
    (row,) = (await shop.admin.get("/admin/chargebacks", params={"org": "acme"})).json()["data"]
    assert (row["payment_id"], row["status"], row["withdrawn_minor"], row["amount"]) == (
        payment["id"], "needs_response", 500, "5.00",
    )  # fmt: skip
    assert (await shop.admin.get("/admin/chargebacks", params={"org": "bolt"})).json()["data"] == []
    assert (await shop.admin.get(f"/admin/chargebacks/{row['id']}")).json() == row
    pack = (await shop.admin.get(row["pack"])).json()
    assert (pack["payment"]["id"], pack["usage"]["requests"]) == (payment["id"], 0)
    assert (await shop.acme.get(f"/api/v1/billing/payments/{payment['id']}")).json()["disputed_minor"] == 500
    assert (await shop.admin.get("/admin/chargebacks/cb_none")).status_code == 404
