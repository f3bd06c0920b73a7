"""New versions of a model on real processes: no caller notices the good one, nor the bad one."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.conftest import _scratch
from tests.flow.clouds import LLAMA
from tests.flow.fleet_of_agents import AgentFleet, joined
from tests.flow.processes import eventually, run
from tests.ports import free_port


@pytest.fixture(scope="module")
def fleet(_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentFleet]:
    for database_url in _scratch(_postgres):
        with AgentFleet(tmp_path_factory.mktemp("rollouts"), database_url) as running:
            yield running


def models(fleet: AgentFleet, *arguments: object) -> Any:
    done = run("models", *arguments, "--json", env=fleet.env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def deployed(fleet: AgentFleet, version: str) -> str:
    models(fleet, "register", LLAMA, "--version", version)
    return str(models(fleet, "deploy", LLAMA)["id"])


def status(fleet: AgentFleet, deployment: str) -> str:
    return str(fleet.admin.get(f"/admin/deployments/{deployment}").json()["status"])


class _Broken(BaseHTTPRequestHandler):
    """A node whose engine fails every request."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def broken_node(fleet: AgentFleet, deployment: str) -> Iterator[str]:
    """Registered, healthy by its own word, and of no use."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    body = {"node_id": "broken", "model_list": [LLAMA], "deployment_id": deployment}
    url = f"http://127.0.0.1:{server.server_address[1]}"
    fleet.admin.post("/admin/nodes/register", json={**body, "endpoint_url": url}).raise_for_status()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.5):
            fleet.admin.post("/admin/nodes/broken/heartbeat", json={})

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield "broken"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        fleet.admin.delete("/admin/nodes/broken")


def test_versions_go_out_and_come_back_while_every_request_is_answered(fleet: AgentFleet) -> None:
    first = deployed(fleet, "1")
    old = joined(fleet, "old", "--port", free_port(), "--deployment", first)
    eventually(lambda: status(fleet, first) == "ready", 20)
    eventually(fleet.serves, 10)

    # A bad version: a canary with half of the requests fails them all.
    bad = deployed(fleet, "2")
    rollout = models(fleet, "roll-out", bad, "--kind", "canary", "--step", 50, "--step-s", 60)
    with broken_node(fleet, bad):
        answered = 0

        def gone_back() -> bool:
            nonlocal answered
            assert fleet.serves()
            answered += 1
            found = fleet.admin.get(f"/admin/rollouts/{rollout['id']}").json()
            return bool(found["status"] == "rolled_back")

        eventually(gone_back, 30)
    found = fleet.admin.get(f"/admin/rollouts/{rollout['id']}").json()
    assert "requests failed on the new deployment" in found["reason"]
    assert answered > 0
    eventually(lambda: status(fleet, bad) == "retired", 20)

    # A good version: everything moves at once, and the old node leaves when it has finished.
    good = deployed(fleet, "3")
    rollout = models(fleet, "roll-out", good, "--step-s", 1)
    new = joined(fleet, "new", "--port", free_port(), "--deployment", good)

    def finished() -> bool:
        assert fleet.serves()
        return bool(fleet.admin.get(f"/admin/rollouts/{rollout['id']}").json()["status"] == "finished")

    eventually(finished, 30)
    while old.process.poll() is None:
        assert fleet.serves()
        time.sleep(0.05)
    assert old.process.wait(30) == 0
    eventually(lambda: status(fleet, first) == "retired", 20)
    assert fleet.serves()
    new.stop()
