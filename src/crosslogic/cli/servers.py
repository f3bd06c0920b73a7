"""Asking the database and Redis whether they can be used, before anything is started on them.

Invariant: no message holds a password.
"""

import asyncio
import time
from urllib.parse import urlsplit

import asyncpg
import msgspec
import redis.asyncio
from redis.exceptions import AuthenticationError, RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.store import migrate
from crosslogic.store.engine import create_engine, reading

PROBE_TIMEOUT_S = 5.0
OLDEST_REDIS = (6, 2)
_ADVICE = {  # by PostgreSQL's error codes
    "28P01": "correct its user and password",
    "28000": "correct its user and password, or pg_hba.conf",
    "3D000": "create it with `createdb`",
    "53300": "raise max_connections, or run fewer workers",
}


class DatabaseState(msgspec.Struct, frozen=True):
    version: str
    pending: tuple[str, ...]  # migrations that `crosslogic migrate` would apply
    clock_ahead_s: float  # of this machine's; 0 for SQLite


class RedisState(msgspec.Struct, frozen=True):
    version: str
    clock_ahead_s: float


async def database_state(url: str) -> DatabaseState:
    """Raises ConfigurationError when the database cannot be used."""
    engine = create_engine(url, pool_size=1)
    place = _place(url)
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            pending = tuple(await migrate.pending(engine))
            async with reading(engine) as conn:
                if engine.dialect.name == "sqlite":
                    version = f"SQLite {(await conn.execute(text('SELECT sqlite_version()'))).scalar_one()}"
                    return DatabaseState(version, pending, 0.0)
                row = await conn.execute(
                    text("SELECT current_setting('server_version'), extract(epoch FROM clock_timestamp())")
                )
                number, now_s = row.one()
                return DatabaseState(f"PostgreSQL {number}", pending, time.time() - float(now_s))
    except TimeoutError:
        raise ConfigurationError(f"the database {place} did not answer within {PROBE_TIMEOUT_S:.0f} s") from None
    except (OSError, SQLAlchemyError, asyncpg.PostgresError) as error:
        cause = _cause(error)
        advice = _ADVICE.get(getattr(cause, "sqlstate", None) or "", "start it, or correct database.url")
        raise ConfigurationError(f"the database {place} cannot be used ({_words(cause)}); {advice}") from None
    finally:
        await engine.dispose()


async def redis_state(url: str) -> RedisState:
    """Raises ConfigurationError when Redis cannot be used, for the scripts of the limits, too."""
    place = _place(url)
    try:
        client = redis.asyncio.from_url(url, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S)
    except ValueError:
        raise ConfigurationError("redis.url is not well-formed; write redis://host:6379/0") from None
    try:
        version = str((await client.info("server"))["redis_version"])
        await client.script_load("return 1")
        seconds, microseconds = await client.time()
    except AuthenticationError:
        raise ConfigurationError(f"Redis at {place} refuses the password; check redis.password") from None
    except (OSError, RedisError) as error:
        raise ConfigurationError(
            f"Redis at {place} cannot be used ({_words(error)}); start it, or correct redis.url"
        ) from None
    finally:
        await client.aclose()
    oldest = ".".join(map(str, OLDEST_REDIS))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        raise ConfigurationError(f"Redis at {place} is too old ({version}); install {oldest} or newer")
    return RedisState(version, time.time() - seconds - microseconds / 1e6)


async def require_database(url: str) -> None:
    """The database answers and has the schema of this version. Raises ConfigurationError."""
    state = await database_state(url)
    if state.pending:
        raise ConfigurationError(
            f"the database {_place(url)} lacks {len(state.pending)} migration(s); run `crosslogic migrate`"
        )


def _place(url: str) -> str:
    """Where a URL leads, without its secrets."""
    parts = urlsplit(url)
    if not parts.hostname:
        return parts.path
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}{parts.path}"


def _cause(error: BaseException) -> BaseException:
    """The driver's own error; SQLAlchemy's messages carry statements and links."""
    while isinstance(error, SQLAlchemyError) and isinstance(getattr(error, "orig", None), BaseException):
        error = error.orig  # type: ignore[attr-defined]
    return error.__cause__ if isinstance(error.__cause__, asyncpg.PostgresError) else error


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
