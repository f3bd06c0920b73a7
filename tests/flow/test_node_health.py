"""Nodes that fail or are slow, on real processes: they get less, then nothing, and come back; the last one is kept."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml

from tests.flow.clouds import CHAT, LLAMA, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import Program, eventually, run
from tests.ports import free_port

Row = dict[str, Any]
Found = TypeVar("Found")

USUAL = "slow_first_token=0.1"  # far more than a busy machine adds


class Fleet:
    """Two simulated nodes and a cloud that judges them twice a second."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
        self.programs = [self.start(url) for url in self.urls]
        config = directory / "crosslogic.yaml"
        health = {"interval_s": 0.5, "window_s": 6, "unhealthy_after_s": 1.0, "eject_s": 8, "min_requests": 5}
        settings = {
            "nodes": [{"endpoint": url, "type": "vllm", "models": [LLAMA]} for url in self.urls],
            "fleet": {"probe_interval_s": 0.5, "health": health},
        }
        config.write_text(yaml.safe_dump(settings))
        for url, program in zip(self.urls, self.programs, strict=True):
            program.wait_for(lambda url=url: answers(url))
            heal(url)
        self.cloud: EmbeddedCloud = start_up(directory, "--config", config)
        eventually(lambda: [n["status"] for n in self.cloud.nodes()] == ["active", "active"], 30)

    def start(self, url: str) -> Program:
        port = url.rpartition(":")[2]
        return Program(["simulate", "--port", port, "--model", LLAMA, "--speedup", 20], self._directory / port)

    def close(self) -> None:
        for program in (self.cloud.program, *self.programs):
            program.kill()

    def node(self, url: str) -> Row:
        (found,) = [node for node in self.cloud.nodes() if node["endpoint_url"] == url]
        return found

    def ask(self, requests: int) -> Counter[int]:
        """So many streams, four at a time; how they were answered."""
        with ThreadPoolExecutor(4) as threads:
            body = chat(max_tokens=4, stream=True)
            replies = list(threads.map(lambda _: self.cloud.ask(body, CHAT), range(requests)))
        return Counter(reply.status for reply in replies)

    def asked_until(self, wanted: Callable[[], Found], timeout_s: float = 40.0) -> Found:
        """Go on asking until `wanted` holds; what it found then."""

        def found() -> Found:
            self.ask(8)
            return wanted()

        return eventually(found, timeout_s, interval_s=0.1)

    def served(self, requests: int) -> Counter[str]:
        """Which node served how many of so many requests."""
        known = self.cloud.known_rows()
        assert self.ask(requests) == {200: requests}

        def new_rows() -> list[Row]:
            found = [row for row in self.cloud.rows() if row["request_id"] not in known]
            return found if len(found) >= requests else []

        return Counter(row["node_id"] for row in eventually(new_rows))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    yield fleet
    fleet.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def spoil(url: str, fault: str) -> None:
    """Every request of this node meets the fault, and no other."""
    heal(url, usual="")
    httpx.post(f"{url}/admin/faults", json={"fault": fault}, trust_env=False).raise_for_status()


def heal(url: str, usual: str = USUAL) -> None:
    httpx.delete(f"{url}/admin/faults", trust_env=False).raise_for_status()
    if usual:
        httpx.post(f"{url}/admin/faults", json={"fault": usual}, trust_env=False).raise_for_status()


def test_a_slow_node_is_ejected_said_so_and_back_when_it_is_quick_again(fleet: Fleet) -> None:
    slow, _ = fleet.urls
    fleet.asked_until(lambda: min(fleet.served(20).values()) >= 5)
    fleet.asked_until(lambda: {n["health"]["verdict"] for n in fleet.cloud.nodes()} == {"healthy"})
    spoil(slow, "slow_first_token=1")
    degraded = fleet.asked_until(
        lambda: node if (node := fleet.node(slow))["health"]["verdict"] == "degraded" else None
    )
    assert degraded["health"]["symptom"] == "latency"
    assert degraded["health_score"] == pytest.approx(0.25)
    fleet.asked_until(lambda: fleet.node(slow)["health"]["ejected"])
    listed = run("nodes", "list", "--data-dir", fleet.cloud.data_dir)
    assert "latency, ejected: first token" in " ".join(listed.stdout.split()), listed.stdout
    slow_id = fleet.node(slow)["node_id"]
    assert fleet.served(20)[slow_id] == 0
    metrics = httpx.get(f"{fleet.cloud.url}/metrics", trust_env=False).text
    assert 'fleet_unwell_nodes{symptom="latency"} 1' in metrics
    heal(slow)
    fleet.asked_until(lambda: fleet.node(slow)["health"]["symptom"] is None, 60)
    assert fleet.served(20)[slow_id] > 0


def test_the_last_node_is_kept_however_ill_it_is_and_serves_again_at_once(fleet: Fleet) -> None:
    for url in fleet.urls:
        spoil(url, "error=500")

    def ejected() -> list[bool]:
        return sorted(node["health"]["ejected"] for node in fleet.cloud.nodes())

    def both_unhealthy() -> bool:
        assert ejected() != [True, True]
        return {node["health"]["verdict"] for node in fleet.cloud.nodes()} == {"unhealthy"}

    fleet.asked_until(both_unhealthy, 60)
    assert ejected() == [False, True]
    for url in fleet.urls:
        heal(url)
    eventually(lambda: fleet.ask(4) == {200: 4}, 30)
    fleet.asked_until(lambda: {node["health"]["verdict"] for node in fleet.cloud.nodes()} == {"healthy"}, 60)
