"""Real worker processes under `kill -9`: their slots come back within ten seconds, and no sooner than promised."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.model import NO_DEMAND, Admitted, Layer, Limits, Rejected, Scope
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection

pytestmark = pytest.mark.chaos

SLOTS = 12
SCOPES = (Scope(Layer.ORG, "org", Limits(concurrency=SLOTS)),)

WORKER = """
import asyncio, sys
from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.model import NO_DEMAND, Admitted
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection
from tests.chaos.test_limits_kill import SCOPES

async def main(url, prefix, slots):
    limiter = RedisLimiter(await RedisConnection.connect(url), SystemClock(), prefix=prefix, wait_s=2.0)
    held = [await limiter.admit(SCOPES, NO_DEMAND) for _ in range(slots)]
    print(sum(isinstance(answer, Admitted) for answer in held), flush=True)
    await asyncio.sleep(600)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def test_slots_of_killed_workers_return_within_ten_seconds(redis_url: str, redis_prefix: str) -> None:
    prefix = f"{{{redis_prefix}}}"
    here = Path(__file__).parents[2]
    connection = await RedisConnection.connect(redis_url)
    survivor = RedisLimiter(connection, SystemClock(), prefix=prefix, wait_s=2.0)
    workers = [
        subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", WORKER, redis_url, prefix, "4"],
            stdout=subprocess.PIPE,
            cwd=here,
            env={**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here / 'src'}"},
        )
        for _ in range(3)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert await asyncio.to_thread(worker.stdout.readline) == b"4\n"
        assert isinstance(await survivor.admit(SCOPES, NO_DEMAND), Rejected)
        for worker in workers[:2]:
            worker.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        held = 0
        while held < 8 and time.monotonic() - killed_s < 10.0:
            held += isinstance(await survivor.admit(SCOPES, NO_DEMAND), Admitted)
            await asyncio.sleep(0.05)
        assert held == 8
        assert time.monotonic() - killed_s > 4.0  # a short pause of a worker costs it nothing
        assert isinstance(await survivor.admit(SCOPES, NO_DEMAND), Rejected)  # the third one lives and keeps its four
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        await survivor.close()
        await connection.close()
