"""Nodes with agents, from the join token to the last request; everything is a real process."""

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.clouds_metadata import MetadataServer
from tests.conftest import _scratch
from tests.flow.clouds import query
from tests.flow.fleet_of_agents import AgentFleet, joined
from tests.flow.processes import eventually, run
from tests.ports import free_port


@pytest.fixture(scope="module")
def fleet(_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentFleet]:
    for database_url in _scratch(_postgres):
        with AgentFleet(tmp_path_factory.mktemp("fleet"), database_url) as running:
            yield running


def leave(fleet: AgentFleet, name: str, program: object) -> None:
    program.stop()  # type: ignore[attr-defined]
    fleet.until(name, None)


def test_a_node_joins_serves_and_leaves(fleet: AgentFleet) -> None:
    token = fleet.token("--region", "in-mumbai", "--ttl", "10m")
    program = fleet.agent("first", token, "--port", free_port())
    program.wait_for(lambda: fleet.status("first") == "active")
    eventually(fleet.serves, 10)
    node = fleet.node("first")
    assert node is not None
    assert (node["region"], node["backend"], node["org_id"], node["gpu_count"]) == ("in-mumbai", "vllm", None, 0)
    row = eventually(lambda: query(fleet.database_url, "SELECT node_id FROM usage_records"))
    assert row[0]["node_id"] == "first"

    listed = json.loads(run("nodes", "token", "list", "--json", env=fleet.env).stdout)
    assert [(one["status"], one["used_by"]) for one in listed] == [("used", "first")]
    certificates = json.loads(run("nodes", "certificates", "--node", "first", "--json", env=fleet.env).stdout)
    assert [one["status"] for one in certificates] == ["valid"]
    report = json.loads(run("nodes", "report", "first", "--json", env=fleet.env).stdout)["report"]
    assert report["facts"]["cpu_count"] >= 1
    assert report["facts"]["memory_total_mb"] > 100
    assert eventually(lambda: "serves" in run("nodes", "logs", "first", env=fleet.env).stdout)
    counted = "SELECT generated_tokens FROM engine_counters WHERE node_id = 'first'"
    assert eventually(lambda: query(fleet.database_url, counted), 30)

    again = fleet.agent("thief", token, "--port", free_port())
    assert again.process.wait(30) == 2
    assert "used" in again.tail()
    assert token not in fleet.control.tail() + program.tail() + again.tail()
    audited = json.loads(run("audit", "list", "--action", "node", "--json", env=fleet.env).stdout)
    assert {entry["action"] for entry in audited} >= {"node.join", "node.refuse"}

    assert program.stop() == 0
    fleet.until("first", None)
    assert fleet.ask().status == 503 or fleet.ask().status == 404


def test_a_stopped_agent_lets_running_answers_finish(fleet: AgentFleet) -> None:
    program = joined(fleet, "drained", "--port", free_port())
    eventually(fleet.serves, 10)
    stream = fleet.begin(max_tokens=400)
    stream.until(lambda received: b"data:" in received)
    engine = fleet.engine_pid("drained")
    program.process.send_signal(signal.SIGTERM)
    fleet.until("drained", "draining", 10)
    assert stream.rest().done
    assert program.process.wait(30) == 0
    fleet.until("drained", None)
    with pytest.raises(ProcessLookupError):
        os.kill(engine, 0)


def test_an_engine_that_dies_is_started_again(fleet: AgentFleet) -> None:
    program = joined(fleet, "phoenix", "--port", free_port())
    before = fleet.engine_pid("phoenix")
    os.kill(before, signal.SIGKILL)
    fleet.until("phoenix", "starting", 10)
    fleet.until("phoenix", "active", 30)
    assert fleet.engine_pid("phoenix") != before
    eventually(fleet.serves, 10)
    leave(fleet, "phoenix", program)


