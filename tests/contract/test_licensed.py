"""Bounds of licences: operators are told of them; beyond grace the site cannot grow, and serves on."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.exports.licence import Licence, Stage, Used, bounds, worst
from crosslogic.billing.exports.licensed import LicensedSite
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.licence import LicenceJob
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.engine import reading
from crosslogic.store.tables import notices, usage_daily
from tests.contract.test_api_admin import HEADERS, client_of, error_of, services_on

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2026, 6, 1, tzinfo=UTC)
LICENCE = Licence("lic_1", "A Bank", START, END, nodes=10, tokens_per_month=1000)


@pytest.mark.parametrize(
    ("used", "at", "stages"),
    [
        (Used(10, 799), START, ["within", "within", "within"]),
        (Used(10, 800), END - timedelta(days=29), ["warned", "within", "warned"]),
        (Used(11, 1001), END, ["in_grace", "in_grace", "in_grace"]),
        (Used(12, 1100), END + timedelta(days=13), ["in_grace", "exceeded", "in_grace"]),
        (Used(0, 1101), END + timedelta(days=14), ["exceeded", "within", "exceeded"]),
    ],
)
def test_each_bound_has_its_stages(used: Used, at: datetime, stages: list[str]) -> None:
    found = bounds(LICENCE, used, at)
    assert [each.stage.value for each in found] == stages
    assert worst(found) in {each.stage for each in found}


def test_one_node_more_is_grace_however_few_there_are_and_what_is_not_bounded_is_not_told() -> None:
    found = bounds(Licence("l", "x", START, END, nodes=1), Used(2, 10**12), START)
    assert [(each.name, each.stage.value) for each in found] == [("term", "within"), ("nodes", "in_grace")]
    assert worst([]) is Stage.WITHIN


async def use(engine: AsyncEngine, at: datetime, tokens: int) -> None:
    names = ("env_id", "key_id", "model", "region", "endpoint", "outcome")
    sums = dict.fromkeys(("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens"), 0)
    row = {"org_id": "org_1", "at": at, **dict.fromkeys(names, "x"), **sums, "total_tokens": tokens, "cost_pusd": 0}
    async with engine.begin() as conn:
        await conn.execute(insert(usage_daily).values(row))


async def test_a_site_is_told_then_kept_from_growing_and_serves_on(engine: AsyncEngine) -> None:
    clock = ManualClock()
    licence = Licence("lic_1", "A Bank", START, END, nodes=1, tokens_per_month=1000)
    site = LicensedSite(engine, licence, clock)
    job = LicenceJob(site, Outbox(engine), clock)
    assert await job.round() == 0
    await use(engine, START - timedelta(days=1), 10**9)  # of the month before
    await use(engine, START, 900)
    assert [await job.round() for _ in range(2)] == [1, 0]
    registry = Registry(engine, clock)
    for n in range(3):
        await registry.register(Registration(endpoint_url=f"http://10.0.0.{n + 1}:8000", models=("m",)))
    services = dataclasses.replace(services_on(engine), licensed=site)
    async with client_of(services, **HEADERS) as admin:
        assert await job.round() == 1
        shown = (await admin.get("/admin/licence")).json()
        assert (shown["licensee"], shown["stage"]) == ("A Bank", "exceeded")
        assert [(each["name"], each["stage"]) for each in shown["bounds"]] == [
            ("term", "within"), ("nodes", "exceeded"), ("tokens_per_month", "warned"),
        ]  # fmt: skip
        refused = await admin.post("/admin/orgs", json={"name": "acme"})
        assert (refused.status_code, error_of(refused)[2]) == (403, "licence_exceeded")
        for node in await registry.nodes():
            await registry.deregister(node.id)
        assert (await admin.post("/admin/orgs", json={"name": "acme"})).status_code == 201
    async with reading(engine) as conn:
        titles = list((await conn.execute(select(notices.c.title).where(notices.c.org_id.is_(None)))).scalars())
    assert sorted(titles) == [
        "Licence: nodes is exceeded: no new organisations and nodes", "Licence: tokens per month is nearly used up",
    ]  # fmt: skip


async def test_a_site_without_a_licence_has_no_bounds(engine: AsyncEngine) -> None:
    async with client_of(services_on(engine), **HEADERS) as admin:
        assert (await admin.get("/admin/licence")).status_code == 409
        assert (await admin.post("/admin/orgs", json={"name": "acme"})).status_code == 201
