"""Bringing a database to the schema of this version, from a program: `crosslogic migrate`, and boot when embedded.

Invariant: two processes that upgrade the same database at once do it one after the other.
Migrations only ever expand first and contract in a later release: see docs/decisions/0002-expand-then-contract.md.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store.engine import reading

_SCRIPTS = Path(__file__).parent / "migrations"
_UPGRADE_LOCK = 0x636C_736B_0001  # any number of our own; changes.py has another


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Apply what is pending up to `revision`, in one transaction: all or nothing."""
    async with engine.begin() as conn:
        if conn.dialect.name == "postgresql":  # SQLite has its write lock already
            await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _UPGRADE_LOCK})
        await conn.run_sync(_upgrade, revision)


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Undo migrations down to `revision` ("base": all of them, with all data)."""
    async with engine.begin() as conn:
        await conn.run_sync(lambda sync: command.downgrade(_config(sync), revision))


async def current(engine: AsyncEngine) -> str | None:
    """The revision that the database is at; None when it was never migrated."""
    async with reading(engine) as conn:
        return await conn.run_sync(_current)


async def pending(engine: AsyncEngine) -> list[str]:
    """The revisions that `upgrade` would apply, oldest first."""
    at = await current(engine)
    scripts = ScriptDirectory(str(_SCRIPTS))
    return [script.revision for script in scripts.iterate_revisions("head", at or "base")][::-1]


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, revision: str) -> None:
    command.upgrade(_config(connection), revision)


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
