"""Engines: which URLs are understood, and what transactions may rely on."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import event, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.store.engine import DATABASE_ERRORS, create_engine, ping, reading
from crosslogic.store.tables import settings
from tests.contract.test_store_tables import ARRIVAL


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@h/db", "not a url hunter2", "sqlite://", "sqlite:///:memory:", "redis://h"]
)
def test_a_database_that_we_cannot_use_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        create_engine(url)
    assert "hunter2" not in str(refused.value)


def test_a_missing_directory_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        create_engine(f"sqlite:///{tmp_path}/absent/file.db")


async def test_the_names_of_libpq_are_understood(postgres_url: str) -> None:
    engine = create_engine(postgres_url.replace("postgresql://", "postgres://") + "?sslmode=disable")
    await ping(engine)
    await engine.dispose()


async def test_a_database_that_is_away_raises_one_of_the_announced_errors() -> None:
    engine = create_engine("postgresql://nobody@127.0.0.1:1/absent")
    with pytest.raises(DATABASE_ERRORS):
        await ping(engine)
    await engine.dispose()


async def test_a_database_that_goes_in_the_midst_of_connecting_raises_one_of_them_too(postgres_url: str) -> None:
    """The driver has connected, and is still to learn types, when the session ends."""
    engine = create_engine(postgres_url)
    event.listen(engine.sync_engine, "connect", lambda conn, _: conn._connection.terminate(), insert=True)
    with pytest.raises(DATABASE_ERRORS):
        await ping(engine)
    await engine.dispose()


async def test_sqlite_is_safe_against_crashes_and_checks_references(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    async with engine.connect() as conn:
        pragmas = {
            name: await conn.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1}
    await engine.dispose()


async def test_transactions_that_read_and_then_write_do_not_lose_updates(engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        await conn.execute(insert(settings).values(key="n", value=0, updated_at=ARRIVAL))

    async def count_up() -> None:
        for _ in range(5):
            async with engine.begin() as conn:
                query = select(settings.c.value).where(settings.c.key == "n").with_for_update()
                value = await conn.scalar(query)
                await conn.execute(update(settings).values(value=value + 1))

    await asyncio.gather(*(count_up() for _ in range(4)))
    async with reading(engine) as conn:
        assert await conn.scalar(select(settings.c.value)) == 20


async def test_a_reader_does_not_wait_for_a_writer(engine: AsyncEngine) -> None:
    async with engine.begin() as writer:
        await writer.execute(insert(settings).values(key="n", value=1, updated_at=ARRIVAL))
        async with asyncio.timeout(2), reading(engine) as reader:
            assert (await reader.execute(select(settings))).all() == []
