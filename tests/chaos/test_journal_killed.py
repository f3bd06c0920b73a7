"""kill -9 under load, again and again: what was acknowledged is in the ledger, once."""

import asyncio
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.flush import JournalFlusher
from crosslogic.metering.ledger import Ledger
from crosslogic.pricing.book import PriceBook
from crosslogic.pricing.defaults import default_price_list
from crosslogic.store.tables import usage_records
from tests.metering_samples import usage

KILLS = 20
TASKS = 32


async def kill_one(directory: Path, first: int, life_s: float, mover: JournalFlusher) -> tuple[set[int], set[int]]:
    """Run a writer for a while, flushing beside it, and kill it. Returns the announced and the durable requests."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.journal_writer", str(directory), str(first), str(TASKS),
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    output = bytearray(await process.stdout.readuntil(b"d "))  # it works now
    reading = asyncio.create_task(process.stdout.read())
    killing = asyncio.get_running_loop().call_later(life_s, process.send_signal, signal.SIGKILL)
    # A flush under way is no reprieve, for what is written meanwhile may be more than it moves.
    while process.returncode is None:
        await mover.flush()
        await asyncio.sleep(0.01)
    killing.cancel()
    output += await reading
    assert await process.wait() == -signal.SIGKILL
    told: dict[bytes, set[int]] = {b"i": set(), b"d": set()}
    for line in bytes(output).split(b"\n")[:-1]:  # what follows the last line break was cut off
        kind, number = line.split()
        told[kind].add(int(number))
    return told[b"i"], told[b"d"]


@pytest.mark.chaos
async def test_what_a_killed_writer_acknowledged_is_in_the_ledger_once(engine: AsyncEngine, tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    rng = random.Random(7)
    ledger, prices, clock = Ledger(engine), PriceBook(default_price_list()), SystemClock()
    mover = JournalFlusher(directory, ledger, lambda: prices, clock)
    announced: set[int] = set()
    durable: set[int] = set()
    for kill in range(KILLS):
        i, d = await kill_one(directory, kill * 100_000, rng.uniform(0.02, 0.4), mover)
        announced |= i
        durable |= d
        if kill % 3 == 0:  # and the flusher dies too
            mover = JournalFlusher(directory, ledger, lambda: prices, clock)
    await mover.flush()
    assert [path.name for path in await asyncio.to_thread(lambda: list(directory.iterdir()))] == []

    async with engine.connect() as conn:
        found = (await conn.execute(select(usage_records.c.request_id, usage_records.c.outcome))).all()
    rows = dict(found)
    assert max(Counter(row.request_id for row in found).values()) == 1
    missing = [number for number in durable if rows.get(usage(number).request_id) != "completed"]
    assert missing == []
    assert rows.keys() <= {usage(number).request_id for number in announced}, "nothing is made up"
    assert len(durable) > KILLS * TASKS, "it was under load"
    outcomes = Counter(rows.values())
    assert outcomes["interrupted"] > 0, "some were killed in between"
    assert outcomes["interrupted"] <= KILLS * TASKS
