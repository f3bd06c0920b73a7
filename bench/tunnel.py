"""`python -m bench.tunnel`: what a tunnel costs, against the same engine reached directly, in the same run.

One gateway worker, one agent, and an upstream that costs next to nothing; only the way between gateway and engine
differs. The load alternates between both ways, so that whatever else keeps the machine busy falls on both. Prints
requests a second of short answers and events a second of streams for each, and the ratio tunnel/direct.
"""

import argparse
import contextlib
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import yaml

from bench.load import Pool, Request, chat_request
from bench.processes import Processes, free_port, raise_file_limit
from bench.upstream import MODEL

CROSSLOGIC = Path(sys.executable).parent / "crosslogic"
EVENTS = 64


class Site:
    """Control, one gateway worker, and one upstream: as a node of the configuration, or behind an agent's tunnel."""

    def __init__(self, processes: Processes, directory: Path, *, tunnel: bool) -> None:
        self.name = "tunnel" if tunnel else "direct"
        directory.mkdir()
        self.port, control, agent_port, self._tunnel_port = (free_port() for _ in range(4))
        self._upstream = free_port()
        self._control = f"http://127.0.0.1:{control}"
        self._processes, self._directory = processes, directory
        admin_key = secrets.token_urlsafe(32)
        config = {
            "data_dir": str(directory / "data"),
            "database": {"url": f"sqlite:///{directory / 'crosslogic.db'}"},
            "server": {
                "host": "127.0.0.1",
                "port": self.port,
                "tunnel_port": self._tunnel_port,
                "tunnel_listen": "127.0.0.1",
            },
            "control": {"host": "127.0.0.1", "port": control, "agent_port": agent_port, "agent_listen": "127.0.0.1"},
            "enable_auth": False,
            "enable_rate_limit": False,
            "log": {"access": False, "level": "warning"},
        }
        if not tunnel:
            config["nodes"] = [{"endpoint": f"http://127.0.0.1:{self._upstream}"}]
        path = directory / "crosslogic.yaml"
        path.write_text(yaml.safe_dump(config))
        self._env = {"CROSSLOGIC_CONFIG": str(path), "CROSSLOGIC_AUTH__ADMIN_KEY": admin_key}
        self._admin = httpx.Client(
            base_url=self._control, headers={"authorization": f"Bearer {admin_key}"}, trust_env=False, timeout=30
        )
        self._start(tunnel=tunnel)

    def _start(self, *, tunnel: bool) -> None:
        upstream = [sys.executable, "-m", "bench.upstream", "--port", str(self._upstream), "--chunks", str(EVENTS)]
        self._run("upstream", [*upstream, "--interval-ms", "0"], f"http://127.0.0.1:{self._upstream}/stats")
        self._processes.run("migrate", [CROSSLOGIC, "migrate"], self._env)
        self._run("control", [CROSSLOGIC, "control"], f"{self._control}/health")
        self._run("gateway", [CROSSLOGIC, "gateway"], f"http://127.0.0.1:{self.port}/health")
        if tunnel:
            token = self._admin.post("/admin/node-tokens", json={"region": "bench"}).raise_for_status().json()["token"]
            agent: list[str | Path] = [CROSSLOGIC, "agent", "--control", self._control, "--token", token]
            agent += ["--data-dir", self._directory / "agent", "--engine-url", f"http://127.0.0.1:{self._upstream}"]
            agent += ["--tunnel", f"127.0.0.1:{self._tunnel_port}", "--cloud", "local", "--no-benchmark"]
            self._processes.start(f"{self.name}-agent", agent, _cores())
        deadline_s = time.monotonic() + 60
        while not self._serves():
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{self.name}: no answer; {self._processes.tail(f'{self.name}-gateway')}")
            time.sleep(0.2)

    def _run(self, name: str, argv: list[str | Path] | list[str], url: str) -> None:
        process = self._processes.start(f"{self.name}-{name}", argv, _cores(), self._env)
        self._processes.wait_ready(f"{self.name}-{name}", process, url, 60)

    def _serves(self) -> bool:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 16}
        with contextlib.suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
            return httpx.post(url, json=body, trust_env=False, timeout=10).status_code == 200
        return False

    def rate(self, request: Request, connections: int, seconds: float) -> float:
        """Right answers a second of so many callers, each of whom asks again at once."""
        with Pool(self.port, connections) as pool:
            pool.closed(request, per_connection=2)  # so that all connections stand
            outcome = pool.closed(request, seconds=seconds)
        if outcome.failed:
            raise SystemExit(f"{self.name}: {dict(outcome.faults)}")
        return outcome.per_second


def _cores() -> set[int]:
    return os.sched_getaffinity(0)


@contextlib.contextmanager
def _sites() -> Iterator[tuple[Site, Site]]:
    with tempfile.TemporaryDirectory() as name, Processes(Path(name)) as processes:
        yield (
            Site(processes, Path(name) / "direct", tunnel=False),
            Site(processes, Path(name) / "tunnel", tunnel=True),
        )


def measure(seconds: float, rounds: int, connections: int) -> dict[str, dict[str, float]]:
    """Medians over the rounds: answers (or events) a second by way, and the ratio."""
    found: dict[str, dict[str, float]] = {}
    with _sites() as (direct, tunnel):
        for kind, events in (("short answers", 0), ("stream events", EVENTS)):
            rates: dict[str, list[float]] = {direct.name: [], tunnel.name: []}
            for _ in range(rounds):
                for site in (direct, tunnel):
                    request = chat_request(site.port, {}, stream_chunks=events)
                    rates[site.name].append(site.rate(request, connections, seconds) * max(1, events))
            medians = {name: statistics.median(each) for name, each in rates.items()}
            found[kind] = {**medians, "ratio": medians["tunnel"] / medians["direct"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    raise_file_limit()
    found = measure(given.seconds, given.rounds, given.connections)
    if given.json:
        print(json.dumps(found))
        return
    for kind, rates in found.items():
        print(f"{kind}: direct {rates['direct']:,.0f}/s, tunnel {rates['tunnel']:,.0f}/s, ratio {rates['ratio']:.2f}")


if __name__ == "__main__":
    main()
