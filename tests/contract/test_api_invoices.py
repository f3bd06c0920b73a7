"""Invoices over the management API, on both databases: closed, read, issued, voided, credited, paid; seen by orgs."""

import hashlib
import json
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices.invoicing import Invoicing
from crosslogic.billing.invoices.model import InvoicingTerms
from crosslogic.kernel.clock import ManualClock
from tests.billing_samples import SELLER, charge_row, draw_row, grant_row, put_rows
from tests.contract.test_api_admin import HASH, HEADERS, client_of, error_of, house, services_on
from tests.contract.test_invoices_close import FEB, MID, RUPEE

ADMIN, OWN, PROFILE = "/admin/invoices", "/api/v1/billing/invoices", "/api/v1/billing/profile"
GSTIN = "27AAPFU0939F1ZV"


class World:
    """Two orgs, one of which used 100 rupees' worth in January; it is 1 February, three hours old."""

    def __init__(self, admin: httpx.AsyncClient, acme: dict[str, str], bolt: dict[str, str]) -> None:
        self.admin = admin
        self.acme = acme
        self.bolt = bolt

    async def get(self, path: str, expected: int = 200, **params: Any) -> Any:
        answer = await self.admin.get(path, params=params)
        assert answer.status_code == expected, answer.text
        return answer.json()

    async def post(self, path: str, expected: int = 200, **body: Any) -> Any:
        answer = await self.admin.post(path, json=body)
        assert answer.status_code == expected, answer.text
        return answer.json()

    async def issued(self) -> dict[str, Any]:
        await self.post(f"{ADMIN}/close")
        (row,) = (await self.get(ADMIN))["data"]
        found: dict[str, Any] = row
        return found

    def as_member(self, house: dict[str, str]) -> dict[str, str]:
        return {"Authorization": f"Bearer {house['token']}"}


@pytest_asyncio.fixture
async def world(engine: AsyncEngine) -> Any:
    clock = ManualClock(FEB)
    clock.advance(3 * 3600)
    terms = InvoicingTerms(seller=SELLER)
    services = services_on(engine)
    services = type(services)(**{**vars(services), "invoicing": Invoicing(engine, HASH, clock, terms)})
    async with client_of(services, **HEADERS) as admin:
        houses = [await house(admin, name) for name in ("acme", "bolt")]
        for each in houses:
            body = {"org": each["org"], "environment": each["env"], "name": "admin", "role": "admin"}
            each["token"] = (await admin.post("/admin/keys", json=body)).json()["key"]
        acme, bolt = houses
        org_id = acme["org"]
        await put_rows(
            engine,
            charges=[charge_row(1, MID, 100 * RUPEE, org_id=org_id)],
            grants=[grant_row("g1", 10 * RUPEE, org_id=org_id)],
            draws=[draw_row(1, "g1", 10 * RUPEE, MID, org_id=org_id)],
        )
        yield World(admin, acme, bolt)


async def test_an_invoice_is_closed_issued_read_and_paid(world: World) -> None:
    row = await world.issued()
    assert (row["number"], row["status"], row["total"], row["open"]) == (
        "INV/2026/000001",
        "issued",
        "106.20",
        "106.20",
    )
    assert (row["subtotal"], row["credit"], row["tax"], row["currency"]) == ("100.00", "10.00", "16.20", "INR")
    detail = await world.get(f"{ADMIN}/{row['id']}")
    assert [(line["kind"], line["amount"]) for line in detail["lines"]] == [
        ("usage", "100.00"),
        ("credit", "-10.00"),
        ("tax", "8.10"),
        ("tax", "8.10"),
    ]
    answer = await world.admin.get(f"{ADMIN}/{row['id']}/document")
    assert hashlib.sha256(answer.content).hexdigest() == row["digest"] == answer.headers["digest-sha256"]
    assert json.loads(answer.content)["number"] == row["number"]
    pdf = await world.admin.get(f"{ADMIN}/{row['id']}/pdf")
    assert (pdf.headers["content-type"], pdf.content[:5]) == ("application/pdf", b"%PDF-")
    assert pdf.headers["content-disposition"] == 'inline; filename="INV-2026-000001.pdf"'
    paid = await world.post(f"{ADMIN}/{row['id']}/payments", payment_ref="utr-1", amount="106.20")
    assert (paid["status"], paid["open"], paid["paid"]) == ("paid", "0.00", "106.20")
    assert (
        error_of(await world.admin.post(f"{ADMIN}/{row['id']}/payments", json={"payment_ref": "x", "amount": "0.001"}))[
            0
        ]
        == 400
    )
    actions = [entry["action"] for entry in (await world.get("/admin/audit", action="invoice"))["data"]]
    assert actions == ["invoice.payment", "invoice.issue"]


