"""Nodes that nobody announces the end of: killed (SIGKILL, started again) or stopped for a while (SIGSTOP).

`crosslogic up` with the nodes in its configuration, as in a rack of one's own. One node is always left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from bench.chaos.engines import Engine
from bench.processes import Processes, free_port, http_get

CROSSLOGIC = Path(sys.executable).parent / "crosslogic"


class Rack:
    def __init__(self, processes: Processes, directory: Path, engine: Engine, count: int, rng: random.Random) -> None:
        self._processes, self._directory, self._engine, self._rng = processes, directory, engine, rng
        self._ports = [free_port() for _ in range(count)]
        self._running: list[subprocess.Popen[bytes] | None] = [None] * count
        self._stopped: set[int] = set()
        self.done: Counter[str] = Counter()
        self.port = free_port()
        self.key = ""

    def open(self) -> None:
        """Returns when all nodes serve."""
        for number in range(len(self._ports)):
            self._start(number)
        self._until_up(range(len(self._ports)))
        idle_s, first_s = self._engine.idle_s, self._engine.first_token_s
        config = {
            "timeouts": {"connect_s": 1.0, "first_token_s": first_s, "idle_s": idle_s, "total_s": 120.0},
            "scheduling": {"continuations": 5},
            "fleet": {"probe_interval_s": 1.0},
            "log": {"access": False},
            "nodes": [self._node(port) for port in self._ports],
        }
        path, ready = self._directory / "crosslogic.yaml", self._directory / "ready.json"
        path.write_text(yaml.safe_dump(config))
        argv = [CROSSLOGIC, "up", "--port", str(self.port), "--config", path, "--data-dir", self._directory / "data"]
        gateway = self._processes.start("gateway", [*argv, "--ready-file", ready], _cores())
        self._processes.wait_ready("gateway", gateway, f"http://127.0.0.1:{self.port}/ready", 60)
        while not ready.exists():
            time.sleep(0.05)
        self.key = json.loads(ready.read_text())["api_key"]

    @property
    def database(self) -> Path:
        return self._directory / "data" / "crosslogic.db"

    def rescues(self) -> list[str]:
        found = http_get(f"http://127.0.0.1:{self.port}/metrics")[1].decode().splitlines()
        return [line for line in found if line.startswith("gateway_rescues_total{")]

    async def strike(self, what: str) -> None:
        """To one of the nodes that are up, while another one is."""
        await asyncio.sleep(self._rng.uniform(0.2, 0.8))
        while len(able := await asyncio.to_thread(self._up)) < 2:
            await asyncio.sleep(0.1)
        number = self._rng.choice(able)
        process = self._running[number]
        assert process is not None
        self.done[what] += 1
        if what == "kill":
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)
            self._start(number)
        else:
            self._stopped.add(number)
            os.killpg(process.pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(self._engine.idle_s + 1, self._wake, number, process)

    async def calm_down(self) -> None:
        while self._stopped:
            await asyncio.sleep(0.1)

    def _wake(self, number: int, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        self._stopped.discard(number)

    def _start(self, number: int) -> None:
        argv = self._engine.argv(self._ports[number])
        self._running[number] = self._processes.start(f"node{number}", argv, _cores(), self._engine.environment)

    def _node(self, port: int) -> dict[str, Any]:
        node = {"endpoint": f"http://127.0.0.1:{port}", "type": "vllm", "models": [self._engine.model]}
        return node | ({"api_key": self._engine.key} if self._engine.key else {})

    def _up(self) -> list[int]:
        return [number for number in range(len(self._ports)) if self._is_up(number)]

    def _is_up(self, number: int) -> bool:
        if number in self._stopped:
            return False
        try:
            return http_get(f"http://127.0.0.1:{self._ports[number]}/health", timeout_s=1.0)[0] == 200
        except OSError:
            return False

    def _until_up(self, numbers: range) -> None:
        deadline_s = time.monotonic() + self._engine.start_s
        while len(self._up()) < len(numbers):
            if time.monotonic() > deadline_s:
                raise SystemExit(f"the nodes do not serve: {self._processes.tail('node0')}")
            time.sleep(0.2)


def _cores() -> range:
    return range(os.cpu_count() or 1)
