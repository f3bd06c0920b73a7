"""Runs the table of periodic jobs.

Invariants: one run of a job at a time; a job that fails or hangs disturbs no other; after `stop` no run begins; no run
of a leased job begins while this process does not lead.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from random import Random

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from crosslogic.jobs.table import Job, pause_s
from crosslogic.kernel.clock import Clock

FIRST_RUN_WITHIN_S = 1.0
FOLLOWER_LOOKS_EVERY_S = 1.0
_DEPENDENCY_AWAY = (SQLAlchemyError, OSError, TimeoutError)  # to be expected, and no bug of ours

_log = logging.getLogger(__name__)


class JobRun(msgspec.Struct, frozen=True):
    """One run, for metrics."""

    name: str
    duration_s: float
    error: str | None  # type of the failure
    failures: int  # in a row, this one included


class JobRunner:
    """`leads` is asked before each run of a leased job; a process that is alone always leads."""

    def __init__(
        self,
        jobs: Iterable[Job],
        clock: Clock,
        random: Random,
        on_run: Callable[[JobRun], None] | None = None,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._leads = leads
        self._jobs = tuple(jobs)
        self._clock = clock
        self._random = random
        self._on_run = on_run
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._began = False

    async def run(self) -> None:
        """Run the jobs until `stop` or cancellation."""
        self._began = True
        try:
            async with asyncio.TaskGroup() as group:
                for job in self._jobs:
                    group.create_task(self._repeat(job), name=f"job {job.name}")
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Begin no run any more, and wait for those under way: at most their own time limits."""
        self._stopping.set()
        if self._began:
            await self._ended.wait()

    async def _repeat(self, job: Job) -> None:
        failures = 0
        await self._pause(self._random.random() * min(job.interval_s, FIRST_RUN_WITHIN_S))
        while not self._stopping.is_set():
            if job.leased and not self._leads():
                await self._pause(FOLLOWER_LOOKS_EVERY_S)
                continue
            began_s = self._clock.monotonic_s()
            error = await self._attempt(job, failures)
            failures = 0 if error is None else failures + 1
            if self._on_run is not None:
                self._on_run(JobRun(job.name, self._clock.monotonic_s() - began_s, error, failures))
            await self._pause(pause_s(job, failures, self._random.uniform(-1.0, 1.0)))

    async def _attempt(self, job: Job, failures: int) -> str | None:
        try:
            async with asyncio.timeout(job.timeout_s):
                await job.run()
        except _DEPENDENCY_AWAY as error:
            if failures == 0:
                # A driver's text may quote connection parameters; its type says enough.
                _log.warning("job %s failed (%s); trying on", job.name, type(error).__name__)
            return type(error).__name__
        except Exception as error:
            if failures == 0:
                _log.error("job %s failed; trying on", job.name, exc_info=error)
            return type(error).__name__
        if failures:
            _log.info("job %s works again", job.name)
        return None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
