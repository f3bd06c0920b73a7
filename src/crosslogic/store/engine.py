"""Engines for the two databases, from the URLs that users write.

Invariant: whoever opens a transaction with `engine.begin()` may write without a deadlock or a lost update:
on SQLite it takes the write lock at once (BEGIN IMMEDIATE), for a transaction that first reads and then
writes would otherwise fail at once, whatever the busy timeout. Pure readers use `reading(engine)`.
"""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from crosslogic.kernel.errors import ConfigurationError

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30
BUSY_TIMEOUT_MS = 5_000
DATABASE_ERRORS = (SQLAlchemyError, OSError)  # what any use of an engine raises while its database is away
_DRIVERS_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_BEGIN = "crosslogic_sqlite_begin"


def create_engine(url: str, *, pool_size: int = 5) -> AsyncEngine:
    """An engine for `postgresql://…` or `sqlite:///path`; it connects on first use.

    Raises ConfigurationError for any other URL. The password never appears in its message.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed, pool_size)
    return _postgresql_engine(parsed, pool_size)


@asynccontextmanager
async def reading(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection for reads only, in one snapshot on SQLite; it never waits for a writer there."""
    async with engine.connect() as conn:
        yield await conn.execution_options(**{_BEGIN: "BEGIN DEFERRED"})


async def ping(engine: AsyncEngine) -> None:
    """Ask the database for nothing; raises one of DATABASE_ERRORS when it does not answer."""
    async with reading(engine) as conn:
        await conn.execute(text("SELECT 1"))


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "the database URL cannot be read; write postgresql://user:password@host:5432/name or sqlite:///path"
        ) from None
    if parsed.drivername in ("postgresql", "postgres", "postgresql+asyncpg"):
        return parsed.set(drivername="postgresql+asyncpg")
    if parsed.drivername in ("sqlite", "sqlite+aiosqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError(
                "an SQLite database needs a file, since several connections share it; write sqlite:///path"
            )
        return parsed.set(drivername="sqlite+aiosqlite")
    raise ConfigurationError(
        f"the database {parsed.drivername!r} is not supported; write postgresql://… or sqlite:///path"
    )


def _postgresql_engine(url: URL, pool_size: int) -> AsyncEngine:
    connect_args: dict[str, Any] = {"timeout": CONNECT_TIMEOUT_S, "command_timeout": STATEMENT_TIMEOUT_S}
    sslmode = url.query.get("sslmode")
    if sslmode is not None:  # libpq's name, which users paste; asyncpg calls it ssl
        url = url.difference_update_query(["sslmode"])
        connect_args["ssl"] = sslmode
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,  # PostgreSQL may be restarted at any time
        json_deserializer=msgspec.json.decode,
        connect_args=connect_args,
    )
    # What the driver raises while a new connection learns its types, SQLAlchemy passes on as it is.
    for name in ("setup_asyncpg_json_codec", "setup_asyncpg_jsonb_codec"):
        setattr(engine.dialect, name, _in_our_words(getattr(engine.dialect, name)))
    return engine


def _in_our_words(set_up: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def run(connection: Any) -> None:
        try:
            await set_up(connection)
        except _DRIVERS_ERRORS as error:
            raise ConnectionResetError(f"PostgreSQL went while it was connected to ({type(error).__name__})") from error

    return run


def _sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    assert url.database is not None
    parent = Path(url.database).absolute().parent
    if not parent.is_dir():
        raise ConfigurationError(f"the directory {parent} of the SQLite database does not exist; create it")
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=CONNECT_TIMEOUT_S,
        json_deserializer=msgspec.json.decode,  # a start reads some 300,000 documents: ten times as quick as json
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    event.listen(engine.sync_engine, "invalidate", _roll_back_sqlite)
    return engine


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # The driver must not open transactions by itself: _begin_sqlite says how they open.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    # Refused at once, whatever the busy timeout, while another process does the same to a new file. The mode is one
    # of the file, not of the connection: theirs is ours.
    with suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode = WAL")
    # NORMAL may lose the last commits when the power fails. The usage journal lets go of what the database
    # has committed, so a commit has to be on the disk; writes are few and batched, the fsync costs little.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # Without it INSERT OR REPLACE deletes a ledger row without asking the trigger that guards it.
    cursor.execute("PRAGMA recursive_triggers = ON")
    cursor.close()
    dbapi_connection.run_async(lambda conn: conn._execute(conn._conn.create_aggregate, "exact_sum", 1, _ExactSum))
    dbapi_connection.run_async(lambda conn: conn.create_function("exact_plus", 2, _exact_plus, deterministic=True))


def _roll_back_sqlite(dbapi_connection: Any, _record: Any, _error: Any) -> None:
    """A transaction that was cancelled inside a statement is thrown away with its connection; without this the file
    stays locked until the garbage collector finds the connection."""
    dbapi_connection.rollback()


def _begin_sqlite(conn: Connection) -> None:
    conn.exec_driver_sql(conn.get_execution_options().get(_BEGIN, "BEGIN IMMEDIATE"))


class _ExactSum:
    """`store.types.exact_sum` for SQLite: Python integers have no end."""

    def __init__(self) -> None:
        self._total: int | None = None

    def step(self, value: str | int | None) -> None:
        if value is not None:
            self._total = (self._total or 0) + int(value)

    def finalize(self) -> str | None:
        return None if self._total is None else str(self._total)


def _exact_plus(one: str | int, other: str | int) -> str:
    """`store.types.exact_plus` for SQLite."""
    return str(int(one) + int(other))
