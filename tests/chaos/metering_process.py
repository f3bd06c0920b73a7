"""A process that meters until it is killed.

    python -m tests.chaos.metering_process DIR DATABASE_URL FIRST COUNT [POINT]

It journals requests, moves them to the ledger and rolls up, over and over. It prints, unbuffered, `i N` before it
announces a request, `m N TOKENS` once it has marked one, and `d N` once the record of one is durable. With POINT it
ends where `kernel/crash_points.py` says. Without, it ends once all is in the ledger and rolled up.
"""

import asyncio
import os
import sys
from pathlib import Path

from crosslogic.kernel import crash_points
from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.flush import JournalFlusher
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.model import Checkpoint
from crosslogic.metering.rollup import Rollups
from crosslogic.pricing.book import PriceBook
from crosslogic.pricing.defaults import default_price_list
from crosslogic.store.engine import create_engine
from tests.metering_samples import intent, usage

TASKS = 8
PRICES = PriceBook(default_price_list())


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def main(directory: Path, url: str, first: int, count: int) -> None:
    engine = create_engine(url)
    journal = await FileJournal.open(directory, f"w{os.getpid()}", clock=SystemClock(), segment_bytes=8 << 10)
    flusher = JournalFlusher(directory, Ledger(engine), lambda: PRICES, SystemClock())
    rollups = Rollups(engine, page_rows=29)
    numbers = iter(range(first, first + count))

    async def requests() -> None:
        for number in numbers:
            say(f"i {number}")
            journal.intend(intent(number))
            await asyncio.sleep(0.001)
            if number % 3 == 0:
                journal.mark(Checkpoint(intent(number).request_id, 0, number % 20))
                await asyncio.sleep(0.008)  # longer than an entry that nobody waits for stays in memory
                say(f"m {number}")
            await journal.record(usage(number, model=f"m{number % 3}"))
            say(f"d {number}")

    working = asyncio.gather(*(requests() for _ in range(TASKS)))
    while not working.done():
        await flusher.flush()
        await rollups.advance()
        await asyncio.sleep(0.005)
    await working
    await journal.close()
    await flusher.flush()
    await flusher.flush()
    await rollups.advance()
    await engine.dispose()


if __name__ == "__main__":
    if len(sys.argv) > 5:
        crash_points.arm(sys.argv[5])
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
