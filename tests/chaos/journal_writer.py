"""A process that journals under load until it is killed: `python -m tests.chaos.journal_writer DIR FIRST TASKS`.

It prints `i N` before each intent and `d N` once the record of request N is durable, unbuffered.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.journal import FileJournal
from tests.metering_samples import intent, usage


async def main(directory: Path, first: int, tasks: int) -> None:
    journal = await FileJournal.open(directory, f"w{os.getpid()}", clock=SystemClock(), segment_bytes=64 << 10)
    numbers = itertools.count(first)

    async def requests() -> None:
        for number in numbers:
            os.write(1, b"i %d\n" % number)
            journal.intend(intent(number))
            await asyncio.sleep(0.004)
            await journal.record(usage(number))
            os.write(1, b"d %d\n" % number)

    await asyncio.gather(*(requests() for _ in range(tasks)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
