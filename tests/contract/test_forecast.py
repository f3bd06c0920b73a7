"""The capacity forecast over the roll-ups of both databases, by API and by job."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest_asyncio
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.model import NodeStatus
from crosslogic.insight.forecast.service import CapacityPlanner
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.forecast import ForecastJob
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.tables import nodes, notices, usage_hourly
from tests.contract.test_api_admin import HEADERS, client_of, error_of, services_on
from tests.unit.test_forecast import trace

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
BASE = "/admin/forecast"


def hourly(model: str, counts: Any, until: datetime, **fields: Any) -> list[dict[str, Any]]:
    """Rows of the roll-ups: an hour each, up to `until`."""
    usual = {"org_id": "org_1", "env_id": "e", "key_id": "k", "region": "eu", "endpoint": "chat/completions"}
    rows = []
    for back, count in enumerate(reversed(list(counts)), 1):
        requests = int(count)
        if not requests:
            continue
        rows.append(
            {
                **usual,
                "model": model,
                "outcome": "completed",
                "at": until - back * timedelta(hours=1),
                "requests": requests,
                "prompt_tokens": requests * 512,
                "completion_tokens": requests * 256,
                "cached_tokens": 0,
                "reasoning_tokens": 0,
                "total_tokens": requests * 768,
                "cost_pusd": 0,
                **fields,
            }
        )
    return rows


class House:
    def __init__(self, engine: AsyncEngine, client: httpx.AsyncClient, planner: CapacityPlanner, now: datetime) -> None:
        self.engine, self.client, self.planner, self.now = engine, client, planner, now

    async def get(self, what: str, **query: Any) -> Any:
        answer = await self.client.get(f"{BASE}/{what}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest_asyncio.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    clock = ManualClock()
    clock.advance(40 * 86_400)
    services = services_on(engine)
    planner = CapacityPlanner(engine, services.planning, clock, {"H100": 2.5}, 1000.0)
    now = clock.now().replace(minute=0, second=0, microsecond=0)
    async with client_of(replace(services, forecast=planner), **HEADERS) as client:
        for number in range(2):
            body = {
                "endpoint_url": f"http://10.0.0.{number}:80",
                "models": [LLAMA, "in-house"],
                "region": "eu",
                "node_id": f"n{number}",
                "gpu_type": "H100",
            }
            assert (await client.post("/admin/nodes/register", json=body)).is_success
        async with engine.begin() as conn:
            await conn.execute(nodes.update().values(status=NodeStatus.ACTIVE.value))
            real = trace()["m-small"] / 25  # a real course, at the size of a few nodes
            rows = hourly(LLAMA, real, now)
            rows += hourly(LLAMA, np.full(100, 10), now, org_id="org_2")
            rows += hourly("in-house", np.full(100, 20), now)
            await conn.execute(insert(usage_hourly), rows)
        yield House(engine, client, planner, now)


async def test_the_next_days_take_so_many_nodes_of_this_kind(house: House) -> None:
    found = await house.get("capacity", days=3, hours=True)
    assert datetime.fromisoformat(found["start"]) == house.now
    needs = {each["model"]: each for each in found["needs"]}
    llama, other = needs[LLAMA], needs["in-house"]
    assert len(llama["hours"]) == 72
    assert llama["history_hours"] == 336
    assert llama["requests"]["low"] < llama["requests"]["value"] < llama["requests"]["high"]
    assert llama["supply"]["kind"] == {"gpu_type": "h100_sxm", "gpu_count": 1}
    assert llama["supply"]["basis"].startswith("the planner: ")
    assert llama["supply"]["usd_per_hour"] == 2.5
    assert llama["supply"]["nodes"] + other["supply"]["nodes"] == 2.0
    assert "tokens_per_s_per_gpu" in other["supply"]["basis"]
    busiest = max(hour["requests"]["high"] for hour in llama["hours"]) / 3600 * 1.33
    assert llama["nodes"] == -(-busiest // llama["supply"]["per_node"])
    assert found["required_gpus"] == llama["gpus"] + other["gpus"]
    assert found["confidence"] == 0.9
    only = await house.get("capacity", model="in-house")
    assert [each["model"] for each in only["needs"]] == ["in-house"]
    assert "hours" not in only["needs"][0]
    assert (await house.get("capacity", region="us"))["needs"] == []


async def test_scaling_and_allocation_say_what_to_do_and_what_it_costs(house: House) -> None:
    rows = {each["model"]: each for each in (await house.get("scaling"))["recommendations"]}
    assert rows[LLAMA]["action"] in ("scale_up", "scale_down", "maintain")
    assert "requests/s" in rows[LLAMA]["reason"]
    found = await house.get("allocation")
    placements = {each["model"]: each for each in found["placements"]}
    assert placements[LLAMA]["kind"]["gpu_type"]
    assert placements[LLAMA]["usd_per_month"] > 0
    assert "USD a month" in placements[LLAMA]["sentence"]
    assert placements["in-house"]["kind"] is None
    assert found["usd_per_month"] > 0


async def test_nonsense_is_refused(house: House) -> None:
    for query in ("days=0", "days=99", "ttft_p95_ms=-1", "itl_p95_ms=nan", "days=x"):
        assert error_of(await house.client.get(f"{BASE}/capacity?{query}"))[0] == 400


async def test_operators_are_told_once_when_nodes_will_be_too_few(house: House) -> None:
    """A flood of yesterday, on nodes that carry a tenth of it."""
    async with house.engine.begin() as conn:
        flood = hourly(LLAMA, np.full(100, 400_000), house.now, org_id="org_3")
        await conn.execute(insert(usage_hourly), flood)
    clock = ManualClock()
    clock.advance((house.now - clock.now()).total_seconds() + 60)
    job = ForecastJob(house.planner, Outbox(house.engine), clock)
    assert await job.round() == 2  # the other model has only what is left of the same nodes
    assert await job.round() == 0
    async with house.engine.connect() as conn:
        rows = (await conn.execute(select(notices).order_by(notices.c.title))).mappings().all()
    assert {(row["kind"], row["org_id"], row["severity"]) for row in rows} == {("capacity_forecast", None, "error")}
    assert LLAMA in rows[1]["title"]
