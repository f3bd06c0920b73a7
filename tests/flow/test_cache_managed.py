"""What is cached for whom, seen and cleared by its owners: in one process, and with two workers over Redis."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.conftest import _scratch
from tests.flow import wire
from tests.flow.clouds import CHAT, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually, run
from tests.flow.production import Production
from tests.flow.scripted import ScriptedNodes

Key = dict[str, str]


def new_org(cloud: Any, name: str) -> Key:
    """The header of a key of the org's admin, once gateways know it."""
    cloud.admin.post("/admin/orgs", json={"name": name}).raise_for_status()
    cloud.admin.post(f"/admin/orgs/{name}/environments", json={"name": "prod"}).raise_for_status()
    body = {"org": name, "environment": "prod", "name": "boss", "role": "admin"}
    made = cloud.admin.post("/admin/keys", json=body).raise_for_status().json()
    return {"authorization": f"Bearer {made['key']}"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, ScriptedNodes]]:
    with ScriptedNodes("of-vllm", 1) as vllm, ScriptedNodes("of-sglang", 1) as sglang:
        yield {"vllm": vllm, "sglang": sglang}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, nodes: dict[str, ScriptedNodes]) -> Iterator[EmbeddedCloud]:
    directory = tmp_path_factory.mktemp("managed")
    config = directory / "crosslogic.yaml"
    served = [{"endpoint": node.urls[0], "type": kind, "models": [f"of-{kind}"]} for kind, node in nodes.items()]
    config.write_text(yaml.safe_dump({"enable_caching": True, "nodes": served, "cache": {"default_ttl_s": 600}}))
    running = start_up(directory, "--config", config)
    yield running
    running.program.kill()


def test_an_environment_opts_in_and_its_owner_sees_deletes_and_clears(
    cloud: EmbeddedCloud, nodes: dict[str, ScriptedNodes]
) -> None:
    acme, other = new_org(cloud, "acme"), new_org(cloud, "other")

    def ask(key: Key, text: str = "hi", headers: Key | None = None) -> str | None:
        body = chat(text, "of-vllm", temperature=0)
        reply = wire.ask(cloud.url, CHAT, body, key | (headers or {}))
        assert reply.status == 200
        return reply.headers.get("x-cache")

    eventually(lambda: wire.ask(cloud.url, "/v1/models", None, other, method="GET").status == 200)
    assert ask(acme) is None
    choice = {"cache": {"use": "on", "ttl_s": 60}}
    headers = acme | {"content-type": "application/json"}
    own = wire.ask(cloud.url, "/api/v1/environments/prod", choice, headers, method="PATCH")
    assert own.status == 200, own.body
    assert own.json["cache"] == {"use": "on", "sampled": None, "ttl_s": 60.0}
    eventually(lambda: ask(acme) == "hit")
    assert ask(acme, headers={"x-cache": "no-store"}) == "bypass"
    assert ask(other) is None
    (row,) = wire.ask(cloud.url, "/api/v1/cache", None, acme, method="GET").json["data"]
    assert (row["model"], row["hit_count"] >= 1, 0 < row["ttl_s"] <= 60) == ("of-vllm", True, True)
    foreign = wire.ask(cloud.url, f"/api/v1/cache/{row['key']}", None, other, method="DELETE")
    assert foreign.status == 404
    shell = ("--org", "acme", "--json", "--data-dir", cloud.data_dir)
    assert json.loads(run("cache", "show", row["request_id"], *shell).stdout)["key"] == row["key"]
    assert json.loads(run("cache", "delete", row["key"], *shell).stdout) == {"cleared": 1}
    assert ask(acme) == "miss"
    assert json.loads(run("cache", "clear", "--env", "prod", *shell).stdout) == {"cleared": 1}
    assert json.loads(run("cache", "list", *shell).stdout) == []
    assert ask(acme) == "miss"
    metrics = wire.ask(cloud.url, "/metrics", None, method="GET").body.decode()
    assert 'cache_requests_total{model="of-vllm",result="hit"}' in metrics
    assert 'cache_stored_total{model="of-vllm"} 3' in metrics


def test_only_vllm_gets_a_salt_and_each_org_its_own(cloud: EmbeddedCloud, nodes: dict[str, ScriptedNodes]) -> None:
    salted = [new_org(cloud, "salt-one"), new_org(cloud, "salt-two")]
    eventually(lambda: wire.ask(cloud.url, "/v1/models", None, salted[1], method="GET").status == 200)
    seen: dict[str, list[Any]] = {}
    for kind, node in nodes.items():
        node.forget()
        for key in (*salted, salted[0]):
            assert wire.ask(cloud.url, CHAT, chat("salt", f"of-{kind}"), key).status == 200
        seen[kind] = [json.loads(turn.body).get("cache_salt") for turn in node.turns]
    assert seen["sglang"] == [None] * 3
    one, two, again = seen["vllm"]
    assert one == again != two
    assert one
    assert two


@pytest.fixture(scope="module")
def production(_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    for database_url in _scratch(_postgres):
        shape = Production(tmp_path_factory.mktemp("cached"), database_url, nodes=1)
        shape.config |= {"enable_caching": True, "cache": {"backend": "redis", "use": "on"}}
        with shape as running:
            yield running


def test_control_clears_for_two_workers_at_once(production: Production) -> None:
    cloud, (first, second) = production.cloud, production.workers()
    body = chat("shared", max_tokens=3, temperature=0)

    def asked(worker: int) -> str:
        return production.ask_worker(worker, body, CHAT).headers["x-cache"]

    assert asked(first) == "miss"
    eventually(lambda: asked(second) == "hit")
    (row,) = cloud.admin.get("/admin/cache", params={"org": "acme"}).json()["data"]
    assert row["hit_count"] >= 1
    cleared = cloud.admin.post("/admin/cache/clear", json={"org": "acme", "model": row["model"]})
    assert cleared.json() == {"cleared": 1}
    assert asked(second) == "miss"
    eventually(lambda: asked(first) == "hit")
    production.redis.stop()
    try:
        assert cloud.admin.get("/admin/cache", params={"org": "acme"}).status_code == 503
        assert production.ask_worker(first, body, CHAT).status == 200  # a cache that is away is a miss
    finally:
        production.redis.start()
