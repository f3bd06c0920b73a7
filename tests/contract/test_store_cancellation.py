"""A caller that gives up in the middle of a transaction must not take the SQLite file with it.

(On PostgreSQL the server ends what its client gave up, and writers do not wait for one lock.)
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store.engine import create_engine, reading
from crosslogic.store.tables import settings

ROUNDS = 10


@pytest.fixture
async def engine(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(sqlite_url)
    yield engine
    await engine.dispose()


async def write(engine: AsyncEngine, key: str) -> None:
    async with engine.begin() as conn:
        await conn.execute(insert(settings).values(key=key, value="1", updated_at=datetime.now(UTC)))


async def test_who_gives_up_waiting_for_the_lock_does_not_get_it_afterwards(engine: AsyncEngine) -> None:
    for number in range(ROUNDS):
        async with engine.begin() as holder:
            await holder.execute(insert(settings).values(key=f"held-{number}", value="1", updated_at=datetime.now(UTC)))
            waiting = asyncio.create_task(write(engine, f"given-up-{number}"))
            await asyncio.sleep(0.02)
            waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        async with asyncio.timeout(10):
            await write(engine, f"kept-{number}")

    await _kept(engine)


async def test_who_gives_up_in_a_long_statement_gives_the_lock_back(engine: AsyncEngine) -> None:
    for number in range(ROUNDS):
        long = asyncio.create_task(write_many(engine, f"given-up-{number}", 8_000))
        await asyncio.sleep(0.005 + 0.004 * number)
        long.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await long
        async with asyncio.timeout(10):
            await write(engine, f"kept-{number}")
    await _kept(engine)


async def write_many(engine: AsyncEngine, key: str, rows: int) -> None:
    now = datetime.now(UTC)
    async with engine.begin() as conn:
        await conn.execute(
            insert(settings), [{"key": f"{key}-{n}", "value": "1", "updated_at": now} for n in range(rows)]
        )


async def _kept(engine: AsyncEngine) -> None:
    async with reading(engine) as conn:
        keys = (await conn.execute(select(settings.c.key))).scalars().all()
    assert sum(key.startswith("kept") for key in keys) == ROUNDS
