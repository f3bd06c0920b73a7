"""The runner of periodic jobs: one at a time, each for itself, and a clean end."""

import asyncio
from random import Random

import pytest

from crosslogic.jobs.runner import JobRun, JobRunner
from crosslogic.jobs.table import MAX_PAUSE_S, Job, pause_s
from crosslogic.kernel.clock import ManualClock, SystemClock


async def nothing() -> None:
    return None


def job(run: object = nothing, *, interval_s: float = 0.002, timeout_s: float = 60.0, name: str = "a job") -> Job:
    return Job(name, interval_s, run, timeout_s)  # type: ignore[arg-type]


def test_a_pause_is_the_interval_within_the_jitter() -> None:
    every_second = job(interval_s=1.0)
    assert pause_s(every_second, 0, 0.0) == 1.0
    assert pause_s(every_second, 0, -1.0) == pytest.approx(0.9)
    assert pause_s(every_second, 0, 1.0) == pytest.approx(1.1)


def test_failures_double_the_pause_up_to_a_bound_but_never_below_the_interval() -> None:
    assert [pause_s(job(interval_s=0.5), failures, 0.0) for failures in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert pause_s(job(interval_s=0.5), 1000, 0.0) == MAX_PAUSE_S
    assert pause_s(job(interval_s=3600.0), 5, 0.0) == 3600.0


async def run_until(runner: JobRunner, reached: asyncio.Event) -> None:
    task = asyncio.create_task(runner.run())
    async with asyncio.timeout(5):
        await reached.wait()
        await runner.stop()
        await task


async def test_a_job_runs_again_and_again_and_never_beside_itself() -> None:
    running, most, runs = 0, 0, 0
    reached = asyncio.Event()

    async def work() -> None:
        nonlocal running, most, runs
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)  # longer than its interval
        running -= 1
        runs += 1
        if runs == 5:
            reached.set()

    await run_until(JobRunner([job(work)], SystemClock(), Random(1)), reached)
    assert most == 1
    assert runs >= 5


async def test_a_failing_and_a_hanging_job_disturb_no_other() -> None:
    seen: list[JobRun] = []
    reached = asyncio.Event()

    async def fail() -> None:
        raise ValueError("a bug")

    async def hang() -> None:
        await asyncio.Event().wait()

    def on_run(run: JobRun) -> None:
        seen.append(run)
        if {"fails", "hangs"} <= {r.name for r in seen if r.error} and sum(r.name == "works" for r in seen) > 5:
            reached.set()

    jobs = [job(fail, name="fails"), job(hang, name="hangs", timeout_s=0.01), job(name="works")]
    await run_until(JobRunner(jobs, SystemClock(), Random(1), on_run), reached)
    assert {run.error for run in seen if run.name == "fails"} == {"ValueError"}
    assert {run.error for run in seen if run.name == "hangs"} == {"TimeoutError"}
    assert {run.error for run in seen if run.name == "works"} == {None}


async def test_failures_in_a_row_are_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    reached = asyncio.Event()

    async def fail_thrice() -> None:
        if len(seen) < 3:
            raise ConnectionRefusedError("password=secret")

    def on_run(run: JobRun) -> None:
        seen.append(run.failures)
        if len(seen) == 5:
            reached.set()

    caplog.set_level("INFO")
    await run_until(JobRunner([job(fail_thrice)], SystemClock(), Random(1), on_run), reached)
    assert seen[:5] == [1, 2, 3, 0, 0]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "secret" not in caplog.text


async def test_stopping_waits_for_the_run_under_way() -> None:
    began, finished = asyncio.Event(), False

    async def work() -> None:
        nonlocal finished
        began.set()
        await asyncio.sleep(0.02)
        finished = True

    await run_until(JobRunner([job(work)], SystemClock(), Random(1)), began)
    assert finished


async def test_stopping_before_it_began_or_in_a_long_pause_takes_no_time() -> None:
    await JobRunner([job()], ManualClock(), Random(1)).stop()
    ran = asyncio.Event()

    async def work() -> None:
        ran.set()

    await run_until(JobRunner([job(work, interval_s=3600.0)], SystemClock(), Random(1)), ran)


async def test_a_leased_job_waits_for_the_lead_and_another_does_not() -> None:
    leads, ran = False, []
    reached = asyncio.Event()

    async def leased() -> None:
        ran.append("leased")

    async def own() -> None:
        ran.append("own")
        if ran.count("own") == 5:
            reached.set()

    jobs = [job(leased, name="leased"), Job("own", 0.002, own, leased=False)]
    await run_until(JobRunner(jobs, SystemClock(), Random(1), leads=lambda: leads), reached)
    assert set(ran) == {"own"}
