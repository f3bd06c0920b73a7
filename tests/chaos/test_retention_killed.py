"""Real processes that drop months of the ledger and end at each named point of it; what stays is whole each time."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.crash_points import KILLED, RETENTION
from crosslogic.kernel.ids import OrgId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.rollup import Rollups
from crosslogic.metering.rollup_sums import RollupSums
from tests.contract.test_ledger_log import PRICES
from tests.contract.test_usage_retention import months_of, of, rows_left, spend

ORGS = ("org_0", "org_1")
ON_POSTGRESQL = {"retention.detached", "retention.moved", "retention.month_dropped"}


async def run(url: str, now: datetime, point: str | None) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.retention_process", url, now.isoformat(),
        *([f"{point}:1"] if point else []), cwd=Path(__file__).parents[2], stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complaints = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode in (0, KILLED), complaints.decode()
    return process.returncode


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_wherever_the_dropping_ends_the_rest_is_whole(engine: AsyncEngine, database_url: str) -> None:
    points = sorted(RETENTION)
    if engine.dialect.name == "sqlite":
        points = [name for name in points if name not in ON_POSTGRESQL]
    ledger, reader, sums = Ledger(engine), LedgerReader(engine), RollupSums(engine)
    written = dict.fromkeys(ORGS, 0)
    month = datetime(2026, 1, 1, tzinfo=UTC)
    for number, point in enumerate(points):
        following = _months_on(month, 1)
        await months_of(engine, month, following)
        for place, org_id in enumerate(ORGS):
            first = 200 * number + 100 * place
            batch = [of(month, first + n, org_id=OrgId(org_id)) for n in range(20 + number)]
            late = of(following, first + 50, org_id=OrgId(org_id))
            batch = [*batch[:-2], late, *batch[-2:]]  # two rows of this month come behind one of the next
            written[org_id] += await ledger.insert(batch, PRICES)
        await Rollups(engine).advance()
        before = [await sums.summary(org_id, start=None, end=None, group_by=["hour"]) for org_id in ORGS]
        spent, now = await spend(engine), _months_on(month, 3)
        for ending in (point, None):
            assert await run(database_url, now, ending) == (0 if ending is None else KILLED), ending
            for org_id in ORGS:
                verdict = await reader.verify(org_id)
                assert (verdict.problem, verdict.rows) == (None, written[org_id]), ending
            after = [await sums.summary(org_id, start=None, end=None, group_by=["hour"]) for org_id in ORGS]
            assert (after, await spend(engine)) == (before, spent), ending
        assert await rows_left(engine) == sum(
            [written[org_id] - (await reader.start(org_id)).seq for org_id in ORGS]
        ), "what is dropped is gone"
        assert await rows_left(engine) == 2 * 3, "the later one, and the two behind it"
        month = following


def _months_on(at: datetime, months: int) -> datetime:
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    return at.replace(year=year, month=month + 1)
