"""`python -m bench.agents --agents 2000`: many simulated agents in one process against one real control process.

Prints how much of a core control takes while all of them report every five seconds, over gRPC with mutual TLS, and how
old the routing table of a gateway worker is: how long a change of status needs to be seen there, and the age of the
load that it knows.
"""

import argparse
import asyncio
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from bench.processes import free_port, raise_file_limit
from crosslogic.agent.joining import join
from crosslogic.agent.link import Away, Link
from crosslogic.agent.papers import Papers
from crosslogic.fleet.model import Node
from crosslogic.fleet.sync import NodeSync
from crosslogic.fleet.wire import node_agent_pb2 as wire
from crosslogic.store.changes import Following
from crosslogic.store.engine import create_engine

INTERVAL_S = 5.0
METRICS_EVERY = 3  # heartbeats: every 15 s
JOINS_AT_ONCE = 16
START_S = 300.0  # on a busy machine


class Table:
    """A gateway worker's picture of the fleet, through the same feed that workers follow."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def update(self, nodes: list[Node]) -> None:
        self.nodes = {node.id: node for node in nodes}


class Fleet:
    """Simulated agents: each has its own certificate and its own connection."""

    def __init__(self, agents: int, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._agents = agents
        self._links: list[Link] = []
        self.beats = 0
        self.failed = 0
        self.failed_registrations = 0
        self.slowest_s = 0.0

    async def join(self, control_url: str, admin: httpx.AsyncClient) -> None:
        gate = asyncio.Semaphore(JOINS_AT_ONCE)

        async def one(number: int) -> Papers:
            async with gate:
                made = await admin.post("/admin/node-tokens", json={"region": "bench"})
                return await join(control_url, made.raise_for_status().json()["token"], f"agent-{number:05d}")

        papers = await asyncio.gather(*(one(number) for number in range(self._agents)))
        self._links = [Link(each) for each in papers]

    async def register(self) -> None:
        gate = asyncio.Semaphore(JOINS_AT_ONCE)

        async def one(number: int, link: Link) -> None:
            async with gate:
                endpoint = f"http://10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000"
                request = wire.RegisterRequest(endpoint_url=endpoint, models=["m"], status=wire.ACTIVE, backend="vllm")
                while True:
                    try:
                        await link.register(request)
                        return
                    except Away:  # agents try again, too
                        self.failed_registrations += 1
                        await asyncio.sleep(0.5)

        await asyncio.gather(*(one(number, link) for number, link in enumerate(self._links)))

    async def report(self) -> None:
        """For ever: heartbeats of a load that moves, metrics with every third."""
        await asyncio.gather(*(self._one(link) for link in self._links))

    async def _one(self, link: Link) -> None:
        await asyncio.sleep(self._random.random() * INTERVAL_S)
        turn = self._random.randrange(METRICS_EVERY)
        due_s = time.monotonic()
        while True:
            load = wire.Load(requests_running=self._random.randrange(64), requests_waiting=self._random.randrange(4))
            began_s = time.monotonic()
            try:
                await link.heartbeat(wire.HeartbeatRequest(status=wire.ACTIVE, load=load))
                if turn % METRICS_EVERY == 0:
                    samples = {f"vllm:metric_{number}": float(number) for number in range(20)}
                    await link.metrics(wire.MetricsRequest(load=load, engine=samples))
            except Exception:
                self.failed += 1
            self.beats += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            turn += 1
            due_s += INTERVAL_S
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def load_seen_after_s(self, table: Table, number: int) -> float:
        """From a heartbeat with another load until a worker's table has it."""
        running = 1_000
        began_s = time.monotonic()
        load = wire.Load(requests_running=running)
        await self._links[number].heartbeat(wire.HeartbeatRequest(status=wire.ACTIVE, load=load))
        while table.nodes[f"agent-{number:05d}"].load.requests_running != running:
            await asyncio.sleep(0.005)
            if time.monotonic() - began_s > 4.0:  # its own next heartbeat came first
                return await self.load_seen_after_s(table, number - 1)
        return time.monotonic() - began_s

    async def close(self) -> None:
        await asyncio.gather(*(link.close() for link in self._links))


async def measure(agents: int, seconds: float, database_url: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="crosslogic-bench-") as name:
        directory = Path(name)
        control = Control(directory, database_url or f"sqlite:///{directory / 'bench.db'}")
        try:
            control.spawn()
            await control.ready()
            return await _measured(control, agents, seconds)
        finally:
            control.stop()