def test_an_agent_that_is_killed_leaves_a_dead_node_and_its_successor_takes_over_the_engine(fleet: AgentFleet) -> None:
    port = free_port()
    program = joined(fleet, "orphan", "--port", port)
    engine = fleet.engine_pid("orphan")
    program.kill()
    began_s = time.monotonic()
    fleet.until("orphan", "dead", 30)
    assert time.monotonic() - began_s >= 2.0  # it had its time to be heard
    os.kill(engine, 0)  # it serves on
    successor = fleet.agent("orphan", None, "--port", port)
    successor.wait_for(lambda: fleet.status("orphan") == "active")
    assert fleet.engine_pid("orphan") == engine
    eventually(fleet.serves, 10)
    leave(fleet, "orphan", successor)


def test_requests_are_served_while_control_is_away_and_agents_come_back_to_it(fleet: AgentFleet) -> None:
    program = joined(fleet, "loyal", "--port", free_port())
    eventually(fleet.serves, 10)
    fleet.control.kill()
    for _ in range(10):
        assert fleet.serves()
        time.sleep(0.1)
    assert program.process.poll() is None
    heard_before = query(fleet.database_url, "SELECT last_heartbeat_at FROM nodes WHERE id = 'loyal'")
    fleet.start_control()

    def heard_again() -> bool:
        node = fleet.node("loyal")
        return (
            node is not None
            and node["status"] == "active"
            and node["last_heartbeat_at"] > heard_before[0]["last_heartbeat_at"].isoformat().replace("+00:00", "Z")
        )

    eventually(heard_again, 30)
    assert fleet.serves()
    leave(fleet, "loyal", program)


def test_a_revoked_node_gets_nothing_more(fleet: AgentFleet) -> None:
    program = joined(fleet, "outcast", "--port", free_port())
    eventually(fleet.serves, 10)
    revoked = run("nodes", "revoke", "outcast", env=fleet.env)
    assert "1 certificate(s) revoked" in revoked.stdout, revoked.stderr
    assert program.process.wait(30) == 2
    assert fleet.status("outcast") is None


def test_a_spot_notice_drains_the_node_and_running_answers_finish(fleet: AgentFleet) -> None:
    with MetadataServer("aws") as cloud:
        aws = {"CROSSLOGIC_AGENT__METADATA__AWS_URL": cloud.url, "CROSSLOGIC_AGENT__SPOT_POLL_S": "0.2"}
        other = joined(fleet, "steady", "--port", free_port())
        program = fleet.agent("spotted", fleet.token(), "--cloud", "aws", "--port", free_port(), env=aws)
        program.wait_for(lambda: fleet.status("spotted") == "active")
        node = fleet.node("spotted")
        assert node is not None
        assert (node["cloud"], node["spot"]) == ("aws", True)
        cloud.rebalance = True  # a recommendation: it serves on, with less to do
        eventually(lambda: (fleet.node("spotted") or node)["health"]["symptom"] == "at_risk", 20)
        assert fleet.status("spotted") == "active"
        fleet.admin.post("/admin/nodes/steady/drain").raise_for_status()  # so that the stream runs on the other
        eventually(lambda: other.process.poll() == 0, 30)
        stream = fleet.begin(max_tokens=600)
        stream.until(lambda received: b"data:" in received)
        cloud.take_away()
        fleet.until("spotted", "draining", 10)
        assert stream.rest().done
        assert program.process.wait(30) == 0
        fleet.until("spotted", None)
    audited = json.loads(run("audit", "list", "--action", "node.spot_notice", "--json", env=fleet.env).stdout)
    assert [entry["entity_id"] for entry in audited] == ["spotted"]


def test_a_node_that_joined_for_an_org_serves_nobody_else(fleet: AgentFleet) -> None:
    fleet.admin.post("/admin/orgs", json={"name": "globex"}).raise_for_status()
    fleet.admin.post("/admin/orgs/globex/environments", json={"name": "prod"}).raise_for_status()
    body = {"org": "globex", "environment": "prod", "name": "theirs"}
    theirs = fleet.admin.post("/admin/keys", json=body).raise_for_status().json()["key"]
    program = fleet.agent("owned", fleet.token("--org", "acme"), "--port", free_port())
    program.wait_for(lambda: fleet.status("owned") == "active")
    eventually(fleet.serves, 10)
    assert fleet.ask(key=theirs).status in (404, 503)
    leave(fleet, "owned", program)
