"""Real processes that end at each named point of journal, flush, ledger and roll-up, one after the other, on the same
journal and database; what they had said was durable is the oracle."""

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.crash_points import KILLED, METERING, arm
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.store.tables import usage_daily, usage_hourly, usage_hours, usage_records, usage_rollups
from tests.metering_samples import usage

COUNT = 90
ROUNDS = int(os.environ.get("CROSSLOGIC_CRASH_ROUNDS", "1"))  # a point's n-th round ends at its n-th hit


async def run(directory: Path, url: str, first: int, count: int, point: str | None) -> tuple[int, list[str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.metering_process", str(directory), url, str(first), str(count),
        *([point] if point else []), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    told, complaints = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode in (0, KILLED), complaints.decode()
    lines = told.decode().split("\n")
    return process.returncode, lines[:-1]


def numbers(lines: list[str], kind: str) -> set[int]:
    return {int(line.split()[1]) for line in lines if line.startswith(f"{kind} ")}


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_wherever_a_process_ends_nothing_durable_is_lost_or_counted_twice(
    engine: AsyncEngine, database_url: str, tmp_path: Path
) -> None:
    directory = tmp_path / "journal"
    announced: set[int] = set()
    durable: set[int] = set()
    ended_at: Counter[str] = Counter()
    first = 0
    for hit in range(1, ROUNDS + 1):
        for point in sorted(METERING):
            # Some are reached only if the process before died with requests open: then such a one comes in between.
            for tried in (f"{point}:{hit}", *("journal.told:9", f"{point}:{hit}") * 3):
                if tried.startswith("journal.told") and ended_at[point] >= hit:
                    break
                code, lines = await run(directory, database_url, first, COUNT, tried)
                announced |= numbers(lines, "i")
                durable |= numbers(lines, "d")
                ended_at[tried.partition(":")[0]] += code == KILLED
                first += COUNT
    code, lines = await run(directory, database_url, first, COUNT, None)
    assert code == 0
    announced |= numbers(lines, "i")
    durable |= numbers(lines, "d")
    assert {point for point, times in ended_at.items() if times} == METERING, "each point was hit"

    left = await asyncio.to_thread(lambda: [path.name for path in directory.iterdir()])
    assert left == [], "every journal was worked off"
    t = usage_records.c
    columns = (t.request_id, t.n, t.outcome, t.evidence, t.prompt_tokens, t.completion_tokens)
    async with engine.connect() as conn:
        found = (await conn.execute(select(*columns))).all()
    assert max(Counter(row.request_id for row in found).values()) == 1
    rows = {int(row.request_id.removeprefix("req_")): row for row in found}
    assert rows.keys() <= announced, "nothing is made up"
    assert durable <= rows.keys()
    for number in durable:
        record, row = usage(number), rows[number]
        assert (row.outcome, row.evidence) == ("completed", "engine")
        assert (row.prompt_tokens, row.completion_tokens) == (record.prompt_tokens, record.completion_tokens)
    for number in rows.keys() - durable:
        row = rows[number]
        if row.outcome == "interrupted":  # else its record had become durable, and nobody was told any more
            assert (row.prompt_tokens, row.completion_tokens) in ((0, 0), (0, number % 20 if number % 3 == 0 else 0))
    reader = LedgerReader(engine)
    verdict = await reader.verify("org_1")
    assert (verdict.problem, verdict.rows) == (None, len(found))
    async with engine.connect() as conn:
        assert await conn.scalar(select(usage_rollups.c.seq)) == len(found)
        for table in (usage_hourly, usage_daily, usage_hours):
            assert await conn.scalar(select(func.sum(table.c.requests))) == len(found)
    asked = {"start": None, "end": None, "group_by": ["hour", "model", "outcome"]}
    assert await RollupSums(engine).summary("org_1", **asked) == await LedgerSums(engine).summary("org_1", **asked)  # type: ignore[arg-type]


def test_a_point_that_is_not_there_is_refused() -> None:
    for wrong in ("ledger.nowhere:1", "ledger.committed", "ledger.committed:x"):
        with pytest.raises(ConfigurationError, match="there is no crash point"):
            arm(wrong)


def test_there_are_enough_points() -> None:
    assert len(METERING) >= 15
