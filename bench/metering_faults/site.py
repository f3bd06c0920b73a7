"""The whole product on one machine, and somebody who starts again what has ended, as a supervisor of services does.

Two controls of which one leads, a gateway with two workers, simulated nodes with books, PostgreSQL behind a door and
on a disk of its own, Redis, and the journal on a disk of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.flow.clouds import LLAMA
from tests.flow.processes import Program, run
from tests.flow.production import PLENTY, Redis
from tests.flow.workers import workers_of
from tests.ports import free_port

from bench.metering_faults.clocks import WallClock
from bench.metering_faults.disks import Disk
from bench.metering_faults.door import Door
from bench.metering_faults.postgres import Postgres

NODES = 5
WORKERS = 2
SPEEDUP = 4.0  # of the nodes: a token in some 2 ms
START_S = 180.0  # on a machine with much other work
LEASE_S = 3.0  # of who leads among the controls
SERVING_SOCKETS = 12  # of a worker: its own few, and those of callers and nodes
ORGS = ("acme", "globex", "initech")
INPUT_USD, CACHED_USD, OUTPUT_USD = "0.20", "0.05", "0.60"  # for a million tokens
JOURNAL_MB, DATABASE_MB = 512, 3072


class Void(Exception):
    """The run says nothing, neither good nor bad: what it was to look at did not come up."""


class Site:
    """Use as a context manager."""

    def __init__(self, directory: Path, *, mounts: bool) -> None:
        self.directory = directory
        self.journal_disk = Disk(directory / "journal", JOURNAL_MB, mounts=mounts)
        self.database_disk = Disk(directory / "database", DATABASE_MB, mounts=mounts)
        self.postgres = Postgres(directory, self.database_disk.path)
        self.door = Door(self.postgres.url)
        self.redis = Redis(directory)
        self.clock = WallClock(directory)
        self.restarts: Counter[str] = Counter()  # by the supervisor
        self.gateway: Program | None = None
        self.controls: list[Program | None] = [None, None]
        self._ports = {"gateway": free_port(), "control-0": free_port(), "control-1": free_port()}
        self.node_ports = [free_port() for _ in range(NODES)]
        self.nodes: list[subprocess.Popen[bytes] | None] = [None] * NODES
        self.held: set[int] = set()  # nodes that are not to be started again yet
        self.stopped: set[int] = set()  # workers that stand still: what they could not mark they must not die with
        self.deaths: list[float] = []  # of processes of the gateway, on the monotonic clock
        self.keys: list[str] = []
        self._admin_key = secrets.token_urlsafe(32)
        self._config_file = directory / "crosslogic.yaml"
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    @property
    def port(self) -> int:
        return self._ports["gateway"]

    def book(self, node: int) -> Path:
        return self.directory / f"node-{node}"

    def __enter__(self) -> Site:
        try:
            self._open()
        except BaseException as error:
            self.__exit__()
            if isinstance(error, Exception):
                raise Void(f"it did not start: {type(error).__name__}: {error}") from error
            raise
        return self

    def _open(self) -> None:
        self.postgres.create()
        self.door.open()
        self.redis.start()
        self._config_file.write_text(yaml.safe_dump(self._config()))
        for node in range(NODES):
            self.start_node(node)
        migrated = run("migrate", env=self._environment(), timeout_s=START_S)
        if migrated.returncode != 0:
            raise Void(f"the database cannot be made: {migrated.stderr[-1000:]}")
        self._keep_running()
        self._keeper.start()
        self.until("control answers", lambda: self._admin("GET", "/health") is not None)
        for org in ORGS:
            self.until("a key could be made", partial(self._make_key, org))
        self.until("all serve", self.serves)

    def _make_key(self, org: str) -> bool:
        """Tried again as long as the machine is too busy to answer in time: what was made then stays unused."""
        self._admin("POST", "/admin/orgs", {"name": org})
        self._admin("POST", f"/admin/orgs/{org}/environments", {"name": "prod"})
        name = f"key-{secrets.token_hex(4)}"
        made = self._admin("POST", "/admin/keys", {"org": org, "environment": "prod", "name": name})
        if made is not None:
            self.keys.append(made["key"])
        return made is not None

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join(30)
        for program in (self.gateway, *self.controls):
            if program is not None:
                self._kill_all(program)
        self.close_nodes()
        self.redis.stop()
        with contextlib.suppress(Exception):
            self.door.shut()
        with contextlib.suppress(Exception):
            self.postgres.resume()
        self.postgres.stop_at_once()
        self.journal_disk.close()
        self.database_disk.close()

    # -- what there is

    def workers(self) -> list[int]:
        gateway = self.gateway
        if gateway is None or gateway.process.poll() is not None:
            return []
        with contextlib.suppress(OSError):
            return workers_of(gateway)
        return []

    def serves(self) -> bool:
        """Whether gateway, its workers and the controls answer."""
        if len(self.workers()) < WORKERS:
            return False
        headers = {"authorization": f"Bearer {self.keys[0]}"}
        with contextlib.suppress(httpx.HTTPError, ValueError):
            for _ in range(2 * WORKERS):
                url = f"http://127.0.0.1:{self.port}/v1/models"
                listed = httpx.get(url, headers=headers, trust_env=False, timeout=3)
                if listed.status_code != 200 or LLAMA not in listed.text:
                    return False
            return all(self._admin("GET", "/health", control=number) is not None for number in (0, 1))
        return False

    def until(self, what: str, true: Callable[[], object], timeout_s: float = START_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline:
                raise Void(f"not within {timeout_s:.0f} s: {what}; {self._tails()}")
            time.sleep(0.2)

    def errors(self) -> Counter[str]:
        """What the product's logs call errors, without numbers."""
        found: Counter[str] = Counter()
        for log in self.directory.glob("*/*.log"):
            for line in log.read_text(errors="replace").splitlines():
                if '"level":"error"' in line or "Traceback" in line or re.match(r"[\w.]+(Error|Exception)\b", line):
                    _, _, words = line.partition('"logger":')
                    found[re.sub(r"\d+", "N", words or line)[:160]] += 1
        return found

    def _tails(self) -> str:
        programs = [program for program in (self.gateway, *self.controls) if program is not None]
        return " | ".join(f"{program.log.name}: {program.tail()[-600:]}" for program in programs)

    # -- nodes

    def start_node(self, node: int) -> None:
        command = [sys.executable, "-m", "bench.metering_faults.node", "--port", str(self.node_ports[node])]
        command += ["--seed", str(node), "--speedup", str(SPEEDUP), "--book", str(self.book(node))]
        with (self.directory / "nodes.log").open("ab") as log:
            self.nodes[node] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def node_is_up(self, node: int) -> bool:
        process = self.nodes[node]
        if node in self.held or process is None or process.poll() is not None:
            return False
        with contextlib.suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{self.node_ports[node]}/health"
            return httpx.get(url, trust_env=False, timeout=2).status_code == 200
        return False

    def close_nodes(self) -> None:
        """For good."""
        self.held.update(range(NODES))
        for process in self.nodes:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    # -- what runs, and runs again

    def _keep(self) -> None:
        while not self._closing.wait(0.25):
            with contextlib.suppress(OSError):
                self._keep_running()

    def _keep_running(self) -> None:
        if self.gateway is None or self.gateway.process.poll() is not None:
            self.restarts["gateway"] += self.gateway is not None
            self.gateway = self._start("gateway", "--workers", WORKERS)
        for number, control in enumerate(self.controls):
            if control is None or control.process.poll() is not None:
                self.restarts["control"] += control is not None
                self.controls[number] = self._start("control", number=number)
        for node, process in enumerate(self.nodes):
            if node not in self.held and process is not None and process.poll() is not None:
                self.start_node(node)

    def _start(self, *arguments: object, number: int = 0) -> Program:
        environment = self._environment() | self.clock.environment
        if arguments[0] == "control":
            environment["CROSSLOGIC_CONTROL__PORT"] = str(self._ports[f"control-{number}"])
        return Program(list(arguments), self.directory / f"{arguments[0]}-{number}", environment)

    def kill_gateway(self, spared: int | None = None) -> None:
        """The parent and its workers at the same time, but for one."""
        gateway = self.gateway
        if gateway is not None:
            self.deaths.append(time.monotonic())
            self._kill_all(gateway, spared)

    def _kill_all(self, program: Program, spared: int | None = None) -> None:
        with contextlib.suppress(OSError):
            children = [pid for pid in program.children() if pid != spared]
            program.process.kill()
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        program.kill()

    def _environment(self) -> dict[str, str]:
        return {"CROSSLOGIC_AUTH__ADMIN_KEY": self._admin_key, "CROSSLOGIC_CONFIG": str(self._config_file)}

    def _admin(self, method: str, path: str, body: object = None, *, control: int = 0) -> Any:
        """The answer's JSON ({} where there is none); None when there is no good answer."""
        url = f"http://127.0.0.1:{self._ports[f'control-{control}']}{path}"
        headers = {"authorization": f"Bearer {self._admin_key}"}
        try:
            answer = httpx.request(method, url, json=body, headers=headers, trust_env=False, timeout=10)
        except httpx.HTTPError:
            return None
        if not answer.is_success:
            return None
        with contextlib.suppress(ValueError):
            return answer.json()
        return {}

    def _config(self) -> dict[str, Any]:
        return {
            "data_dir": str(self.directory / "data"),
            "journal": {"dir": str(self.journal_disk.path)},
            "server": {"host": "127.0.0.1", "port": self.port, "drain_s": 5},
            "control": {"host": "127.0.0.1", "port": self._ports["control-0"]},
            "database": {"url": self.door.url},
            "redis": {"url": self.redis.url},
            "limits": dict.fromkeys(("global", "org", "env", "key"), PLENTY),
            "fleet": {"probe_interval_s": 1.0},
            "timeouts": {"connect_s": 1.0, "first_token_s": 3.0, "idle_s": 2.0, "total_s": 60.0},
            "scheduling": {"continuations": 5},
            "distributed": {"lease_ttl_s": LEASE_S},
            "log": {"access": False},
            "enable_billing": True,
            "billing": {"credits": {"free_tokens_per_month": 0}},
            "prices": {
                LLAMA: {
                    "input_usd_per_million": INPUT_USD,
                    "cached_input_usd_per_million": CACHED_USD,
                    "output_usd_per_million": OUTPUT_USD,
                }
            },
            "nodes": [
                {"endpoint": f"http://127.0.0.1:{port}", "type": "vllm", "models": [LLAMA]} for port in self.node_ports
            ],
        }

    def leading_control(self) -> int | None:
        """The process id of the control that holds the lease, by what the database says."""
        query = "SELECT p.address FROM leases l JOIN processes p ON p.id = l.holder WHERE l.name = 'crosslogic-control'"
        found: list[Any] = []
        with contextlib.suppress(Exception):  # the database may be away
            found = self.postgres.execute(query)
        for row in found:
            for number, control in enumerate(self.controls):
                if control is not None and row["address"].endswith(f":{self._ports[f'control-{number}']}"):
                    return control.pid
        return None

    def a_worker(self, rng: random.Random) -> int | None:
        """One that serves: most callers' connections end there, not at one that has just begun."""
        workers = [pid for pid in self.workers() if pid not in self.stopped and _sockets(pid) >= SERVING_SOCKETS]
        return rng.choice(workers) if workers else None


def _sockets(pid: int) -> int:
    count = 0
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += os.readlink(descriptor).startswith("socket:")
    return count
