"""The benchmark table on both databases: exact traffic, imports that may be repeated, rows that teach the planner."""

from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.capacity.pooling import Pool
from crosslogic.compass.capacity.rows import packaged_rows
from crosslogic.compass.knowledge.model import Benchmark, Setup
from crosslogic.compass.knowledge.sql import KnowledgeBase
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.tenancy.audit_sql import AuditTrail

SETUP = Setup("meta-llama/Llama-3.1-8B-Instruct", "a100_80")


def point(rate: float, prompt: int = 512, p95: float | None = 45.0) -> Benchmark:
    return Benchmark(
        setup=SETUP,
        prompt_tokens=prompt,
        output_tokens=256,
        ttft_p95_ms=p95,
        itl_p95_ms=12.8,
        e2e_p95_ms=3325.0,
        ttft_mean_ms=40.0,
        itl_mean_ms=11.0,
        requests_per_second=rate,
        concurrency=rate * 3,
        requests=100,
        source="a test",
        measured_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


async def test_benchmarks_are_kept_once_and_found_by_exact_traffic(engine: AsyncEngine) -> None:
    clock = ManualClock()
    base = KnowledgeBase(engine, clock)
    trail = AuditTrail()
    points = [point(3.0), point(6.0), point(9.0, prompt=1024), point(20.0, p95=None)]
    points[3] = Benchmark(setup=SETUP, prompt_tokens=512, output_tokens=256, ttft_mean_ms=9.0, source="means")
    assert await base.add(points, trail) == 4
    assert await base.add([*points, point(7.0)], trail) == 1
    found = await base.benchmark(SETUP.model, SETUP.gpu, 1, 512, 256)
    assert found == point(7.0)  # the one that carried most, of those with a 95th percentile
    assert await base.benchmark(SETUP.model, SETUP.gpu, 1, 511, 256) is None
    assert await base.benchmark(SETUP.model, SETUP.gpu, 2, 512, 256) is None
    first = await base.page(model=None, hardware=None, source=None, after=None, limit=2)
    rest = await base.page(model=None, hardware=None, source=None, after=first[-1][0], limit=9)
    assert len(first) + len(rest) == 5
    assert len(await base.page(model=None, hardware=None, source="means", after=None, limit=9)) == 1
    rows = await base.measured_rows()
    assert len(rows) == 4
    known = Pool((*packaged_rows(), *rows)).predict(rows[0].configuration, [rows[0].load])[0]
    assert known.itl_s == pytest.approx(0.011, rel=0.15)


async def test_times_that_nobody_can_have_measured_are_refused(engine: AsyncEngine) -> None:
    clock = ManualClock()
    base = KnowledgeBase(engine, clock)
    with pytest.raises(InvalidRequest):
        await base.add([point(3.0, p95=-1.0)], AuditTrail())
    assert await base.measured_rows() == ()
