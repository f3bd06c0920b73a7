"""Reserved capacity on real processes: two gateway workers over PostgreSQL and Redis, with next to no global limit."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import _scratch
from tests.flow.clouds import CHAT, LLAMA, QWEN, chat, query
from tests.flow.processes import eventually, prompt, run
from tests.flow.production import Production

UNITS = 300
RESERVATIONS = "/admin/capacity/reservations"


@pytest.fixture(scope="module")
def crowded(_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    for database_url in _scratch(_postgres):
        made = Production(tmp_path_factory.mktemp("crowded"), database_url, speedup=8.0)
        made.config["limits"]["global"] = {"requests_per_minute": 1, "tokens_per_minute": 1, "concurrency": 1}
        made.config["capacity"] = {"burst_s": 1}
        made.config["resources"] = {"enable_reservations": True, "total_gpu_memory_mb": 1000}
        with made as running:
            admin = running.cloud.admin
            admin.post("/admin/orgs", json={"name": "bolt"}).raise_for_status()
            admin.post("/admin/orgs/bolt/environments", json={"name": "prod"}).raise_for_status()
            yield running


@pytest.fixture
def reservation(crowded: Production) -> Iterator[dict[str, Any]]:
    """Of the org whose key the cloud has; cancelled in the end."""
    body = {"org": "acme", "model": LLAMA, "units": UNITS, "lasts_s": 3600}
    made: dict[str, Any] = crowded.cloud.admin.post(RESERVATIONS, json=body).raise_for_status().json()
    yield made
    crowded.cloud.admin.delete(f"{RESERVATIONS}/{made['id']}")


def key_of(crowded: Production, org: str) -> dict[str, str]:
    body = {"org": org, "environment": "prod", "name": "more"}
    token = crowded.cloud.admin.post("/admin/keys", json=body).raise_for_status().json()["key"]
    return {"authorization": f"Bearer {token}"}


def served_everywhere(crowded: Production, small: object) -> bool:
    return all(crowded.ask_worker(pid, small, CHAT).status == 200 for pid in crowded.workers())


def refused_everywhere(crowded: Production, small: object) -> bool:
    return all(crowded.ask_worker(pid, small, CHAT).status in (403, 429) for pid in crowded.workers())


def test_an_org_gets_the_rate_that_it_reserved_and_nobody_else_anything(
    crowded: Production, reservation: dict[str, Any]
) -> None:
    """It asks for much more, from several connections, over both workers."""
    cloud = crowded.cloud
    others = key_of(crowded, "bolt")
    eventually(lambda: served_everywhere(crowded, chat(max_tokens=1)), 5)
    eventually(lambda: cloud.ask(chat(max_tokens=1), headers=others).status in (403, 429), 5)
    time.sleep(1.2)  # the bucket is full
    used: list[tuple[float, int]] = []
    began_s = time.monotonic()
    seconds = 6.0

    def caller() -> None:
        while time.monotonic() - began_s < seconds:
            answer = cloud.ask(chat(max_tokens=40))
            if answer.status == 200:
                used.append((time.monotonic() - began_s, answer.usage["total_tokens"]))
            else:
                assert answer.json["error"]["code"] in ("rate_limit_exceeded", "quota_exceeded")
                time.sleep(0.02)

    callers = [threading.Thread(target=caller) for _ in range(6)]
    for each in callers:
        each.start()
    refusals = [cloud.ask(chat(max_tokens=1), headers=others).status for _ in range(10)]
    other_model = cloud.ask(chat(max_tokens=1, model=QWEN))
    for each in callers:
        each.join()
    elapsed_s = time.monotonic() - began_s
    tokens = sum(tokens for _, tokens in used)
    largest = max(tokens for _, tokens in used)
    assert tokens >= 0.95 * UNITS * seconds
    # The burst, the time, and what was admitted last; each worker settles what it knows.
    assert tokens <= UNITS * (elapsed_s + 1.0) + 8 * largest
    assert set(refusals) <= {403, 429}
    assert other_model.status in (403, 429)


def test_its_own_admins_see_what_it_has_and_uses(crowded: Production, reservation: dict[str, Any]) -> None:
    cloud = crowded.cloud
    body = {"org": "acme", "environment": "prod", "name": "boss", "role": "admin"}
    token = cloud.admin.post("/admin/keys", json=body).json()["key"]
    eventually(lambda: cloud.ask(chat(max_tokens=30)).status == 200, 5)
    boss = {"Authorization": f"Bearer {token}"}

    def seen() -> dict[str, Any] | None:
        listed = cloud.admin.get("/api/v1/capacity", params={"state": "active"}, headers=boss).json()["data"]
        (row,) = [row for row in listed if row["id"] == reservation["id"]]
        return row if row["used_tokens_per_s"] > 0 else None

    assert eventually(seen)["units"] == UNITS


def test_a_cancelled_one_ends_on_every_worker_within_a_second(crowded: Production) -> None:
    small = chat(max_tokens=1)

    def cancel() -> None:
        body = {"org": "acme", "model": LLAMA, "units": UNITS, "lasts_s": 3600}
        made = crowded.cloud.admin.post(RESERVATIONS, json=body).raise_for_status().json()
        eventually(lambda: served_everywhere(crowded, small))
        cancelled = run("capacity", "cancel", made["id"], env=admin_env(crowded))
        assert cancelled.returncode == 0, cancelled.stderr

    with crowded.asking_each() as ask:
        prompt(cancel, lambda: set(ask(CHAT, small, method="POST")) <= {403, 429}, 1.0)
    assert "cancelled" in run("capacity", "list", "--state", "cancelled", env=admin_env(crowded)).stdout


def test_one_that_expires_ends_by_time_alone(crowded: Production, reservation: dict[str, Any]) -> None:
    small = chat(max_tokens=1)
    eventually(lambda: served_everywhere(crowded, small), 5)
    ends_at = datetime.now(UTC) + timedelta(seconds=6)
    changed = crowded.cloud.admin.patch(f"{RESERVATIONS}/{reservation['id']}", json={"expires_at": ends_at.isoformat()})
    assert changed.status_code == 200, changed.text
    time.sleep(1.0)  # now all know
    assert served_everywhere(crowded, small)
    crowded.database.shut()  # nobody tells anybody anything more
    try:
        time.sleep(max(0.0, (ends_at - datetime.now(UTC)).total_seconds()) + 0.05)
        assert refused_everywhere(crowded, small)
    finally:
        crowded.database.open()
    state = eventually(lambda: crowded.cloud.admin.get(f"{RESERVATIONS}/{reservation['id']}").json().get("state"), 10)
    assert state == "expired"


def test_dedicated_nodes_serve_their_org_and_nobody_else(crowded: Production) -> None:
    """The only node of a model: the other org is told that there is none, once the reservation is known."""
    cloud = crowded.cloud
    (node,) = cloud.nodes(QWEN)
    others = key_of(crowded, "bolt")
    reserve = ("capacity", "reserve", QWEN, "100", "--org", "acme", "--for", "1h", "--node", node["node_id"])
    made = run(*reserve, "--no-shared-fallback", "--json", env=admin_env(crowded))
    assert made.returncode == 0, made.stderr
    eventually(lambda: served_everywhere(crowded, chat(max_tokens=1, model=QWEN)), 5)
    listed = {model["id"] for model in cloud.ask(path="/v1/models", method="GET").json["data"]}
    elsewhere = cloud.ask(path="/v1/models", method="GET", headers=others).json["data"]
    assert QWEN in listed
    assert QWEN not in {model["id"] for model in elsewhere}


def test_resources_are_shared_out_until_they_are_released_or_expire(crowded: Production) -> None:
    env = admin_env(crowded)
    assert run("resources", "reserve", "--org", "acme", "--gpu-memory-mb", 600, env=env).returncode == 0
    refused = run("resources", "allocate", "--org", "bolt", "--gpu-memory-mb", 401, "--for", "1h", env=env)
    assert (refused.returncode, "only 400 MB" in refused.stderr) == (1, True)
    made = run("resources", "allocate", "--org", "bolt", "--gpu-memory-mb", 400, "--for", "1s", env=env)
    assert made.returncode == 0, made.stderr
    path = "/admin/capacity/resources/bolt"
    eventually(lambda: crowded.cloud.admin.get(path).json()["available"]["gpu_memory_mb"] == 400, 5)
    count = "SELECT count(*) AS rows FROM resource_allocations"
    eventually(lambda: query(crowded.cloud.database_url, count)[0]["rows"] == 0, 15)  # the job has swept it


def admin_env(crowded: Production) -> dict[str, str]:
    return {
        "CROSSLOGIC_URL": str(crowded.cloud.admin.base_url),
        "CROSSLOGIC_ADMIN_KEY": crowded.cloud.admin.headers["authorization"].removeprefix("Bearer "),
    }
