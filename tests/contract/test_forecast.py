"""The capacity forecast over the roll-ups of both databases, by API and by job."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest_asyncio
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.ranking.scaling import ScalingAction, Urgency
from crosslogic.fleet.model import NodeStatus
from crosslogic.insight.forecast.model import ScalingRecommendation
from crosslogic.insight.forecast.service import CapacityPlanner
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.forecast import ForecastJob, Looking, replicas_for
from crosslogic.kernel.clock import ManualClock
from crosslogic.orchestration.model import WHOLE, Deployment, DeploymentId, DeploymentStatus
from crosslogic.orchestration.registry import ModelRegistry
from crosslogic.store.tables import deployments, nodes, notices, usage_hourly
from crosslogic.tenancy import keys
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
        self.clock = ManualClock()
        self.clock.advance((now - self.clock.now()).total_seconds() + 60)
        self.models = ModelRegistry(engine, keys.key_hasher(None), self.clock)

    def job(self, looking: Looking | None) -> ForecastJob:
        return ForecastJob(self.planner, Outbox(self.engine), self.clock, self.models, lambda: looking)

    async def flood(self) -> None:
        """Of yesterday, on nodes that carry a tenth of it."""
        async with self.engine.begin() as conn:
            rows = hourly(LLAMA, np.full(100, 400_000), self.now, org_id="org_3")
            await conn.execute(insert(usage_hourly), rows)

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
    await house.flood()
    job = house.job(Looking(3, scale=False))
    assert await job.round() == 2  # the other model has only what is left of the same nodes
    assert await job.round() == 0
    async with house.engine.connect() as conn:
        rows = (await conn.execute(select(notices).order_by(notices.c.title))).mappings().all()
    assert {(row["kind"], row["org_id"], row["severity"]) for row in rows} == {("capacity_forecast", None, "error")}
    assert LLAMA in rows[1]["title"]


async def test_without_capacity_planning_nobody_is_told(house: House) -> None:
    await house.flood()
    assert await house.job(None).round() == 0
    assert (await house.get("scaling"))["recommendations"]  # whoever asks is answered


async def test_where_it_is_wished_deployments_want_more_replicas_and_never_many_at_once(house: House) -> None:
    await house.models.register(LLAMA, "1")
    made = await house.models.deploy(LLAMA, replicas=2)
    async with house.engine.begin() as conn:
        await conn.execute(deployments.update().values(status=DeploymentStatus.READY.value))
    await house.flood()
    await house.job(Looking(1, scale=False)).round()
    assert (await house.models.deployment(made.id)).replicas == 2
    for expected in (4, 8):
        await house.job(Looking(1, scale=True)).round()
        assert (await house.models.deployment(made.id)).replicas == expected


def advice(action: ScalingAction, target: int) -> ScalingRecommendation:
    return ScalingRecommendation(LLAMA, "eu", action, 4.0, target, Urgency.LOW, "why")


def deployment(replicas: int = 4, share: int = WHOLE, status: DeploymentStatus = DeploymentStatus.READY) -> Deployment:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Deployment(DeploymentId("dep_1"), LLAMA, "1", status, replicas, share, at, at)


def test_replicas_go_down_one_by_one_and_stay_while_a_rollout_decides() -> None:
    up, down, stay = (advice(action, to) for action, to in zip(ScalingAction, (6, 1, 3), strict=True))
    one = deployment()
    assert replicas_for([up], [one]) == (one, 6)
    assert replicas_for([down], [one]) == (one, 3)
    assert replicas_for([stay], [one]) is None  # a node that is missing is on its way
    assert replicas_for([up], [one, deployment()]) is None
    assert replicas_for([up], [deployment(share=500)]) is None
    assert replicas_for([up], [deployment(status=DeploymentStatus.DRAINING)]) is None
    assert replicas_for([down], [deployment(replicas=1)]) is None
