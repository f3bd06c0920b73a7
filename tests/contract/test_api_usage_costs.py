"""What all orgs used, and what was dropped, over the management API and the command line."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.ids import OrgId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.rollup import Rollups
from tests.contract.test_api_admin import HEADERS, client_of, services_on
from tests.contract.test_ledger_log import PRICES
from tests.contract.test_usage_retention import JANUARY, MAY, of, retention


async def test_costs_of_all_orgs_come_by_org_in_pages(engine: AsyncEngine) -> None:
    await Ledger(engine).insert([of(JANUARY, n, org_id=OrgId(f"org_{n % 3}")) for n in range(9)], PRICES)
    async with client_of(services_on(engine), **HEADERS) as client:
        period = {"from": "2026-01-01", "to": "2026-02-01"}
        whole = (await client.get("/admin/usage", params=period)).json()["data"]
        assert [(row["org_id"], row["total_requests"], row["total_tokens"]) for row in whole] == [
            (f"org_{n}", 3, 90) for n in range(3)
        ]
        assert whole[0]["cost_usd"] == "0.000007020000"
        first = (await client.get("/admin/usage", params={**period, "limit": 2})).json()
        rest = (await client.get("/admin/usage", params={**period, "limit": 2, "cursor": first["next_cursor"]})).json()
        assert first["data"] + rest["data"] == whole
        assert rest["next_cursor"] is None
        later = (await client.get("/admin/usage", params={"from": "2026-02-01", "to": "2026-03-01"})).json()
        assert later["data"] == []
        assert (await client.get("/admin/usage", params={"from": "2026-03-01", "to": "2026-03-01"})).status_code == 400


async def test_operators_see_what_was_dropped_what_waits_and_what_came_too_late(engine: AsyncEngine) -> None:
    ledger = Ledger(engine)
    records = [of(JANUARY + timedelta(hours=n), n) for n in range(4)]
    await ledger.insert(records, PRICES)
    await Rollups(engine).advance()
    await retention(engine, MAY).round()
    await ledger.insert(records[:1], PRICES)
    async with client_of(services_on(engine), **HEADERS) as client:
        kept = (await client.get("/admin/ledger/retention")).json()
        assert kept["retention_months"] == 2
        (drop,) = (await client.get("/admin/ledger/drops")).json()["data"]
        assert (drop["rows"], drop["logs"], drop["before"][:10]) == (4, 1, "2026-03-01")
        assert (await client.get("/admin/ledger/drops", params={"cursor": "2026-03"})).json()["data"] == []
        assert (await client.get("/admin/ledger/drops", params={"cursor": "x"})).status_code == 400
        (late,) = (await client.get("/admin/ledger/too-late")).json()["data"]
        assert (late["request_id"], late["row"]["prompt_tokens"]) == (records[0].request_id, 10)
        assert (await client.get("/admin/ledger/waiting")).json()["data"] == []
        (verdict,) = (await client.get("/admin/ledger/verify")).json()["data"]
        assert (verdict["intact"], verdict["rows"], verdict["dropped"]) == (True, 4, 4)