async def test_lists_are_filtered_and_paged(world: World) -> None:
    row = await world.issued()
    for params in (
        {"org": "bolt"},
        {"status": "void"},
        {"kind": "usage"},
        {"number": "x"},
        {"to": "2026-02-01T00:00:00Z"},
    ):
        assert (await world.get(ADMIN, **params))["data"] == []
    for params in ({"org": "acme"}, {"status": "issued"}, {"number": row["number"]}, {"from": "2026-02-01T00:00:00Z"}):
        assert [each["id"] for each in (await world.get(ADMIN, **params))["data"]] == [row["id"]]
    page = await world.get(ADMIN, limit=1)
    assert page["next_cursor"] == row["id"]
    assert (await world.get(ADMIN, cursor=row["id"]))["data"] == []


async def test_a_preview_says_what_it_would_come_to_and_stores_nothing(world: World) -> None:
    found = await world.get(f"{ADMIN}/preview", org="acme")
    assert (found["number"], found["total"], found["status"]) == (None, "106.20", "draft")
    pdf = await world.admin.get(f"{ADMIN}/preview/pdf", params={"org": "acme"})
    assert pdf.content[:5] == b"%PDF-"
    own = await world.admin.get(f"{OWN}/preview", headers=world.as_member(world.acme))
    assert own.json()["total"] == "106.20"
    assert (await world.get(ADMIN))["data"] == []
    assert (await world.get(f"{ADMIN}/preview", org="bolt"))["total"] == "0.00"


async def test_drafts_wait_where_one_org_is_closed_and_are_the_operators_alone(world: World) -> None:
    (draft,) = (await world.post(f"{ADMIN}/close", org="acme", now=True))["data"]
    assert (draft["status"], draft["number"]) == ("draft", None)
    member = world.as_member(world.acme)
    assert (await world.admin.get(OWN, headers=member)).json()["data"] == []
    assert (await world.admin.get(f"{OWN}/{draft['id']}", headers=member)).status_code == 404
    assert (await world.admin.get(f"{ADMIN}/{draft['id']}/pdf")).status_code == 404
    issued = await world.post(f"{ADMIN}/{draft['id']}/issue")
    assert issued["number"] == (await world.post(f"{ADMIN}/{draft['id']}/issue"))["number"]
    assert (await world.admin.get(f"{OWN}/{draft['id']}", headers=member)).json()["number"] == issued["number"]
    assert error_of(await world.admin.post(f"{ADMIN}/close", json={"now": True}))[0] == 400


async def test_an_org_sees_its_own_invoices_and_nobody_else_s(world: World) -> None:
    row = await world.issued()
    mine, theirs = world.as_member(world.acme), world.as_member(world.bolt)
    assert [each["id"] for each in (await world.admin.get(OWN, headers=mine)).json()["data"]] == [row["id"]]
    assert (await world.admin.get(OWN, headers=theirs)).json()["data"] == []
    unknown = await world.admin.get(f"{OWN}/inv_unknown", headers=theirs)
    for path in ("", "/pdf", "/document", "/credit-notes/cn_1/pdf"):
        assert (await world.admin.get(f"{OWN}/{row['id']}{path}", headers=mine)).status_code in (200, 404)
        foreign = await world.admin.get(f"{OWN}/{row['id']}{path}", headers=theirs)
        assert (foreign.status_code, foreign.json()) == (404, unknown.json())


async def test_void_reissue_and_credit_notes(world: World) -> None:
    row = await world.issued()
    path = f"{ADMIN}/{row['id']}"
    anew = await world.post(f"{path}/reissue", reason="wrong address")
    assert (anew["number"], anew["revision"], anew["root_id"]) == ("INV/2026/000002", 2, row["id"])
    assert (await world.get(path))["status"] == "void"
    path = f"{ADMIN}/{anew['id']}"
    note = await world.post(f"{path}/credit-notes", 201, ref="n1", reason="outage", amount="6.20")
    assert (note["number"], note["total"], note["net"], note["tax"]) == ("CN/2026/000001", "6.20", "5.25", "0.95")
    assert (await world.post(f"{path}/credit-notes", 201, ref="n1", reason="outage", amount="6.20"))["id"] == note["id"]
    over = await world.admin.post(f"{path}/credit-notes", json={"ref": "n2", "reason": "x", "amount": "100.01"})
    assert error_of(over)[0] == 400
    pdf = await world.admin.get(f"{path}/credit-notes/{note['id']}/pdf")
    assert pdf.content[:5] == b"%PDF-"
    assert (await world.get(path))["open"] == "100.00"
    assert error_of(await world.admin.post(f"{path}/void", json={"reason": "no"}))[0] == 409
    assert error_of(await world.admin.post(f"{path}/void", json={"reason": "no", "status": "paid"}))[0] == 400


