"""Fixtures that every test may use: real databases and Redis, each test with its own, none with leftovers.

postgres_url    a new database of this session on a real PostgreSQL, empty
redis_url       a real Redis, perhaps with other users: name keys by `redis_prefix`
database_url    parametrised: SQLite file, then PostgreSQL; migrated, new for each test
engine          an engine on `database_url`
sqlite_url, postgres_database_url
                the two of them alone, migrated, new for each test
sqlite_template a migrated SQLite file to copy
sqlite_engine, postgres_engine
                an engine on one of them
"""

import asyncio
import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import settings
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store import migrate
from crosslogic.store.engine import create_engine
from tests.examples import MOST, NIGHTLY
from tests.servers import postgres_server, redis_server

settings.register_profile("nightly", max_examples=MOST, deadline=None)
if NIGHTLY:
    settings.load_profile("nightly")

# As `crosslogic` itself has it: before NumPy is imported, and for the processes that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_configure() -> None:
    # A shell starts its background jobs with SIGINT ignored, and every child would inherit that: tests that
    # interrupt programs would then wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What starts processes and waits for them meets the machine's other work. Once more is allowed, and told (`-rR`);
# twice is a failure. Whatever decides, `unit` and `property`, has no such excuse.
_WITH_PROCESSES = ("flow", "chaos", "engine", "contract")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(tests) and item.path.relative_to(tests).parts[0] in _WITH_PROCESSES:
            item.add_marker(pytest.mark.flaky(reruns=1))


def _named(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


async def _execute(url: str, statement: str) -> None:
    conn = await asyncpg.connect(url, timeout=10)
    try:
        await conn.execute(statement)
    finally:
        await conn.close()


async def _migrate(url: str) -> None:
    engine = create_engine(url)
    try:
        await migrate.upgrade(engine)
    finally:
        await engine.dispose()


def _scratch(server: str, template: str | None = None) -> Iterator[str]:
    name = f"crosslogic_test_{secrets.token_hex(6)}"
    like = f' TEMPLATE "{template}"' if template else ""
    asyncio.run(_execute(server, f'CREATE DATABASE "{name}"{like}'))
    try:
        yield _named(server, name)
    finally:
        asyncio.run(_execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def _postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url(_postgres: str) -> Iterator[str]:
    """An empty database that exists for this session only."""
    yield from _scratch(_postgres)


@pytest.fixture(scope="session")
def _postgres_template(_postgres: str) -> Iterator[str]:
    """Name of a migrated database that new ones are copied from, which takes a fraction of migrating."""
    for url in _scratch(_postgres):
        asyncio.run(_migrate(url))
        yield urlsplit(url).path[1:]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file; copy it."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    asyncio.run(_migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite file of this test alone."""
    path = tmp_path / "crosslogic.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_database_url(_postgres: str, _postgres_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of this test alone."""
    yield from _scratch(_postgres, _postgres_template)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of this test alone, once on each of the two databases."""
    fixture = "sqlite_url" if request.param == "sqlite" else "postgres_database_url"
    return str(request.getfixturevalue(fixture))


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def sqlite_engine(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(sqlite_url)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def postgres_engine(postgres_database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(postgres_database_url)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A real Redis. Other programs may use it too: name keys by `redis_prefix`, and never flush."""
    with redis_server() as url:
        yield url


@pytest.fixture
def redis_prefix() -> str:
    """What this test's keys begin with."""
    return f"test:{secrets.token_hex(6)}:"
