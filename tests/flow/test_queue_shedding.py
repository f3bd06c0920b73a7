"""Who is refused when the queue is full: free, serverless by priority, never reserved; the longest tenant first."""

import secrets
import select
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.flow import wire
from tests.flow.clouds import LLAMA, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually

PAID = ["api_access", "priority_queue"]
CONFIG = {
    "enable_queuing": True,
    "enable_priority": True,
    "scheduling": {"max_requests_per_node": 1},
    "queue": {"max_size": 4, "timeout_s": 60},
    "capacity": {"ready_share": 0.0},
    "tiers": [
        {"id": "gratis", "features": ["api_access"]},
        {"id": "low", "features": PAID},
        {"id": "high", "features": PAID, "priority": 3},
    ],
}


class Full:
    """A cloud with one place, which is taken, and room for four that wait."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self.cloud = cloud
        self._keys: dict[str, dict[str, str]] = {}
        self.running = cloud.begin(chat(max_tokens=8000, stream=True))
        self.running.until(lambda data: b"data: " in data)

    def org(self, plan: str, *, units: int = 0) -> str:
        """A new org; with `units` of reserved capacity."""
        name, admin = f"{plan}-{secrets.token_hex(3)}", self.cloud.admin
        admin.post("/admin/orgs", json={"name": name, "billing_plan": plan}).raise_for_status()
        admin.post(f"/admin/orgs/{name}/environments", json={"name": "prod"}).raise_for_status()
        made = admin.post("/admin/keys", json={"org": name, "environment": "prod", "name": "k"}).raise_for_status()
        self._keys[name] = {"authorization": f"Bearer {made.json()['key']}"}
        if units:
            body = {"org": name, "model": LLAMA, "units": units, "lasts_s": 600, "force": True}
            admin.post("/admin/capacity/reservations", json=body).raise_for_status()
            time.sleep(1.5)  # every gateway follows within a second
        eventually(lambda: wire.ask(self.cloud.url, "/v1/models", headers=self._keys[name], method="GET").status == 200)
        return name

    def begin(self, org: str) -> wire.Conversation:
        """One more request; when this returns, the queue has it or has refused it."""
        waiting = self._waiting()
        conversation = self.cloud.begin(chat(max_tokens=1), headers=self._keys[org])
        eventually(lambda: _answered(conversation) or self._waiting() != waiting)
        return conversation

    def waiting(self) -> list[str]:
        return list(self._waiting().values())

    def _waiting(self) -> dict[str, str]:
        """Request to the kind of its traffic."""
        rows = self.cloud.admin.get("/admin/queue/requests").json()["data"]
        return {row["request_id"]: row["traffic"] for row in rows}


def _answered(conversation: wire.Conversation) -> bool:
    return bool(select.select([conversation.socket], [], [], 0)[0])


@pytest.fixture
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Full]:
    directory = tmp_path_factory.mktemp("full")
    config = directory / "crosslogic.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    cloud = start_up(directory, "--config", config, "--nodes", 2)
    yield Full(cloud)
    cloud.program.kill()


def refused(conversation: wire.Conversation) -> bool:
    """It has been told 429 `server_busy`, with a time to come back."""
    answer = conversation.rest()
    assert (answer.status, answer.json["error"]["code"]) == (429, "server_busy")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    return True


def test_overload_is_shed_in_the_stated_order(full: Full) -> None:
    free, low, high, reserved = full.org("gratis"), full.org("low"), full.org("high"), full.org("low", units=1000)
    waits = {name: full.begin(org) for name, org in (("high", high), ("low", low), ("free", free))}
    waits["reserved"] = full.begin(reserved)
    assert sorted(full.waiting()) == ["free", "reserved", "serverless", "serverless"]
    assert refused(full.begin(free))  # it is of the lowest class itself
    newcomers = [full.begin(high)]
    assert refused(waits["free"])
    newcomers.append(full.begin(high))
    assert refused(waits["low"])
    more = full.begin(reserved)
    assert refused(newcomers[-1])  # the last to come of the high ones
    assert refused(full.begin(low))
    assert sorted(full.waiting()) == ["reserved", "reserved", "serverless", "serverless"]
    full.running.close()
    for conversation in (waits["high"], newcomers[0], waits["reserved"], more):
        assert conversation.rest().status == 200


def test_a_queue_full_of_one_tenant_takes_the_requests_of_another(full: Full) -> None:
    greedy, other = full.org("low"), full.org("low")
    flood = [full.begin(greedy) for _ in range(4)]
    assert refused(full.begin(greedy))
    first = full.begin(other)
    assert refused(flood[3])
    assert refused(full.begin(greedy))
    second = full.begin(other)
    assert refused(flood[2])
    assert refused(full.begin(other))  # both wait with as many now
    full.running.close()
    for conversation in (*flood[:2], first, second):
        assert conversation.rest().status == 200