async def test_a_profile_is_changed_by_the_org_within_what_is_its_own(world: World) -> None:
    mine = world.as_member(world.acme)
    address = {"lines": ["12 Marine Drive"], "city": "Mumbai", "state": "MH", "postal_code": "400002", "country": "IN"}
    body = {"legal_name": "Acme Labs", "address": address, "gstin": GSTIN, "time_zone": "Asia/Kolkata"}
    changed = (await world.admin.patch(PROFILE, json=body, headers=mine)).json()
    assert (changed["gstin"], changed["time_zone"], changed["invoice_day"]) == (GSTIN, "Asia/Kolkata", 1)
    assert (await world.get("/admin/billing-profiles/acme")) == changed
    for wrong in (
        {"grace_days": 300},
        {"tax_exemption": "all of it"},
        {"gstin": "27AAPFU0939F1ZZ"},
        {"gstin": "29AAPFU0939F1ZR"},
        {"time_zone": "Mars/Olympus"},
        {"legal_name": "evil\u202egnp.exe"},
        {"email": "nobody"},
        {"vat_id": "DE123456789"},
    ):
        assert (await world.admin.patch(PROFILE, json=wrong, headers=mine)).status_code == 400, wrong
    terms = {"payment_terms_days": 30, "tax_exemption": "SEZ unit, LUT AD123"}
    assert (await world.admin.patch("/admin/billing-profiles/acme", json=terms)).json()["payment_terms_days"] == 30
    row = await world.issued()
    detail = await world.get(f"{ADMIN}/{row['id']}")
    assert (detail["tax"], detail["total"], detail["due_at"][:10]) == ("0.00", "90.00", "2026-03-03")
    taken = (await world.admin.patch(PROFILE, json={"gstin": None}, headers=mine)).json()
    assert (taken["gstin"], taken["legal_name"]) == (None, "Acme Labs")


async def test_a_gst_invoice_to_a_business_is_an_e_invoice(world: World) -> None:
    row = await world.issued()
    path = f"{ADMIN}/{row['id']}"
    assert error_of(await world.admin.get(f"{path}/einvoice"))[0] == 409  # no GSTIN
    address = {"lines": ["12 Marine Drive"], "city": "Mumbai", "state": "MH", "postal_code": "400002", "country": "IN"}
    await world.admin.patch("/admin/billing-profiles/acme", json={"address": address, "gstin": GSTIN})
    anew = await world.post(f"{path}/reissue", reason="GSTIN")
    found = await world.get(f"{ADMIN}/{anew['id']}/einvoice")
    assert found["DocDtls"] == {"Typ": "INV", "No": "INV/2026/000002", "Dt": "01/02/2026"}
    assert (found["BuyerDtls"]["Gstin"], found["BuyerDtls"]["Pos"], found["SellerDtls"]["Stcd"]) == (GSTIN, "27", "29")
    assert found["ValDtls"] == {"AssVal": 90.0, "CgstVal": 0.0, "SgstVal": 0.0, "IgstVal": 16.2, "TotInvVal": 106.2}
    (item,) = found["ItemList"]
    assert (item["TotAmt"], item["Discount"], item["AssAmt"], item["IgstAmt"]) == (100.0, 10.0, 90.0, 16.2)
    assert item["HsnCd"] == "998315"


@pytest.mark.parametrize("path", ["", "/preview", "/inv_1", "/inv_1/pdf"])
async def test_strangers_see_nothing(world: World, path: str) -> None:
    async with httpx.AsyncClient(transport=world.admin._transport, base_url="http://control") as stranger:
        assert (await stranger.get(f"{ADMIN}{path}")).status_code == 401
        assert (await stranger.get(f"{OWN}{path}")).status_code == 401
