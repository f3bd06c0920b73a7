"""Fixtures of what several workers share.

server  a Redis of the test's own, which the test may stop, freeze and start again
stack   what the test opens on it, closed in reverse order before the server goes
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio

from tests.contract.limits_rig import OwnRedis, own_redis


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[OwnRedis]:
    async with own_redis(tmp_path) as server:
        yield server


@pytest_asyncio.fixture
async def stack(server: OwnRedis) -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack
