"""Verdicts on both databases: out of agents' reports and the ledger, into the nodes that gateways see."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet import beats_sql
from crosslogic.fleet.health import HealthRules
from crosslogic.fleet.model import Node, NodeHealth, NodeStatus, Symptom, Verdict
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.fleet.sql import NODE_CHANGED
from crosslogic.jobs.node_health import NodeHealthJob
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import NodeId, first_request_id
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.model import Outcome
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.store.tables import changes, node_health
from tests.metering_samples import usage

START = datetime(2026, 3, 1, tzinfo=UTC)
MODEL = "llama"
COOL = {"gpus": [{"temperature_c": 60.0}], "oom_events": 0, "vram_fragmentation_ratio": None}


class World:
    """A fleet with its ledger, agents and judge, on one clock."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.clock = ManualClock(START)
        self.registry = Registry(engine, self.clock)
        self.job = NodeHealthJob(engine, self.registry, self.clock, HealthRules())
        self._requests = 0

    async def nodes(self, count: int) -> list[Node]:
        return [
            await self.registry.register(Registration(f"http://10.0.0.1:{8000 + number}", (MODEL,)))
            for number in range(count)
        ]

    async def requests(self, count: int, node: Node, first_token_ms: int = 50, **more: Any) -> None:
        records = []
        for _ in range(count):
            self._requests += 1
            request_id = f"{first_request_id(int(self.clock.now().timestamp() * 1000))}{self._requests:020x}"
            more |= {"model": MODEL, "node_id": node.id, "first_token_ms": first_token_ms}
            records.append(usage(1, request_id=request_id, **more))
        await Ledger(self.engine).insert(records, PriceBook(PriceList()))

    async def report(self, node: Node, **metrics: Any) -> None:
        async with self.engine.begin() as conn:
            report = {"facts": {}, "metrics": {**COOL, "engine": {"x": 1.0}, **metrics}}
            await beats_sql.write_reports(conn, {node.id: report}, self.clock.now())

    async def health(self, node: Node) -> NodeHealth:
        return (await self.registry.node(node.id)).health

    async def judge(self, seconds: float = 5.0) -> None:
        self.clock.advance(seconds)
        await self.job.round()

    async def announced(self) -> int:
        async with self.engine.connect() as conn:
            query = select(func.count()).select_from(changes).where(changes.c.kind == NODE_CHANGED)
            return int((await conn.execute(query)).scalar_one())


@pytest.fixture
def world(engine: AsyncEngine) -> World:
    return World(engine)


async def test_a_hot_node_is_degraded_then_ejected_then_tried_and_back(world: World) -> None:
    hot, cool = await world.nodes(2)
    await world.report(cool)
    for expected in (Verdict.DEGRADED, Verdict.DEGRADED, Verdict.DEGRADED, Verdict.UNHEALTHY):
        await world.report(hot, gpus=[{"temperature_c": 70.0}, {"temperature_c": 93.0}])
        await world.judge()
        assert (await world.health(hot)).verdict is expected
    health = await world.health(hot)
    assert (health.symptom, health.detail, health.ejected) == (Symptom.TEMPERATURE, "93 °C, limit 90", True)
    assert await world.health(cool) == NodeHealth()
    for seconds, symptom in ((30, Symptom.RECOVERING), (30, None)):
        world.clock.advance(seconds)
        await world.report(hot)
        await world.judge(0)
        assert (await world.health(hot)).symptom is symptom


async def test_memory_that_is_in_pieces_or_used_up_is_seen(world: World) -> None:
    pieces, used_up, well = await world.nodes(3)
    for ooms in (0, 3):
        await world.report(pieces, vram_fragmentation_ratio=0.81)
        await world.report(used_up, oom_events=ooms)
        await world.report(well, vram_fragmentation_ratio=0.79, oom_events=2)
        await world.judge()
    assert (await world.health(pieces)).symptom is Symptom.VRAM_FRAGMENTATION
    assert (await world.health(used_up)).symptom is Symptom.OOM
    assert await world.health(well) == NodeHealth()


async def test_a_node_whose_cloud_recommends_to_leave_gets_less_and_is_never_ejected(world: World) -> None:
    leaving, staying = await world.nodes(2)
    for _ in range(6):  # far longer than it takes to be ejected
        await world.report(leaving, rebalance_recommended=True)
        await world.report(staying, rebalance_recommended=False)
        await world.judge()
        health = await world.health(leaving)
        assert (health.verdict, health.symptom, health.ejected) == (Verdict.DEGRADED, Symptom.AT_RISK, False)
        assert await world.health(staying) == NodeHealth()
    assert (await world.registry.node(leaving.id)).status is NodeStatus.ACTIVE
    await world.report(leaving, rebalance_recommended=True, gpus=[{"temperature_c": 99.0}])
    await world.judge()
    assert (await world.health(leaving)).symptom is Symptom.TEMPERATURE  # what it suffers from counts for more
    await world.report(leaving)  # it came back on another machine
    await world.judge(30)
    assert (await world.health(leaving)).symptom is not Symptom.AT_RISK


