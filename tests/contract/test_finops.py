"""Nodes' hours and their margins on both databases: every moment counted once, however often and by whomever."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.model import BackendKind, Node, NodeStatus
from crosslogic.fleet.rows import node_columns
from crosslogic.insight.finops.model import IDLE
from crosslogic.insight.finops.node_prices import usd_per_hour
from crosslogic.insight.finops.sql import PAGE_NODES, FinopsSql, hour_of
from crosslogic.jobs.finops import FinopsJob
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import NodeId, OrgId, RequestId, first_request_id
from crosslogic.kernel.money import PUSD_PER_USD
from crosslogic.metering.ledger import Ledger
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.store.tables import nodes
from tests.contract.test_api_admin import HEADERS, client_of, services_on
from tests.metering_samples import usage


def node(node_id: str, **changed: Any) -> Node:
    fields: dict[str, Any] = {
        "endpoint_url": "http://127.0.0.1:1",
        "models": ("m",),
        "status": NodeStatus.ACTIVE,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "backend": BackendKind.VLLM,
        "gpu_type": "H100",
    }
    return Node(id=NodeId(node_id), **fields | changed)


class TestPrices:
    def test_a_spot_node_keeps_the_price_that_it_tells(self) -> None:
        assert usd_per_hour(node("n", spot=True, spot_price_usd_per_hour=0.9), {"H100": 3.0}) == 0.9
        assert usd_per_hour(node("n", spot=True), {"H100": 3.0}) == 3.0

    def test_gpus_are_known_by_any_of_their_names_and_count(self) -> None:
        assert usd_per_hour(node("n", gpu_type="NVIDIA-H100", gpu_count=8), {"h100": 2.0}) in (16.0, None)
        assert usd_per_hour(node("n", gpu_count=8), {"h100": 2.0}) == 16.0

    def test_what_nobody_has_said_is_not_guessed(self) -> None:
        assert usd_per_hour(node("n", gpu_type=None), {"H100": 2.0}) is None
        assert usd_per_hour(node("n", gpu_type="X9000"), {"H100": 2.0}) is None


class Site:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.clock = ManualClock()
        self.sql = FinopsSql(engine)
        self.job = FinopsJob(engine, self.clock, {"H100": 3.0})

    async def add(self, *some: Node) -> None:
        async with self.engine.begin() as conn:
            for each in some:
                await conn.execute(insert(nodes).values(node_columns(each)))

    async def used(self, org: str, tokens: int, price_pusd: int) -> None:
        """An answer of node n1, now."""
        at = self.clock.now()
        record = usage(
            0,
            request_id=RequestId(f"{first_request_id(int(at.timestamp() * 1000))}{org}"),
            timestamp_us=int(at.timestamp() * 1_000_000),
            org_id=OrgId(org),
            node_id=NodeId("n1"),
            prompt_tokens=0,
            completion_tokens=tokens,
            cached_tokens=0,
            reasoning_tokens=0,
            plan_price_pusd=price_pusd,
        )
        await Ledger(self.engine).insert([record], PriceBook(PriceList()))

    async def run(self, hours: float, every_s: float = 30.0) -> None:
        for _ in range(round(hours * 3600 / every_s)):
            self.clock.advance(every_s)
            await self.job.round()


@pytest.fixture
def site(engine: AsyncEngine) -> Site:
    return Site(engine)


async def test_hours_add_up_to_the_time_that_a_node_was_up(site: Site) -> None:
    await site.add(node("n1"), node("dead", status=NodeStatus.DEAD))
    await site.job.round()
    await site.run(1.25, every_s=60)
    (margin,) = await site.sql.margins((), start=None, end=None)
    assert margin.gpu_hours == pytest.approx(1.25)
    assert margin.cost_pusd == pytest.approx(1.25 * 3.0 * PUSD_PER_USD, rel=1e-6)
    assert margin.margin_pusd == -margin.cost_pusd


async def test_two_processes_at_once_count_no_moment_twice(site: Site) -> None:
    await site.add(node("n1"))
    await site.job.round()
    other = FinopsJob(site.engine, site.clock, {"H100": 3.0})
    for _ in range(10):
        site.clock.advance(30)
        await asyncio.gather(site.job.round(), other.round())
    (margin,) = await site.sql.margins((), start=None, end=None)
    assert margin.gpu_hours == pytest.approx(300 / 3600)


async def test_a_round_takes_as_few_transactions_for_many_nodes_as_for_one(site: Site) -> None:
    commits = []
    event.listen(site.engine.sync_engine, "commit", commits.append)
    taken = []
    for number in range(60):
        await site.add(node(f"n{number:03d}"))
    for _ in range(3):
        commits.clear()
        await site.run(60 / 3600, every_s=60)
        taken.append(len(commits))
    assert max(taken) <= 5  # nodes' time, and each hour that may still change
    assert taken[-1] == 2  # hours that are as they were are not written again
    (margin,) = await site.sql.margins((), start=None, end=None)
    assert margin.gpu_hours == pytest.approx(60 * 120 / 3600)


async def test_a_fleet_of_more_nodes_than_one_transaction_takes_is_counted_whole(site: Site) -> None:
    many = PAGE_NODES + 3
    await site.add(*(node(f"n{number:04d}") for number in range(many)))
    await site.job.round()
    await site.run(60 / 3600, every_s=60)
    (margin,) = await site.sql.margins((), start=None, end=None)
    assert margin.gpu_hours == pytest.approx(many * 60 / 3600)


async def test_time_for_which_nobody_watched_is_not_made_up(site: Site) -> None:
    await site.add(node("n1"))
    await site.job.round()
    site.clock.advance(7200)
    await site.job.round()
    (margin,) = await site.sql.margins((), start=None, end=None)
    assert margin.gpu_hours == pytest.approx(120 / 3600)


async def test_cost_goes_to_whose_tokens_were_made_and_late_rows_move_it(site: Site) -> None:
    await site.add(node("n1", region="eu"))
    await site.job.round()
    await site.run(0.5, every_s=60)
    await site.used("org_a", tokens=100, price_pusd=7)
    await site.job.round()
    (first,) = await site.sql.margins(["org", "model"], start=None, end=None)
    assert (first.group, first.revenue_pusd) == ({"org": "org_a", "model": "model-a"}, 700)
    await site.used("org_b", tokens=100, price_pusd=1)
    await site.job.round()
    one, two = await site.sql.margins(["org"], start=None, end=None)
    assert one.cost_pusd == pytest.approx(two.cost_pusd, abs=1)
    assert one.cost_pusd + two.cost_pusd == first.cost_pusd


async def test_margins_are_summed_by_what_is_asked_for(site: Site) -> None:
    await site.add(
        node("n1", region="eu"), node("n2", region="us", spot=True, spot_price_usd_per_hour=1.0, gpu_count=4)
    )
    await site.job.round()
    await site.run(0.5, every_s=120)
    by_region = await site.sql.margins(["region"], start=None, end=None)
    assert [each.group["region"] for each in by_region] == ["eu", "us"]
    by_kind = {each.group["spot"]: each for each in await site.sql.margins(["spot"], start=None, end=None)}
    assert by_kind["spot"].cost_per_gpu_hour_pusd == pytest.approx(0.25 * PUSD_PER_USD, rel=1e-6)
    assert by_kind["on-demand"].cost_per_gpu_hour_pusd == pytest.approx(3.0 * PUSD_PER_USD, rel=1e-6)
    assert await site.sql.margins((), start=hour_of(site.clock.now()) + timedelta(hours=1), end=None) == []
    with pytest.raises(InvalidRequest):
        await site.sql.margins(["phase of the moon"], start=None, end=None)


async def test_operators_see_margins_and_what_was_idle(site: Site) -> None:
    await site.add(node("n1"))
    await site.job.round()
    await site.run(0.5, every_s=120)
    async with client_of(services_on(site.engine), **HEADERS) as client:
        (row,) = (await client.get("/admin/finops", params={"group_by": ["model", "org"]})).json()["groups"]
        assert (await client.get("/admin/finops", params={"group_by": "secret"})).status_code == 400
    assert row["group"] == {"model": IDLE, "org": IDLE}
    assert row["cost_usd_per_million_tokens"] is None
    assert float(row["margin_usd"]) == pytest.approx(-1.5, rel=1e-3)
