"""Usage for people: CSV and FOCUS that no spreadsheet obeys, single requests, and whether the ledger is as written."""

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.csv_text import csv_text
from crosslogic.kernel.ids import EnvId, OrgId, RequestId
from crosslogic.metering.focus import COLUMNS
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.model import Evidence, Usage
from crosslogic.metering.rollup import Rollups
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from tests.contract.test_api_admin import HEADERS, client_of, services_on
from tests.contract.test_ledger_log import open_triggers
from tests.metering_samples import DAY_US, JANUARY_1_2026_US, usage

PRICES = PriceBook(PriceList((PriceEntry("*", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),)))


async def fill(client: httpx.AsyncClient, engine: AsyncEngine) -> tuple[str, str]:
    """Two orgs with requests; the id of the first and of another's request."""
    org = (await client.post("/admin/orgs", json={"name": "acme"})).json()["id"]
    other = (await client.post("/admin/orgs", json={"name": "beta"})).json()["id"]
    records = [
        usage(
            n,
            request_id=RequestId(f"req_{n:012x}{n:020x}"),
            org_id=OrgId(org),
            env_id=EnvId(f"env_{n % 2}"),
            model="=HYPERLINK(1)" if n % 2 else "model-a",
            timestamp_us=JANUARY_1_2026_US + n * DAY_US,
            client_request_id=f"mine-{n}",
        )
        for n in range(1, 6)
    ]
    foreign = usage(9, request_id=RequestId("req_foreign"), org_id=OrgId(other))
    await Ledger(engine).insert([*records, foreign], PRICES)
    await Rollups(engine).advance()
    return org, foreign.request_id


async def test_csv_has_the_same_numbers_and_no_formulas(engine: AsyncEngine) -> None:
    async with client_of(services_on(engine), **HEADERS) as client:
        await fill(client, engine)
        asked = {"group_by": ["model", "month"]}
        answer = await client.get("/admin/usage/acme", params={**asked, "format": "csv"})
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert "attachment" in answer.headers["content-disposition"]
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        told = (await client.get("/admin/usage/acme", params=asked)).json()["data"]
        assert [row["model"] for row in rows] == ["'=HYPERLINK(1)", "model-a"]
        for row, one in zip(rows, told, strict=True):
            assert row["month"] == "2026-01"
            assert (int(row["requests"]), row["cost_usd"]) == (one["requests"], one["cost_usd"])


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1|cmd", "@SUM(A1)", "\t=1", " =1", "\uff1d1"])
def test_text_that_would_be_a_formula_is_text(text: str) -> None:
    (row,) = list(csv.reader(io.StringIO(csv_text(("a",), [(text,)]), newline="")))[1:]
    assert row == [f"'{text}"]


def test_numbers_and_quotes_stay_what_they_are() -> None:
    rows = [(-5, "-5.25", 'a "quoted", one', None, "a=b")]
    assert list(csv.reader(io.StringIO(csv_text("abcde", rows), newline="")))[1] == [
        "-5", "-5.25", 'a "quoted", one', "", "a=b",
    ]  # fmt: skip


async def test_focus_has_every_column_and_adds_up(engine: AsyncEngine) -> None:
    async with client_of(services_on(engine), **HEADERS) as client:
        org, _ = await fill(client, engine)
        answer = await client.get("/admin/usage/acme", params={"format": "focus"})
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert tuple(rows[0]) == COLUMNS
        assert {row["BillingAccountId"] for row in rows} == {org}
        totals = (await client.get("/admin/usage/acme")).json()["totals"]
        assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(totals["cost_usd"])
        assert sum(int(row["ConsumedQuantity"]) for row in rows) == totals["total_tokens"]
        assert (rows[0]["ChargePeriodStart"], rows[0]["ChargePeriodEnd"], rows[0]["BillingPeriodEnd"]) == (
            "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-02-01T00:00:00Z",
        )  # fmt: skip
        refused = await client.get("/admin/usage/acme", params={"format": "focus", "group_by": "model"})
        assert refused.status_code == 400


async def test_requests_are_found_the_newest_first_with_what_counts_now(engine: AsyncEngine) -> None:
    async with client_of(services_on(engine), **HEADERS) as client:
        org, foreign = await fill(client, engine)
        path = "/admin/usage/acme/requests"
        first = (await client.get(path, params={"limit": 2})).json()
        rest = (await client.get(path, params={"limit": 500, "cursor": first["next_cursor"]})).json()
        assert [row["client_request_id"] for row in first["data"] + rest["data"]] == [
            f"mine-{n}" for n in (5, 4, 3, 2, 1)
        ]
        mine = (await client.get(path, params={"client_request_id": "mine-3"})).json()["data"]
        start = datetime(2026, 1, 4, tzinfo=UTC)
        day = {"from": start.isoformat(), "to": (start + timedelta(days=1)).isoformat()}
        assert (await client.get(path, params=day)).json()["data"] == mine
        request_id = mine[0]["request_id"]
        price = PRICES.price("m", "local")
        corrected = {"evidence": Evidence.ENGINE, "reason": "engine said so", "actor": "op"}
        await Ledger(engine).correct(org, request_id, 1, Usage(10, 5), price, **corrected)  # type: ignore[arg-type]
        found = (await client.get(f"{path}/{request_id}")).json()
        assert (found["completion_tokens"], found["cost_usd"]) == (5, "0.000001000000")
        assert [(one["n"], one["completion_tokens"], one["reason"]) for one in found["corrections"]] == [
            (1, -15, "engine said so")
        ]
        for unknown in (foreign, "req_never"):
            answer = await client.get(f"{path}/{unknown}")
            assert answer.status_code == 404
            assert answer.json()["error"]["message"] == "there is no such request"


async def test_a_ledger_that_somebody_changed_is_told_from_one_that_nobody_did(engine: AsyncEngine) -> None:
    async with client_of(services_on(engine), **HEADERS) as client:
        await fill(client, engine)
        pages = []
        cursor = None
        while True:
            page = (
                await client.get("/admin/ledger/verify", params={"limit": 1} | ({"cursor": cursor} if cursor else {}))
            ).json()
            pages += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sorted((verdict["rows"], verdict["intact"]) for verdict in pages) == [(1, True), (5, True)]
        await open_triggers(engine)
        async with engine.begin() as conn:
            await conn.exec_driver_sql("UPDATE usage_records SET completion_tokens = 1 WHERE seq = 2")
        (verdict,) = (await client.get("/admin/ledger/verify", params={"org": "acme"})).json()["data"]
        assert (verdict["intact"], verdict["wrong_position"], verdict["problem"]) == (
            False, 2, "row 2 is not what was written",
        )  # fmt: skip