async def test_a_report_that_is_old_says_nothing(world: World) -> None:
    hot, _ = await world.nodes(2)
    await world.report(hot, gpus=[{"temperature_c": 99.0}])
    await world.judge(61)
    assert await world.health(hot) == NodeHealth()


async def test_failures_are_the_nodes_whose_they_are(world: World) -> None:
    bad, good = await world.nodes(2)
    await world.requests(6, bad, outcome=Outcome.TRUNCATED)
    await world.requests(6, good, failed_nodes=(bad.id,))  # saved by the other one
    await world.requests(5, good, outcome=Outcome.REFUSED)
    await world.requests(5, good, outcome=Outcome.CLIENT_CLOSED)
    await world.judge()
    health = await world.health(bad)
    assert (health.symptom, health.detail) == (Symptom.ERRORS, "12 of 12 requests failed")
    assert await world.health(good) == NodeHealth()


async def test_latency_counts_against_what_is_usual_and_without_what_other_nodes_took(world: World) -> None:
    slow, good = await world.nodes(2)
    for first_token_ms, verdict in ((50, Verdict.HEALTHY), (400, Verdict.DEGRADED)):
        await world.requests(15, slow, first_token_ms)
        await world.requests(15, good)
        await world.requests(15, good, 9_000, failed_nodes=("node_elsewhere",))
        await world.judge(30)
        assert (await world.health(slow)).verdict is verdict
        assert await world.health(good) == NodeHealth()
        world.clock.advance(31)


async def test_what_was_before_an_ejection_is_not_held_against_a_node_that_is_back(world: World) -> None:
    bad, good = await world.nodes(2)
    await world.requests(10, bad, outcome=Outcome.UPSTREAM_ERROR)
    for _ in range(4):
        await world.judge()
    assert (await world.health(bad)).ejected
    await world.judge(30)
    assert (await world.health(bad)).symptom is Symptom.RECOVERING
    world.clock.advance(1)
    await world.requests(10, bad)
    await world.requests(10, good)
    for _ in range(3):
        await world.judge(2)
        assert await world.health(bad) == NodeHealth()


async def test_the_last_node_is_kept_whatever_is_wrong_with_it(world: World) -> None:
    (only,) = await world.nodes(1)
    for _ in range(6):
        await world.requests(10, only, outcome=Outcome.TIMEOUT)
        await world.judge()
    health = await world.health(only)
    assert (health.verdict, health.ejected) == (Verdict.UNHEALTHY, False)


async def test_a_control_process_that_takes_over_knows_all_that_the_one_before_knew(world: World) -> None:
    bad, _ = await world.nodes(2)
    await world.requests(10, bad, outcome=Outcome.UPSTREAM_ERROR)
    for _ in range(4):
        await world.judge()
        world.job = NodeHealthJob(world.engine, Registry(world.engine, world.clock), world.clock, HealthRules())
    assert (await world.health(bad)).ejected
    await world.judge(29)
    assert (await world.health(bad)).ejected
    await world.judge(1)
    assert (await world.health(bad)).symptom is Symptom.RECOVERING


async def test_two_at_once_do_the_same_and_gateways_hear_of_changes_only(world: World) -> None:
    bad, _ = await world.nodes(2)
    await world.judge()
    before = await world.announced()
    await world.requests(10, bad, outcome=Outcome.UPSTREAM_ERROR)
    world.clock.advance(1)
    await asyncio.gather(*(world.job.round() for _ in range(3)))
    assert (await world.health(bad)).verdict is Verdict.DEGRADED
    assert await world.announced() == before + 1
    await world.requests(10, bad, outcome=Outcome.UPSTREAM_ERROR)
    await world.judge()
    assert await world.announced() == before + 1


async def test_what_is_remembered_of_a_node_goes_with_it(world: World) -> None:
    bad, _ = await world.nodes(2)
    await world.requests(10, bad, outcome=Outcome.UPSTREAM_ERROR)
    await world.judge()
    await world.registry.deregister(bad.id)
    await world.judge()
    async with world.engine.connect() as conn:
        assert bad.id not in [NodeId(one) for one in (await conn.execute(select(node_health.c.node_id))).scalars()]


async def test_a_node_that_registers_again_is_not_made_well_by_that(world: World) -> None:
    bad, _ = await world.nodes(2)
    await world.requests(10, bad, outcome=Outcome.UPSTREAM_ERROR)
    await world.judge()
    await world.registry.register(Registration(bad.endpoint_url, (MODEL,)))
    assert (await world.health(bad)).verdict is Verdict.DEGRADED
