"""What waits, as operators and tenants see it and take it out: over the API and the command, in both shapes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import _scratch
from tests.flow.clouds import CHAT, LLAMA, Cloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually, run
from tests.flow.production import Production
from tests.flow.wire import Conversation

Dial = Callable[[], Conversation]  # opens a connection to one worker
QUEUED = {"enable_queuing": True, "scheduling": {"max_requests_per_node": 1}}


class Seen:
    """A cloud whose only place of a worker is easily taken, and who manages it."""

    def __init__(self, cloud: Cloud, admin_url: str, admin_key: str, workers: list[Dial]) -> None:
        self.cloud = cloud
        self.env = {"CROSSLOGIC_URL": admin_url, "CROSSLOGIC_ADMIN_KEY": admin_key}
        self.own = self._own_admin()
        self._workers = workers

    @contextmanager
    def occupied(self) -> Iterator[list[Conversation]]:
        """In each worker one request runs and one waits: whichever takes the next connection, its request waits."""
        with ExitStack() as left:
            blocking = [left.enter_context(closing(dial())) for dial in self._workers for _ in range(2)]
            for conversation in blocking:
                conversation.send(CHAT, chat(max_tokens=4000, stream=True), self.cloud.key)
            yield blocking

    def _own_admin(self) -> httpx.Client:
        """The client of an administrator of the org whose key the cloud's callers use."""
        org = eventually(lambda: self.cloud.admin.get("/admin/orgs").json()["data"])[0]["id"]
        env = self.cloud.admin.get(f"/admin/orgs/{org}/environments").json()["data"][0]["id"]
        body = {"org": org, "environment": env, "name": "seer", "role": "admin"}
        key = self.cloud.admin.post("/admin/keys", json=body).raise_for_status().json()["key"]
        headers = {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.cloud.admin.base_url, headers=headers, trust_env=False, timeout=10)

    def command(self, *arguments: object) -> Any:
        done = run("queue", *arguments, env=self.env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout


@pytest.fixture(scope="module", params=["embedded", "production"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    directory = tmp_path_factory.mktemp("seen")
    if request.param == "embedded":
        config = directory / "crosslogic.yaml"
        config.write_text(yaml.safe_dump(QUEUED))
        cloud = start_up(directory, "--config", config, "--nodes", 2)
        yield Seen(cloud, cloud.url, cloud.ready["admin_key"], [lambda: Conversation(cloud.url)])
        cloud.program.kill()
        return
    for database_url in _scratch(request.getfixturevalue("_postgres")):
        shape = Production(directory, database_url, nodes=1)
        shape.config |= QUEUED
        with shape as running:
            key = running.env["CROSSLOGIC_AUTH__ADMIN_KEY"]
            dials = [partial(running.dial, worker) for worker in running.workers()]
            yield Seen(running.cloud, str(running.cloud.admin.base_url), key, dials)


def test_who_waits_is_seen_with_position_and_taken_out(seen: Seen) -> None:
    cloud, own = seen.cloud, seen.own
    with seen.occupied() as blocking:
        first = cloud.begin(chat(max_tokens=1), headers={"x-request-id": "waits-1"})
        eventually(lambda: own.get("/api/v1/queue/waits-1").status_code == 200)
        second = cloud.begin(chat(max_tokens=1), headers={"x-request-id": "waits-2"})
        standing = eventually(lambda: _found(own.get("/api/v1/queue/waits-2")))
        assert standing["position"] >= 1
        assert standing["model"] == LLAMA
        assert standing["request_id"] != "waits-2" == standing["client_request_id"]
        listed = own.get("/api/v1/queue", params={"model": LLAMA}).json()["data"]
        assert {"waits-1", "waits-2"} <= {row["client_request_id"] for row in listed}
        (row,) = eventually(lambda: [r for r in seen.command("list", "--model", LLAMA, "--json") if r["waiting"] >= 2])
        assert row["running"] >= 1
        assert row["oldest_wait_s"] > 0
        assert row["waiting"] + row["running"] == len(blocking) + 2
        assert "waits-2" in seen.command("requests")

        began_s = time.monotonic()
        assert own.delete("/api/v1/queue/waits-1").status_code == 202
        refused = first.rest()
        assert (refused.status, refused.json["error"]["code"]) == (410, "removed_from_queue")
        assert time.monotonic() - began_s < 20
        eventually(lambda: own.get("/api/v1/queue/waits-1").status_code == 404)
        assert own.delete("/api/v1/queue/waits-1").status_code == 404
        assert "taken out" in seen.command("remove", standing["request_id"])
        assert second.rest().status == 410
        removed = cloud.admin.get("/admin/audit", params={"action": "queue.remove"}).json()["data"]
        assert {entry["actor_kind"] for entry in removed} == {"key", "operator"}
    eventually(lambda: seen.command("list", "--json") == [])
    eventually(lambda: cloud.running(LLAMA) == 0)


def _found(answer: httpx.Response) -> dict[str, Any] | None:
    return answer.json() if answer.status_code == 200 else None
