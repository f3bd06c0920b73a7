"""Anomalies on both databases: from the ledger to an episode, a notice and the channels that are to hear of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.anomalies.model import WINDOW, AnomalyType, Watching
from crosslogic.insight.anomalies.sql import AnomaliesSql
from crosslogic.insight.forecast.service import CapacityPlanner
from crosslogic.insight.notices.channels import ChannelService
from crosslogic.insight.notices.model import ChannelKind, Notice, NoticeKind
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.anomalies import AnomaliesJob
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import first_request_id
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.model import Evidence, Outcome
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.store.tables import notice_deliveries, service_windows, usage_hourly
from crosslogic.tenancy import keys
from tests.contract.test_api_admin import HEADERS, client_of, services_on
from tests.contract.test_forecast import hourly
from tests.metering_samples import usage
from tests.unit.test_forecast import trace

START = datetime(2026, 3, 16, 0, 2, tzinfo=UTC)
MODEL = "llama"


class Site:
    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.clock = ManualClock(START)
        self.watching: Watching | None = Watching()
        self.planner = CapacityPlanner(engine, services_on(engine).planning, self.clock, {}, 1000.0)
        self.job = AnomaliesJob(engine, self.planner, self.clock, lambda: self.watching)
        self.outbox = Outbox(engine)
        self._requests = 0

    async def serve(self, count: int, first_token_ms: int = 200, failed: int = 0, **changed: Any) -> None:
        """Now, so many requests, the first `failed` of them in vain."""
        records = []
        for number in range(count):
            self._requests += 1
            at_ms = int(self.clock.now().timestamp() * 1000)
            fields = {
                "request_id": f"{first_request_id(at_ms)}{self._requests:020x}",
                "timestamp_us": at_ms * 1000,
                "endpoint": "chat/completions",
                "model": MODEL,
                "region": "eu",
                "first_token_ms": first_token_ms,
                "latency_ms": first_token_ms + 19 * 20,
                "outcome": Outcome.UPSTREAM_ERROR if number < failed else Outcome.COMPLETED,
            }
            records.append(usage(1, **fields | changed))
        await Ledger(self.engine).insert(records, PriceBook(PriceList()))

    async def past(self, days: float = 1.0) -> None:
        """Windows as they were judged before."""
        first = datetime(2026, 3, 16, tzinfo=UTC) - timedelta(days=days)
        row = {"model": MODEL, "region": "eu", "requests": 50, "failed": 0, "answered": 50, "odd": 1}
        rows = [
            row | {"at": first + number * WINDOW, "first_token_ms": 190.0 + number % 7, "token_ms": 20.0}
            for number in range(int(timedelta(days=days) / WINDOW))
        ]
        async with self.engine.begin() as conn:
            await conn.execute(insert(service_windows), rows)

    async def look(self) -> int:
        """Ten minutes later."""
        self.clock.advance(WINDOW.total_seconds())
        return await self.job.round()

    async def notices(self) -> list[Notice]:
        return await self.outbox.raised(None, kind=NoticeKind.ANOMALY, after=None, limit=50)


@pytest.fixture
def site(engine: AsyncEngine) -> Site:
    return Site(engine)


async def test_a_slow_hour_is_one_episode_with_one_notice_and_ends(site: Site) -> None:
    await site.past()
    for slow in (0, 1, 1, 0, 1, 0, 0, 0, 0):
        await site.serve(30, first_token_ms=2000 if slow else 200)
        await site.look()
        await site.job.round()  # the same window again
    (notice,) = await site.notices()
    assert notice.org_id is None
    assert notice.title == "llama in eu is slower than usual"
    (episode,) = await AnomaliesSql(site.engine).page(kind=None, since=None, until=None, after=None, limit=9)
    assert episode.kind is AnomalyType.LATENCY_SPIKE
    assert episode.ended_at is not None
    assert (episode.started_at, episode.ended_at) == (START.replace(minute=10), START.replace(minute=50))


async def test_failures_and_empty_answers_are_seen_and_cached_answers_are_not_counted(site: Site) -> None:
    await site.past()
    await site.serve(100, failed=50)
    await site.look()
    await site.serve(60, completion_tokens=0)
    await site.serve(500, evidence=Evidence.CACHED, first_token_ms=1)
    await site.look()
    assert [each.facts["type"] for each in await site.notices()] == ["quality_drop", "error_rate_high"]


async def test_two_processes_that_judge_the_same_window_tell_it_once(site: Site) -> None:
    await site.past()
    await site.serve(100, failed=50)
    other = AnomaliesJob(site.engine, site.planner, site.clock, lambda: site.watching)
    site.clock.advance(WINDOW.total_seconds())
    assert await site.job.round() + await other.round() == 1
    assert len(await site.notices()) == 1


async def test_switched_off_nothing_is_looked_at_and_switched_on_it_begins_with_the_present(site: Site) -> None:
    site.watching = None
    await site.serve(100, failed=50)
    assert await site.look() == 0
    async with site.engine.connect() as conn:
        assert (await conn.execute(select(func.count()).select_from(service_windows))).scalar_one() == 0
    site.watching = Watching()
    await site.serve(100, failed=50)
    assert await site.look() == 1


async def test_after_a_pause_only_the_last_hour_is_looked_at(site: Site) -> None:
    await site.serve(30)
    await site.look()
    await site.serve(100, failed=90)
    site.clock.advance(7200)
    assert await site.look() == 0


async def test_only_the_chosen_kinds_of_channels_hear_of_it(site: Site) -> None:
    channels = ChannelService(site.engine, keys.key_hasher(None), site.clock, private=True)
    await channels.add(None, "slack", ChannelKind.SLACK, "http://127.0.0.1:9/slack")
    pager = await channels.add(None, "pager", ChannelKind.PAGERDUTY, "0" * 32)
    site.watching = Watching(channels=(ChannelKind.PAGERDUTY,))
    await site.serve(100, failed=50)
    assert await site.look() == 1
    async with site.engine.connect() as conn:
        told = (await conn.execute(select(notice_deliveries.c.channel_id))).scalars().all()
    assert told == [pager.id]


async def test_an_hour_unlike_the_forecast_is_unusual(site: Site) -> None:
    hour = START.replace(minute=0)
    counts = trace()["m-small"][-240:].copy()
    counts[-1] *= 40
    async with site.engine.begin() as conn:
        await conn.execute(insert(usage_hourly), hourly(MODEL, counts, hour))
    assert await site.look() == 1
    (notice,) = await site.notices()
    assert notice.facts["type"] == "unusual_usage"
    assert notice.facts["requests"] == int(counts[-1])


async def test_operators_list_episodes_by_type_and_time(site: Site) -> None:
    await site.past()
    await site.serve(100, failed=50, first_token_ms=3000)
    await site.look()
    async with client_of(services_on(site.engine), **HEADERS) as client:

        async def listed(**query: str) -> list[str]:
            answer = await client.get("/admin/anomalies", params=query)
            assert answer.status_code == 200, answer.text
            return sorted(row["kind"] for row in answer.json()["data"])

        assert await listed() == ["error_rate_high", "latency_spike"]
        assert await listed(kind="latency_spike") == ["latency_spike"]
        assert await listed(since="2026-03-16T01:00:00Z") == await listed(until="2026-03-15T23:00:00Z") == []
        assert (await client.get("/admin/anomalies", params={"kind": "x"})).status_code in (400, 422)
