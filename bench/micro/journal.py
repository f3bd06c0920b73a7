"""What the journal costs: CPU for one request (intent + record) and the wait for the disk.

    python bench/micro/journal.py [--directory DIR]

Each row: so many tasks, each in turn writes its intent and waits until it is durable, works (spins, as a gateway does
for its request), writes its record and waits for that. The baseline is the same program without the journal, measured
in the same run and subtracted. `loop` is the event loop's thread, `process` all threads; waits are those for records.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

import uvloop

from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.ids import EnvId, KeyId, NodeId, OrgId, new_request_id
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.model import Evidence, Intent, Outcome, UsageRecord
from crosslogic.metering.sync import AioSync, FastestSync, OpenSync, ThreadSync

ORG, ENV, KEY, NODE = OrgId("org_1"), EnvId("env_1"), KeyId("key_1"), NodeId("node_1")
MODEL, REGION, ENDPOINT = "meta-llama/Llama-3.1-8B-Instruct", "in-south", "chat.completions"
ROWS = ((1, 0, 4_000), (8, 0, 20_000), (32, 0, 40_000), (32, 80, 20_000), (256, 80, 20_000))


def spin(work_us: float) -> None:
    until = time.perf_counter() + work_us * 1e-6
    while time.perf_counter() < until:
        continue


async def requests(journal: FileJournal | None, tasks: int, work_us: float, count: int) -> list[float]:
    """Returns the waits in seconds."""
    waits: list[float] = []
    ids = [new_request_id() for _ in range(count)]

    async def one_after_another() -> None:
        while ids:
            request_id = ids.pop()
            now_us = time.time_ns() // 1000
            if journal is not None:
                await journal.intend(Intent(request_id, now_us, ORG, ENV, KEY, ENDPOINT, MODEL, REGION, NODE, 500))
            spin(work_us)
            await asyncio.sleep(0)
            began_s = time.perf_counter()
            if journal is not None:
                await journal.record(
                    UsageRecord(
                        request_id, now_us, ORG, ENV, KEY, ENDPOINT, MODEL, REGION, NODE, 500, 200, 0, 0,
                        Evidence.ENGINE, Outcome.COMPLETED, "stop", 200, True, 1, 900, 80,
                    )
                )  # fmt: skip
            waits.append(time.perf_counter() - began_s)

    await asyncio.gather(*(one_after_another() for _ in range(tasks)))
    return waits


async def measure(directory: Path, open_sync: OpenSync, tasks: int, work_us: float, count: int) -> str:
    def used() -> tuple[float, float]:
        return time.thread_time(), time.process_time()

    before = used()
    await requests(None, tasks, work_us, count)
    between = used()
    journal = await FileJournal.open(directory, "bench", clock=SystemClock(), open_sync=open_sync)
    await asyncio.sleep(0.1)  # let it prepare its second segment
    start = used()
    waits = sorted(await requests(journal, tasks, work_us, count))
    end = used()
    await journal.close()
    loop_us, process_us = (
        ((e - s) - (b - a)) * 1e6 / count for a, b, s, e in zip(before, between, start, end, strict=True)
    )
    commits = journal.stats.commits
    return (
        f"{tasks:5d} {work_us:7.0f} {loop_us:8.1f} {process_us:11.1f} {waits[count // 2] * 1e3:8.2f}"
        f" {waits[count * 99 // 100] * 1e3:8.2f} {count / commits:14.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary directory)")
    directory = parser.parse_args().directory
    for name, open_sync in (("kernel queue", AioSync), ("thread", ThreadSync), ("as shipped", FastestSync)):
        print(f"\n{name}: µs of CPU a request, ms of waiting")
        print("tasks work_us  loop_us  process_us   p50_ms   p99_ms records/commit")
        for tasks, work_us, count in ROWS:
            with contextlib.ExitStack() as stack:
                place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
                print(uvloop.run(measure(place, open_sync, tasks, work_us, count)))


if __name__ == "__main__":
    main()