class Control:
    """One real control process."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.database_url = database_url
        self._admin_key = secrets.token_urlsafe(32)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = {
            "data_dir": str(directory),
            "database": {"url": database_url},
            "control": {"host": "127.0.0.1", "port": port, "agent_port": free_port(), "agent_listen": "127.0.0.1"},
            "fleet": {"heartbeat_interval_s": INTERVAL_S, "dead_after_s": 600.0},
            "log": {"level": "warning"},
        }
        (directory / "crosslogic.yaml").write_text(yaml.safe_dump(config))
        self._env = os.environ | {
            "CROSSLOGIC_CONFIG": str(directory / "crosslogic.yaml"),
            "CROSSLOGIC_AUTH__ADMIN_KEY": self._admin_key,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        command = [sys.executable, "-m", "crosslogic.cli"]
        subprocess.run([*command, "migrate"], env=self._env, check=True, capture_output=True)
        self._process = subprocess.Popen([*command, "control"], env=self._env)

    async def ready(self) -> None:
        async with asyncio.timeout(START_S), httpx.AsyncClient(trust_env=False) as http:
            while True:
                try:
                    if (await http.get(f"{self.url}/health")).status_code == 200:
                        return
                except httpx.TransportError:
                    await asyncio.sleep(0.1)

    def admin(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self._admin_key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    def cpu_s(self) -> float:
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        assert self._process is not None
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


async def _measured(control: Control, agents: int, seconds: float) -> dict[str, Any]:
    fleet, table = Fleet(agents), Table()
    engine = create_engine(control.database_url)
    async with control.admin() as admin:
        began_s, cpu_s = time.monotonic(), control.cpu_s()
        await fleet.join(control.url, admin)
        await fleet.register()
        joined_s, joined_cpu_s = time.monotonic() - began_s, control.cpu_s() - cpu_s
        following = Following(engine, [NodeSync(engine, table.update)])
        await following.start()
        tasks = [asyncio.create_task(fleet.report()), asyncio.create_task(following.run())]
        await asyncio.sleep(2 * INTERVAL_S)  # the first round is over
        beats, cpu_s, began_s = fleet.beats, control.cpu_s(), time.monotonic()
        changes_s, loads_s = [], []
        while time.monotonic() - began_s < seconds:
            changes_s.append(await _seen_after_s(admin, table, f"agent-{len(changes_s):05d}"))
            loads_s.append(await fleet.load_seen_after_s(table, agents - 1 - len(loads_s)))
            await asyncio.sleep(0.5)
        lasted_s = time.monotonic() - began_s
        figures = {
            "agents": agents,
            "joined_s": round(joined_s, 1),
            "joined_cpu_s": round(joined_cpu_s, 1),
            "heartbeats_per_s": round((fleet.beats - beats) / lasted_s, 1),
            "failed": fleet.failed,
            "registrations_tried_again": fleet.failed_registrations,
            "slowest_call_s": round(fleet.slowest_s, 3),
            "control_core_share": round((control.cpu_s() - cpu_s) / lasted_s, 3),
            "control_rss_mb": round(control.rss_mb()),
            "status_seen_after_s_p50": round(_quantile(changes_s, 0.5), 3),
            "status_seen_after_s_max": round(max(changes_s), 3),
            "load_seen_after_s_p50": round(_quantile(loads_s, 0.5), 3),
            "load_seen_after_s_max": round(max(loads_s), 3),
        }
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await fleet.close()
    await engine.dispose()
    return figures


async def _seen_after_s(admin: httpx.AsyncClient, table: Table, node_id: str) -> float:
    """From the moment in which a drain is asked for until a worker's table says so."""
    began_s = time.monotonic()
    (await admin.post(f"/admin/nodes/{node_id}/drain")).raise_for_status()
    while table.nodes[node_id].status.value != "draining":
        await asyncio.sleep(0.005)
    return time.monotonic() - began_s


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--database", help="an empty PostgreSQL database; SQLite when absent")
    options = parser.parse_args()
    raise_file_limit()
    figures = asyncio.run(measure(options.agents, options.seconds, options.database))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["control_core_share"] < 0.5 and figures["status_seen_after_s_p50"] <= 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
