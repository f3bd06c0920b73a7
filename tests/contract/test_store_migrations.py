"""The migrations produce exactly the tables that the program believes in, on both databases."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store import migrate
from crosslogic.store.engine import create_engine, reading
from crosslogic.store.tables import changes, metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that was never migrated; on PostgreSQL its tables go with the session's database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url = request.getfixturevalue("postgres_url")

    async def wipe() -> None:
        conn = await asyncpg.connect(url)
        await conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await conn.close()

    asyncio.run(wipe())
    return str(url)


async def test_migrations_and_metadata_do_not_drift(engine: AsyncEngine) -> None:
    def differences(connection: Connection) -> list[object]:
        opts = {"compare_type": True, "include_name": _is_no_partition}
        context = MigrationContext.configure(connection, opts=opts)
        return list(compare_metadata(context, metadata))

    async with engine.connect() as conn:
        assert await conn.run_sync(differences) == []


def _is_no_partition(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or not re.fullmatch(r"usage_records_(default|\d{4}_\d\d)", name or "")


async def test_a_new_database_has_everything_pending_and_an_upgraded_one_nothing(empty_url: str) -> None:
    engine = create_engine(empty_url)
    assert await migrate.current(engine) is None
    waiting = await migrate.pending(engine)
    assert waiting[0] == "0001"
    await migrate.upgrade(engine)
    assert await migrate.current(engine) == waiting[-1]
    assert await migrate.pending(engine) == []
    await engine.dispose()


async def test_upgrading_twice_changes_nothing(engine: AsyncEngine) -> None:
    async with reading(engine) as conn:
        before = await conn.scalar(select(func.count()).select_from(changes))
    await migrate.upgrade(engine)
    async with reading(engine) as conn:
        assert await conn.scalar(select(func.count()).select_from(changes)) == before


async def test_processes_that_upgrade_at_once_do_it_one_after_the_other(empty_url: str) -> None:
    engines = [create_engine(empty_url) for _ in range(3)]
    await asyncio.gather(*(migrate.upgrade(engine) for engine in engines))
    assert await migrate.pending(engines[0]) == []
    for engine in engines:
        await engine.dispose()


async def test_downgrading_to_base_leaves_no_table_of_ours(empty_url: str) -> None:
    engine = create_engine(empty_url)
    await migrate.upgrade(engine)
    await migrate.downgrade(engine, "base")
    async with engine.connect() as conn:
        left = await conn.run_sync(lambda sync: inspect(sync).get_table_names())
    assert [name for name in left if name != "alembic_version"] == []
    await migrate.upgrade(engine)
    assert await migrate.pending(engine) == []
    await engine.dispose()
