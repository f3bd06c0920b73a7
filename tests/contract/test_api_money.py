"""Prices, credits, quotes, receipts and estimates over the management API, on both databases."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from tests.contract.test_api_admin import client, client_of, error_of, house, services_on
from tests.money_rig import MoneyRig

__all__ = ["client"]  # a fixture

NOW = ManualClock().now()
TERMS = {"prices": [{"model": "model-*", "input": "0.05", "output": "0.10", "cached": "0.01"}]}


class Tenant:
    """An org, its own client, and what it uses."""

    def __init__(self, engine: AsyncEngine, ids: dict[str, str]) -> None:
        self.id = ids["org"]
        self.rig = MoneyRig(engine, self.id)
        self.own = client_of(services_on(engine), Authorization=f"Bearer {ids['token']}")


@pytest_asyncio.fixture
async def acme(client: httpx.AsyncClient, engine: AsyncEngine) -> Tenant:
    ids = await house(client)
    admin_key = {"org": "acme", "environment": "prod", "name": "boss", "role": "admin"}
    ids["token"] = (await client.post("/admin/keys", json=admin_key)).json()["key"]
    return Tenant(engine, ids)


async def drafted(admin: httpx.AsyncClient, terms: Any = TERMS, **fields: Any) -> dict[str, Any]:
    answer = await admin.post("/admin/prices", json={"terms": terms, **fields})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_prices_are_drafted_changed_published_and_retired(client: httpx.AsyncClient) -> None:
    made = await drafted(client, note="spring")
    assert (made["status"], made["currency"], made["effective_from"]) == ("draft", "USD", None)
    path = f"/admin/prices/{made['id']}"
    dearer = {
        **TERMS,
        "regions": {"in-*": "0.7"},
        "volume": {"counts": "spend", "steps": [{"above": 100, "percent": 10}]},
    }
    changed = (await client.patch(path, json={"terms": dearer})).json()
    assert changed["terms"]["volume"] == {"counts": "spend", "steps": [{"above": "100", "percent": "10"}]}
    later = (NOW + timedelta(days=1)).isoformat()
    published = (await client.post(f"{path}/publish", json={"effective_from": later})).json()
    assert published["status"] == "published"
    assert error_of(await client.patch(path, json={"terms": TERMS}))[0] == 409
    assert error_of(await client.post(f"{path}/retire", json={"retired_from": NOW.isoformat()}))[0] == 400
    assert (await client.post(f"{path}/retire", json={})).json()["retired_from"] == published["effective_from"]
    assert [row["id"] for row in (await client.get("/admin/prices")).json()["data"]] == [made["id"]]
    assert (await client.get("/admin/prices", params={"status": "draft"})).json()["data"] == []
    entries = (await client.get("/admin/audit", params={"action": "price"})).json()["data"]
    assert [entry["action"] for entry in entries] == ["price.retire", "price.publish", "price.change", "price.create"]


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ({"prices": [{"model": "m", "input": "0.0000001"}]}, "no whole number of 1e-12 units"),
        ({"prices": [{"model": "m", "input": "-1"}]}, "greater than or equal to 0"),
        ({"prices": [{"model": "m", "inputs": "1"}]}, "Extra inputs are not permitted"),
        ({"prices": []}, "1 to 1000 prices"),
        ({**TERMS, "batch_percent": "101"}, "less than or equal to 100"),
    ],
)
async def test_prices_that_cannot_be_charged_are_refused_in_words(
    client: httpx.AsyncClient, terms: dict[str, Any], says: str
) -> None:
    answer = await client.post("/admin/prices", json={"terms": terms})
    assert error_of(answer)[0] == 400
    assert says in answer.json()["error"]["message"]


async def test_credits_are_granted_once_listed_in_order_and_voided(client: httpx.AsyncClient, acme: Tenant) -> None:
    body = {"org": "acme", "amount": "10.50", "credit_class": "paid", "source_ref": "pay_1"}
    first, again = await client.post("/admin/credits", json=body), await client.post("/admin/credits", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert error_of(await client.post("/admin/credits", json={**body, "amount": "11"}))[0] == 409
    gift = (await client.post("/admin/credits", json={"org": "acme", "amount": "1"})).json()
    listed = (await client.get("/admin/credits", params={"org": "acme"})).json()["data"]
    assert [row["id"] for row in listed] == [gift["id"], first.json()["id"]]
    voided = (await client.post(f"/admin/credits/{gift['id']}/void")).json()
    assert (voided["voided"], voided["remaining"]) == ("1.00", "0.00")
    own = (await acme.own.get("/api/v1/billing/credits", params={"limit": 1})).json()
    assert ([row["id"] for row in own["data"]], own["next_cursor"]) == ([gift["id"]], gift["id"])
    assert (await acme.own.get("/api/v1/billing/credits", params={"credit_class": "paid"})).json()["data"][0][
        "remaining"
    ] == "10.50"


async def test_a_credit_that_is_asked_for_again_under_the_same_idempotency_key_is_granted_once(
    client: httpx.AsyncClient, acme: Tenant
) -> None:
    body, headers = {"org": "acme", "amount": "25"}, {"Idempotency-Key": "as-agreed"}
    answers = [await client.post("/admin/credits", json=body, headers=headers) for _ in range(2)]
    assert [each.status_code for each in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert error_of(await client.post("/admin/credits", json={**body, "amount": "26"}, headers=headers))[0] == 409


async def test_whoever_brings_an_org_is_thanked_once(client: httpx.AsyncClient, acme: Tenant) -> None:
    await client.post("/admin/orgs", json={"name": "bolt"})
    body = {"referrer": "acme", "referred": "bolt"}
    first = (await client.post("/admin/credits/referrals", json=body)).json()
    assert (first["amount"], first["credit_class"]) == ("5.00", "referral")
    assert (await client.post("/admin/credits/referrals", json=body)).json()["id"] == first["id"]
    assert error_of(await client.post("/admin/credits/referrals", json={**body, "referrer": "bolt"}))[0] == 400


async def test_a_quote_is_what_the_call_will_cost_and_its_receipt_says_why(
    client: httpx.AsyncClient, acme: Tenant
) -> None:
    version = await drafted(client)
    await client.post(f"/admin/prices/{version['id']}/publish", json={})
    await client.post("/admin/credits", json={"org": "acme", "amount": "0.000001"})
    asked = {"model": "model-a", "prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 20, "region": "local"}
    quote = (await acme.own.post("/api/v1/billing/quote", json=asked)).json()
    assert (quote["amount"], quote["from_credits"], quote["due"]) == ("0.00000234", "0.000001", "0.00000134")
    assert [(line["item"], line["quantity"], line["unit_price"]) for line in quote["charge"]["lines"]] == [
        ("input", 6, "0.00000005"),
        ("cached", 4, "0.00000001"),
        ("output", 20, "0.0000001"),
    ]
    assert error_of(await acme.own.post("/api/v1/billing/quote", json={**asked, "cached_tokens": 11}))[0] == 400

    request_id = await acme.rig.use(10, 4, 20)
    path = f"/api/v1/usage/requests/{request_id}/receipt"
    assert error_of(await acme.own.get(path))[0] == 404  # not rated yet
    await acme.rig.rating.round()
    receipt = (await acme.own.get(path)).json()
    assert (receipt["amount"], receipt["from_credits"], receipt["due"]) == ("0.00000234", "0.000001", "0.00000134")
    assert receipt["charges"][0]["lines"] == quote["charge"]["lines"]
    assert receipt["charges"][0]["price_version"] == version["id"]
    assert (await client.get(f"/admin/usage/acme/requests/{request_id}/receipt")).json() == receipt


async def test_receipts_of_others_are_not_to_be_seen(
    client: httpx.AsyncClient, acme: Tenant, engine: AsyncEngine
) -> None:
    await client.post("/admin/orgs", json={"name": "bolt"})
    bolt = MoneyRig(engine, "org_bolt")
    await bolt.put_org()
    request_id = await bolt.use()
    await bolt.rating.round()
    foreign = await acme.own.get(f"/api/v1/usage/requests/{request_id}/receipt")
    unknown = await acme.own.get("/api/v1/usage/requests/req_nobody/receipt")
    assert error_of(foreign) == error_of(unknown)
    assert error_of(foreign)[0] == 404


async def test_an_estimate_goes_on_at_the_pace_of_the_last_days(client: httpx.AsyncClient, acme: Tenant) -> None:
    for day in range(5):
        await acme.rig.use(0, 0, 100, at=NOW - timedelta(days=day))
    await acme.rig.rating.round()
    found = (await acme.own.get("/api/v1/billing/estimate")).json()
    assert (found["today"], found["month_to_date"], found["last_month"]) == ("0.00001", "0.00001", "0.00004")
    assert found["projected_month"] == "0.00032"  # 31 days more, for it is 1 January, 00:00
    assert (await client.get("/admin/billing/estimate/acme")).json() == found
    assert found["reference"] is None


async def test_a_draft_is_compared_with_what_past_usage_did_cost(client: httpx.AsyncClient, acme: Tenant) -> None:
    for model in ("model-a", "model-b"):
        await acme.rig.use(model=model)
    request_id = await acme.rig.use()
    await acme.rig.rating.round()
    await acme.rig.correct(request_id, 0, 0, 20)
    await acme.rig.rating.round()
    draft = await drafted(client, {"prices": [{"model": "model-a", "input": "0.10", "output": "0.10"}]})
    period = {"from": NOW.isoformat(), "to": (NOW + timedelta(days=1)).isoformat()}
    found = (await client.post(f"/admin/prices/{draft['id']}/compare", json=period)).json()
    assert found["totals"] == {"USD": {"requests": 3, "before": "0.000007", "after": "0.0000075"}}
    assert found["by_model"]["model-b USD"] == {"requests": 1, "before": "0.0000025", "after": "0.0000025"}
    assert (found["changed"], found["whole"], len(found["largest"])) == (1, True, 1)
    assert error_of(await client.post(f"/admin/prices/{draft['id']}/compare", json={**period, "to": period["from"]}))


async def test_an_account_says_on_which_terms_an_org_buys(client: httpx.AsyncClient, acme: Tenant) -> None:
    path = "/admin/billing/accounts/acme"
    assert (await client.get(path)).json()["currency"] == "USD"
    body = {"currency": "INR", "commitment": {"amount_per_month": "1000", "starts_at": NOW.isoformat()}}
    assert error_of(await client.put(path, json=body))[0] == 400
    rate = {"currency": "INR", "rate": "88.125", "source": "reference rate of the day"}
    assert (await client.post("/admin/exchange-rates", json=rate)).json()["rate"] == "88.125"
    assert (await client.get("/admin/exchange-rates", params={"currency": "INR"})).json()["data"][0]["rate"] == "88.125"
    assert (await client.put(path, json=body)).json()["commitment"]["amount_per_month"] == "1000.00"
    await acme.rig.use()
    await acme.rig.rating.round()
    assert (await acme.rig.charges())[0].currency == "INR"
    assert error_of(await client.put(path, json={}))[0] == 409
    assert (await client.post(f"{path}/rebuild")).json() == {"org_id": acme.id, "rows": 1, "wrong_seq": None}
