"""What is done again and again: every periodic job of the product with its interval, in one table.

(The node monitor is no row of it: it probes every node at that node's own pace, in a loop of its own.)
Each job may be killed at any line and run twice at once by two processes; it then does the same thing again.
"""

from collections.abc import Awaitable, Callable

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import Clock
from crosslogic.metering.flush import JournalFlusher
from crosslogic.store import changes

MAX_PAUSE_S = 10.0  # between attempts of a job that fails, unless its interval is longer


class Job(msgspec.Struct, frozen=True):
    name: str
    interval_s: float  # from the end of one run to the beginning of the next
    run: Callable[[], Awaitable[object]]
    timeout_s: float = 60.0
    jitter: float = 0.1  # share of the interval by which a pause is longer or shorter


def metering_jobs(flusher: JournalFlusher) -> tuple[Job, ...]:
    """Of whoever can read the journals: the gateway's parent process, or the embedded cloud."""
    return (Job("metering flush", 0.5, flusher.flush, timeout_s=300.0),)


def control_jobs(engine: AsyncEngine, clock: Clock) -> tuple[Job, ...]:
    """Of the control process."""

    async def prune_changes() -> int:
        return await changes.prune(engine, before=clock.now() - changes.RETENTION)

    return (Job("change prune", 3600.0, prune_changes),)


def pause_s(job: Job, failures: int, spread: float) -> float:
    """How long to wait after a run, `failures` in a row behind it; `spread` from -1 to 1 places it within the jitter.

    A job that fails waits twice as long each time, so that it does not press on a database that is coming back.
    """
    longest_s = max(job.interval_s, MAX_PAUSE_S)
    return min(job.interval_s * 2.0 ** min(failures, 16), longest_s) * (1.0 + job.jitter * spread)
