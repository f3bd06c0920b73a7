"""Nodes whose end is announced: a spot notice and then the death of the machine, or a drain.

Control, a gateway and one agent for each machine, which starts its engine, hears of the notice at a metadata service
(of AWS, Google Cloud and Azure in turn), and leaves. A machine that is gone is replaced by a new one with a join token
of its own. One node is always left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.clouds_metadata import MetadataServer

from bench.chaos.engines import Engine
from bench.chaos.rack import CROSSLOGIC, _cores
from bench.processes import Processes, free_port, http_get

CLOUDS = ("aws", "gcp", "azure")
LEAVES_WITHIN_S = 60.0  # that a drain may take; answers take a few seconds


class Machine:
    """One rented machine: its agent, the engine that this started, and what its cloud says."""

    def __init__(self, name: str, directory: Path, cloud: str) -> None:
        self.name, self.directory, self.cloud = name, directory, cloud
        self.metadata = MetadataServer(cloud)
        self.metadata.__enter__()
        self.port = free_port()
        self.agent: subprocess.Popen[bytes] | None = None
        self.leaving = False

    def engine_pid(self) -> int | None:
        try:
            return int(json.loads((self.directory / "engine.json").read_text())["pid"])
        except (FileNotFoundError, ValueError):
            return None

    def die(self) -> None:
        """All that runs on it ends at once."""
        engine = self.engine_pid()
        if self.agent is not None and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait()
        if engine is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(engine, signal.SIGKILL)
        self.metadata.__exit__()


class Rented:
    """`grace_s` lies between a notice and the death: the clouds give 30 to 120 s, and answers here take a few."""

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        engine: Engine,
        count: int,
        rng: random.Random,
        grace_s: float = 15.0,
    ) -> None:
        self._processes, self._directory, self._engine, self._rng = processes, directory, engine, rng
        self._grace_s = grace_s
        self._count, self._made = count, 0
        self._machines: list[Machine] = []
        self._replacing: set[asyncio.Task[None]] = set()
        self._admin_key = secrets.token_urlsafe(32)
        self.done: Counter[str] = Counter()
        self.late: list[str] = []  # what did not leave in time
        self.port, self._control_port, self._agent_port = free_port(), free_port(), free_port()
        self.key = ""

    def open(self) -> None:
        """Returns when all nodes serve."""
        idle_s, first_s = self._engine.idle_s, self._engine.first_token_s
        config = {
            "data_dir": str(self._directory / "data"),
            "server": {"host": "127.0.0.1", "port": self.port},
            "control": {
                "host": "127.0.0.1",
                "port": self._control_port,
                "agent_port": self._agent_port,
                "agent_listen": "127.0.0.1",
            },
            "database": {"url": f"sqlite:///{self.database}"},
            "fleet": {"heartbeat_interval_s": 1.0, "dead_after_s": 10.0},
            "timeouts": {"connect_s": 1.0, "first_token_s": first_s, "idle_s": idle_s, "total_s": 120.0},
            "log": {"access": False},
        }
        path = self._directory / "crosslogic.yaml"
        path.write_text(yaml.safe_dump(config))
        env = {"CROSSLOGIC_CONFIG": str(path), "CROSSLOGIC_AUTH__ADMIN_KEY": self._admin_key}
        self._processes.run("migrate", [CROSSLOGIC, "migrate"], env)
        control = self._processes.start("control", [CROSSLOGIC, "control"], _cores(), env)
        self._processes.wait_ready("control", control, f"{self._control_url}/health", 60)
        gateway = self._processes.start("gateway", [CROSSLOGIC, "gateway", "--workers", "1"], _cores(), env)
        self._admin("POST", "/admin/orgs", {"name": "acme"})
        self._admin("POST", "/admin/orgs/acme/environments", {"name": "prod"})
        self.key = self._admin("POST", "/admin/keys", {"org": "acme", "environment": "prod", "name": "k"})["key"]
        for _ in range(self._count):
            self._rent()
        deadline_s = time.monotonic() + self._engine.start_s
        while len(self._active()) < self._count:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"the nodes do not join: {self._processes.tail('machine1')}")
            time.sleep(0.2)
        self._processes.wait_ready("gateway", gateway, f"http://127.0.0.1:{self.port}/ready", 60)

    @property
    def database(self) -> Path:
        return self._directory / "crosslogic.db"

    def rescues(self) -> list[str]:
        found = http_get(f"http://127.0.0.1:{self.port}/metrics")[1].decode().splitlines()
        return [line for line in found if line.startswith("gateway_rescues_total{")]

    async def strike(self, what: str) -> None:
        """To one of the machines that serve, while another one does."""
        await asyncio.sleep(self._rng.uniform(0.2, 0.8))
        while len(able := await asyncio.to_thread(self._active)) < 2:
            await asyncio.sleep(0.2)
        machine = self._rng.choice(able)
        machine.leaving = True
        self.done[what] += 1
        go = self._take_away if what == "notice" else self._drain
        task = asyncio.create_task(go(machine))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def calm_down(self) -> None:
        while self._replacing:
            await asyncio.gather(*self._replacing)

    def close(self) -> None:
        for machine in self._machines:
            machine.die()

    async def _take_away(self, machine: Machine) -> None:
        machine.metadata.take_away()
        await asyncio.sleep(self._grace_s)
        await asyncio.to_thread(self._replace, machine)

    async def _drain(self, machine: Machine) -> None:
        """By an operator, or by whoever stops the agent, in turn."""
        assert machine.agent is not None
        if self.done["drain"] % 2:
            await asyncio.to_thread(self._admin, "POST", f"/admin/nodes/{machine.name}/drain")
        else:
            machine.agent.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(machine.agent.wait, LEAVES_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.late.append(f"{machine.name} has not left {LEAVES_WITHIN_S:.0f} s after its drain")
        await asyncio.to_thread(self._replace, machine)

    def _replace(self, machine: Machine) -> None:
        machine.die()
        self._machines.remove(machine)
        self._rent()

    def _rent(self) -> None:
        self._made += 1
        name = f"machine{self._made}"
        directory = self._directory / name
        directory.mkdir(mode=0o700)
        machine = Machine(name, directory, CLOUDS[self._made % len(CLOUDS)])
        token = self._admin("POST", "/admin/node-tokens", {"region": "in"})["token"]
        argv: list[str | Path] = [CROSSLOGIC, "agent", "--control", self._control_url, "--data-dir", directory]
        argv += ["--node-id", name, "--port", str(machine.port), "--model", self._engine.model, "--no-benchmark"]
        env = self._engine.environment | {
            "CROSSLOGIC_AGENT__TOKEN": token,
            "CROSSLOGIC_AGENT__CLOUD": machine.cloud,
            "CROSSLOGIC_AGENT__SPOT": "true",
            "CROSSLOGIC_AGENT__SPOT_POLL_S": "0.5",
            f"CROSSLOGIC_AGENT__METADATA__{machine.cloud.upper()}_URL": machine.metadata.url,
            "CROSSLOGIC_AGENT__ENGINE_COMMAND": json.dumps(self._engine.argv(machine.port)),
        }
        if self._engine.key:
            env["CROSSLOGIC_AGENT__ENGINE_KEY"] = self._engine.key
        machine.agent = self._processes.start(name, argv, _cores(), env)
        self._machines.append(machine)

    def _active(self) -> list[Machine]:
        nodes = {node["node_id"] for node in self._admin("GET", "/admin/nodes")["data"] if node["status"] == "active"}
        return [machine for machine in self._machines if machine.name in nodes and not machine.leaving]

    @property
    def _control_url(self) -> str:
        return f"http://127.0.0.1:{self._control_port}"

    def _admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"authorization": f"Bearer {self._admin_key}"}
        answer = httpx.request(
            method, self._control_url + path, json=body, headers=headers, trust_env=False, timeout=30
        )
        return answer.raise_for_status().json()
