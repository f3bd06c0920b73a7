"""A node that nobody can connect to serves through its agent's tunnel, over both workers of a gateway."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import _scratch
from tests.flow.clouds import node_metric, query
from tests.flow.fleet_of_agents import AgentFleet
from tests.flow.processes import START_TIMEOUT_S, Program, eventually, run
from tests.flow.workers import workers_of
from tests.ports import free_port


@pytest.fixture(scope="module")
def fleet(_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentFleet]:
    for database_url in _scratch(_postgres):
        with AgentFleet(tmp_path_factory.mktemp("tunnels"), database_url, tunnels=True) as running:
            yield running


def behind_tunnel(fleet: AgentFleet, name: str, *token: object, speedup: int = 20, port: int | None = None) -> Program:
    """An agent whose engine listens on loopback, at a port that nobody is told."""
    options = ("--tunnel", f"127.0.0.1:{fleet.tunnel_port}", "--port", port or free_port())
    program = fleet.agent(name, fleet.token(*token), *options, engine=("--speedup", speedup))
    program.wait_for(lambda: fleet.status(name) == "active")
    return program


def said(fleet: AgentFleet) -> str:
    return fleet.gateway.log.read_text()


def answers(fleet: AgentFleet, key: str | None = None) -> list[int]:
    """What each worker says."""
    return [fleet.ask_worker(pid, key).status for pid in workers_of(fleet.gateway)]


def everywhere(fleet: AgentFleet) -> bool:
    """Whether both workers serve: each hears of a node by itself."""
    return answers(fleet) == [200, 200]


def test_a_node_without_inbound_port_serves_over_every_worker(fleet: AgentFleet) -> None:
    program = behind_tunnel(fleet, "inside")
    node = fleet.node("inside")
    assert node is not None
    assert node["endpoint_url"] == "tunnel://inside"
    eventually(lambda: said(fleet).count("node inside has a tunnel to here") == 2, 10)
    eventually(lambda: everywhere(fleet), 10)
    stream = fleet.begin(max_tokens=100)
    assert stream.rest().done

    os.kill(workers_of(fleet.gateway)[0], signal.SIGKILL)
    eventually(lambda: said(fleet).count("node inside has a tunnel to here") == 3, START_TIMEOUT_S)
    eventually(lambda: everywhere(fleet), 10)

    stream = fleet.begin(max_tokens=400)
    stream.until(lambda received: b"data:" in received)
    assert program.stop() == 0  # drains: the running answer ends first
    assert stream.rest().done
    fleet.until("inside", None)


def test_a_stream_whose_tunnel_is_killed_goes_on_elsewhere(fleet: AgentFleet) -> None:
    first = behind_tunnel(fleet, "first", speedup=1)
    eventually(lambda: everywhere(fleet), 10)
    stream = fleet.begin(max_tokens=8_000)  # a minute and more, on this node
    stream.until(lambda received: b"data:" in received)
    port = free_port()
    second = behind_tunnel(fleet, "second", port=port)

    def chosen_by(worker: int) -> bool:
        served = node_metric(f"http://127.0.0.1:{port}", "request_success")
        assert fleet.ask_worker(worker).status == 200
        return node_metric(f"http://127.0.0.1:{port}", "request_success") > served

    for worker in workers_of(fleet.gateway):
        eventually(lambda worker=worker: chosen_by(worker), 20)
    first.kill()
    reply = stream.rest()
    assert reply.done
    asked = f"SELECT attempts, node_id FROM usage_records WHERE request_id = '{reply.headers['x-request-id']}'"
    (row,) = eventually(lambda: query(fleet.database_url, asked))
    assert (row["attempts"], row["node_id"]) == (2, "second")
    assert second.stop() == 0
    run("nodes", "revoke", "first", env=fleet.env)


def test_a_tunnel_of_an_orgs_node_serves_that_org_only_and_ends_when_it_is_revoked(fleet: AgentFleet) -> None:
    fleet.admin.post("/admin/orgs", json={"name": "globex"}).raise_for_status()
    fleet.admin.post("/admin/orgs/globex/environments", json={"name": "prod"}).raise_for_status()
    body = {"org": "globex", "environment": "prod", "name": "theirs"}
    theirs = fleet.admin.post("/admin/keys", json=body).raise_for_status().json()["key"]
    program = behind_tunnel(fleet, "owned", "--org", "acme", speedup=1)
    eventually(lambda: everywhere(fleet), 10)
    assert not {200} & set(answers(fleet, theirs))

    stream = fleet.begin(max_tokens=2_000)
    stream.until(lambda received: b"data:" in received)
    assert run("nodes", "revoke", "owned", env=fleet.env).returncode == 0
    assert program.process.wait(30) == 2
    assert not stream.rest().done
    assert fleet.status("owned") is None
    assert not fleet.serves()


def test_nobody_registers_a_node_behind_the_tunnel_of_another(fleet: AgentFleet) -> None:
    body = {"endpoint_url": "tunnel://owned", "model_list": ["m"], "node_id": "thief"}
    answer = fleet.admin.post("/admin/nodes/register", json=body)
    assert answer.status_code == 400, answer.text
    assert "tunnel" in answer.text


def test_a_gateway_elsewhere_gets_its_certificate_by_command(fleet: AgentFleet) -> None:
    path = fleet.directory / "tunnel.pem"
    made = run("nodes", "tunnel-certificate", "--out", path, env=fleet.env)
    assert made.returncode == 0, made.stderr
    assert path.stat().st_mode & 0o077 == 0
    text = path.read_text()
    assert (text.count("PRIVATE KEY"), text.count("BEGIN CERTIFICATE")) == (2, 2)
