"""The production shape for the overload measurement: Redis, control, two gateway workers, slow simulated nodes."""

from __future__ import annotations

import json
import os
import secrets
import urllib.request
from pathlib import Path
from typing import Any

from bench.crosslogic_peer import CROSSLOGIC, redis_program
from bench.processes import Processes, free_port, http_get

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
WORKERS = 2
NODES = 2
PLACES = 16  # of each node
TIMEOUT_S = 15.0  # longest wait in the queue
_PLENTY = {"requests_per_minute": 10_000_000, "tokens_per_minute": 10_000_000_000, "concurrency": 1_000_000}
_START_S = 90


class Site:
    """Everything that runs; orgs are made as they are asked for."""

    def __init__(self, processes: Processes, scratch: Path, *, speedup: float) -> None:
        self._processes = processes
        self._cores = sorted(os.sched_getaffinity(0))
        self._admin_key = secrets.token_urlsafe(32)
        self.port, control_port, redis_port = free_port(), free_port(), free_port()
        self._control_url = f"http://127.0.0.1:{control_port}"
        ports = [free_port() for _ in range(NODES)]
        config = scratch / "crosslogic.yaml"
        config.write_text(json.dumps(self._configuration(scratch, control_port, redis_port, ports)))
        self._env = {"CROSSLOGIC_AUTH__ADMIN_KEY": self._admin_key, "CROSSLOGIC_CONFIG": str(config)}
        redis = [redis_program(), "--port", redis_port, "--bind", "127.0.0.1", "--dir", scratch, "--save", ""]
        processes.start("redis", map(str, redis), self._cores)
        for number, port in enumerate(ports):
            node = ["simulate", "--port", port, "--model", MODEL, "--speedup", speedup, "--seed", number]
            processes.start(f"node-{number}", map(str, [CROSSLOGIC, *node]), self._cores)
        processes.run("migrate", [CROSSLOGIC, "migrate"], self._env)
        self._start("control", f"{self._control_url}/health")
        self._start("gateway", f"http://127.0.0.1:{self.port}/ready", "--workers", str(WORKERS))

    def org(self, name: str, plan: str) -> str:
        """A new org on that plan; returns a key of it."""
        self._post("/admin/orgs", {"name": name, "billing_plan": plan})
        self._post(f"/admin/orgs/{name}/environments", {"name": "prod"})
        made = self._post("/admin/keys", {"org": name, "environment": "prod", "name": "bench"})
        return str(made["key"])

    def reserve(self, org: str, units: int) -> None:
        """So many capacity units, whatever the nodes say that they can carry."""
        body = {"org": org, "model": MODEL, "units": units, "lasts_s": 3600.0, "force": True}
        self._post("/admin/capacity/reservations", body)

    def serves(self, key: str) -> bool:
        status, body = http_get(f"http://127.0.0.1:{self.port}/v1/models", {"authorization": f"Bearer {key}"})
        return status == 200 and MODEL.encode() in body

    def _start(self, name: str, url: str, *arguments: str) -> None:
        process = self._processes.start(name, [CROSSLOGIC, name, *arguments], self._cores, self._env)
        self._processes.wait_ready(name, process, url, _START_S)

    def _post(self, path: str, body: dict[str, object]) -> Any:
        headers = {"authorization": f"Bearer {self._admin_key}", "content-type": "application/json"}
        request = urllib.request.Request(self._control_url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def _configuration(self, scratch: Path, control_port: int, redis_port: int, ports: list[int]) -> dict[str, Any]:
        features = ["api_access", "priority_queue"]
        return {
            "data_dir": str(scratch / "data"),
            "server": {"host": "127.0.0.1", "port": self.port, "drain_s": 2},
            "control": {"host": "127.0.0.1", "port": control_port},
            "redis": {"url": f"redis://127.0.0.1:{redis_port}/0"},
            "limits": dict.fromkeys(("global", "org", "env", "key"), _PLENTY),
            "enable_queuing": True,
            "enable_priority": True,
            "scheduling": {"max_requests_per_node": PLACES},
            "queue": {"max_size": 4000, "max_size_per_tenant": 400, "timeout_s": TIMEOUT_S},
            "tiers": [{"id": f"weight-{weight}", "weight": weight, "features": features} for weight in (1, 2, 4)],
            "log": {"level": "warning", "access": False},
            "nodes": [{"endpoint": f"http://127.0.0.1:{port}", "type": "vllm", "models": [MODEL]} for port in ports],
        }
