"""Nodes in three regions, on real processes: who is served where, what becomes of a lost region, and the bill."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flow import wire
from tests.flow.clouds import CHAT, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import Program, eventually
from tests.ports import free_port

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
REGIONS = ("ap-south-1", "ap-southeast-1", "eu-central-1")
SHARE = 0.2


class World:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ports = {region: free_port() for region in REGIONS}
        self.nodes: dict[str, Program] = {}
        for region in REGIONS:
            self.start(region)
        config = directory / "crosslogic.yaml"
        nodes = [
            {"endpoint": f"http://127.0.0.1:{port}", "type": "vllm", "models": [MODEL], "region": region}
            for region, port in self.ports.items()
        ]
        settings = {
            "nodes": nodes,
            "fleet": {"probe_interval_s": 0.5, "heartbeat_interval_s": 0.5, "dead_after_s": 2},
            "server": {"region": "eu"},
            "regions": {"failover_share": SHARE},
        }
        config.write_text(yaml.safe_dump(settings))
        self.cloud: EmbeddedCloud = start_up(directory, "--config", config)
        eventually(lambda: {n["status"] for n in self.cloud.nodes()} == {"active"}, 30)

    def start(self, region: str) -> None:
        arguments = ["simulate", "--port", self.ports[region], "--model", MODEL, "--speedup", 50]
        self.nodes[region] = Program(arguments, self._directory / region)

    def lose(self, region: str) -> None:
        self.nodes[region].kill()
        self.becomes(region, "dead")

    def becomes(self, region: str, status: str) -> None:
        eventually(lambda: [n["status"] for n in self.cloud.nodes() if n["region"] == region] == [status], 30)

    def key(self, org: str, **env: Any) -> dict[str, str]:
        admin = self.cloud.admin
        admin.post("/admin/orgs", json={"name": org, "billing_plan": "enterprise"}).raise_for_status()
        admin.post(f"/admin/orgs/{org}/environments", json={"name": "prod", **env}).raise_for_status()
        return self.new_key(org)

    def new_key(self, org: str, **more: Any) -> dict[str, str]:
        made = self.cloud.admin.post("/admin/keys", json={"org": org, "environment": "prod", "name": "k", **more})
        headers = {"authorization": f"Bearer {made.raise_for_status().json()['key']}"}
        eventually(lambda: wire.ask(self.cloud.url, "/v1/models", None, headers, method="GET").status == 200)
        return headers

    def ask(self, key: dict[str, str]) -> wire.Reply:
        return wire.ask(self.cloud.url, CHAT, chat(model=MODEL, max_tokens=2), key)

    def row(self, reply: wire.Reply) -> dict[str, Any]:
        assert reply.status == 200, reply.body
        row: dict[str, Any] = self.cloud.row(reply.headers["x-request-id"])
        return row

    def served(self, key: dict[str, str]) -> tuple[str, str | None, bool] | None:
        """Region served, region asked, failover; None when it was refused."""
        reply = self.ask(key)
        if reply.status != 200:
            return None
        row = self.row(reply)
        return row["region"], row["region_asked"], bool(row["failover"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("regions"))
    yield world
    world.cloud.program.kill()
    for node in world.nodes.values():
        node.kill()


def test_key_before_environment_before_org_before_the_gateways_own(world: World) -> None:
    pinned = world.key("pinned", region="in")
    assert world.served(pinned) == ("ap-south-1", "in", False)
    assert world.served(world.new_key("pinned", region="singapore")) == ("ap-southeast-1", "singapore", False)
    unpinned = world.key("unpinned")
    assert world.served(unpinned) == ("eu-central-1", "eu", False)
    world.cloud.admin.patch("/admin/orgs/unpinned", json={"region_preferences": ["sg"]}).raise_for_status()
    eventually(lambda: world.served(unpinned) == ("ap-southeast-1", "sg", False))
    world.cloud.admin.patch("/admin/orgs/pinned/environments/prod", json={"region": None}).raise_for_status()
    eventually(lambda: world.served(pinned) == ("eu-central-1", "eu", False))


def test_a_key_for_a_region_is_good_for_what_lies_in_it_or_around_it_and_served_nowhere_else(world: World) -> None:
    """`ap-south-1` stands in `in`; a key is scoped to either, its environment pinned to either."""
    world.key("exact", region="ap-south-1")
    for scope in ("in", "mumbai", "ap-south-1"):
        inside = world.new_key("exact", scoping={"regions": [scope]})
        assert world.served(inside) == ("ap-south-1", "ap-south-1", False)
    world.key("around", region="in")
    assert world.served(world.new_key("around", scoping={"regions": ["ap-south-1"]})) == ("ap-south-1", "in", False)
    refused = world.ask(world.new_key("around", scoping={"regions": ["eu", "ap-southeast-1"]}))
    assert (refused.status, refused.json["error"]["code"]) == (403, "region_not_allowed")


def test_a_lost_region_sends_its_share_to_the_next_and_takes_all_back_when_it_returns(world: World) -> None:
    pinned = world.key("indian", region="in")
    resident = world.key("resident", region="in", data_residency=True)
    elsewhere = world.key("elsewhere")
    bound = world.new_key("elsewhere", region="in")  # a key with a region stays in it
    for key in (pinned, resident, bound):
        assert world.served(key) == ("ap-south-1", "in", False)
    world.lose("ap-south-1")
    replies = [world.ask(pinned) for _ in range(40)]
    served = [reply for reply in replies if reply.status == 200]
    assert SHARE * 40 <= len(served) <= SHARE * 40 + 1
    for reply in replies:
        if reply.status != 200:
            assert (reply.status, reply.json["error"]["code"]) == (503, "region_unavailable")
            assert int(reply.headers["retry-after"]) > 0
    for reply in served:
        row = world.row(reply)
        assert (row["region"], row["region_asked"], bool(row["failover"])) == ("ap-southeast-1", "in", True)
        said = str(reply.headers) + reply.body.decode()
        assert row["region"] not in said
        assert row["node_id"] not in said
    for key in (resident, bound):
        assert {world.ask(key).status for _ in range(6)} == {503}
    assert world.served(elsewhere) == ("eu-central-1", "eu", False)  # nobody else noticed
    world.start("ap-south-1")
    world.becomes("ap-south-1", "active")
    for key in (pinned, resident, bound):
        eventually(lambda key=key: world.served(key) == ("ap-south-1", "in", False))


def test_a_node_that_was_killed_just_now_sends_no_more_than_the_share_elsewhere(world: World) -> None:
    """Nobody knows yet that it is dead: its callers find out, and are refused or rescued."""
    key = world.key("killed", region="in")
    eventually(lambda: world.served(key) == ("ap-south-1", "in", False))
    world.nodes["ap-south-1"].kill()
    replies = [world.ask(key) for _ in range(20)]
    assert sum(reply.status == 200 for reply in replies) <= SHARE * 20 + 1
    assert {reply.status for reply in replies} <= {200, 502, 503}
    world.start("ap-south-1")
    world.becomes("ap-south-1", "active")
    eventually(lambda: world.served(key) == ("ap-south-1", "in", False), 30)


def test_regions_are_listed_and_shown_to_everybody_alike(world: World) -> None:
    admin = world.cloud.admin
    listed = admin.get("/admin/regions").json()["data"]
    assert [row["id"] for row in listed] == ["eu", "in", "sg", "us"]
    india = admin.get("/admin/regions/ap-south-1").json()
    assert (india["id"], india["cost_multiplier"], india["fallbacks"]) == ("in", "0.7", ["sg", "eu", "us"])
    assert admin.get("/admin/regions", params={"country": "in"}).json()["data"] == [india]
    assert admin.get("/admin/regions/atlantis").status_code == 404
    world.key("looking")
    own = world.new_key("looking", role="admin")
    seen = wire.ask(world.cloud.url, "/api/v1/regions", None, own, method="GET")
    assert seen.json["data"] == listed
