"""`/admin/usage/{org}`: sums by group and in total, and what is refused."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store.tables import usage_records
from tests.contract.test_api_admin import client, error_of, house
from tests.contract.test_store_tables import usage_row

__all__ = ["client"]  # the fixture


async def test_usage_is_summed_by_group_and_in_total(client: httpx.AsyncClient, engine: AsyncEngine) -> None:
    made = await house(client)
    day = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        usage_row("r1", org_id=made["org"], model="a", timestamp=day, cost_pusd=10**37),
        usage_row("r2", org_id=made["org"], model="a", timestamp=day + timedelta(hours=23)),
        usage_row("r3", org_id=made["org"], model="b", timestamp=day + timedelta(days=1), cost_pusd=500_000),
        usage_row("r4", org_id="org_other", model="a", timestamp=day),
    ]
    async with engine.begin() as conn:
        await conn.execute(insert(usage_records), rows)
    path = f"/admin/usage/{made['org']}"
    summed = (await client.get(path, params={"group_by": ["model", "day"]})).json()
    assert [(row["group"], row["requests"]) for row in summed["data"]] == [
        ({"model": "a", "day": "2026-03-01"}, 2),
        ({"model": "b", "day": "2026-03-02"}, 1),
    ]
    assert summed["totals"] == {
        "group": {},
        "requests": 3,
        "prompt_tokens": 30,
        "completion_tokens": 15,
        "cached_tokens": 6,
        "reasoning_tokens": 0,
        "total_tokens": 45,
        "cost_usd": "10000000000000000000000000.000001250000",
        "cost_microdollars": 10**31 + 1,
    }
    window = {"from": "2026-03-01T01:00:00Z", "to": "2026-03-02"}
    assert (await client.get(path, params=window)).json()["totals"]["requests"] == 1
    nothing = (await client.get(path, params={"from": "2030-01-01"})).json()
    assert (nothing["totals"]["requests"], nothing["totals"]["cost_usd"]) == (0, "0.000000000000")


@pytest.mark.parametrize("query", ["group_by=prompt", "from=yesterday", "from=2026-02-01&to=2026-01-01"])
async def test_a_question_about_usage_that_makes_no_sense_is_refused(client: httpx.AsyncClient, query: str) -> None:
    await house(client)
    assert error_of(await client.get(f"/admin/usage/acme?{query}"))[0] == 400


async def test_more_groups_than_an_answer_holds_are_refused_not_cut(
    client: httpx.AsyncClient, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crosslogic.api.usage.MAX_GROUPS", 1)
    made = await house(client)
    async with engine.begin() as conn:
        rows = [usage_row(f"r{n}", org_id=made["org"], model=f"m{n}") for n in range(2)]
        await conn.execute(insert(usage_records), rows)
    answer = await client.get("/admin/usage/acme?group_by=model")
    assert error_of(answer) == (400, "invalid_request_error", "invalid_request", "group_by")
