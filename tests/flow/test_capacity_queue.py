"""Reserved capacity where nodes are full: the queue serves what is covered first, and sheds the others."""

import time
from collections.abc import Iterator

import pytest
import yaml

from tests.flow.clouds import LLAMA, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually

FULL = {
    "enable_queuing": True,
    "scheduling": {"max_requests_per_node": 2},
    "capacity": {"ready_share": 0},  # all places are lent while they are idle
    "queue": {"max_size": 2, "max_size_per_tenant": 2, "timeout_s": 20},
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    """One node with two places, two that may wait; the cloud's own key is of the org `default`."""
    directory = tmp_path_factory.mktemp("full")
    config = directory / "crosslogic.yaml"
    config.write_text(yaml.safe_dump(FULL))
    running = start_up(directory, "--config", config, "--nodes", 1)
    yield running
    running.program.kill()


def test_a_covered_request_goes_before_all_that_wait_and_is_not_shed_with_the_others(full: EmbeddedCloud) -> None:
    admin = full.admin
    for name in ("orgs", "orgs/crowd/environments"):
        body = {"name": "crowd" if name == "orgs" else "prod"}
        admin.post(f"/admin/{name}", json=body).raise_for_status()
    made = admin.post("/admin/keys", json={"org": "crowd", "environment": "prod", "name": "x"}).raise_for_status()
    crowd = {"authorization": f"Bearer {made.json()['key']}"}
    body = {"org": "default", "model": LLAMA, "units": 100, "lasts_s": 3600}
    admin.post("/admin/capacity/reservations", json=body).raise_for_status()
    eventually(lambda: full.ask(path="/v1/models", method="GET", headers=crowd).status == 200)
    time.sleep(1.0)  # what is reserved is known everywhere, too
    running = [full.begin(chat(max_tokens=4000, stream=True), headers=crowd) for _ in range(2)]
    for each in running:
        each.until(lambda data: b"data: " in data)
    waiting = [full.begin(chat(max_tokens=2000, stream=True), headers=crowd) for _ in range(2)]
    for each in waiting:
        each.until(lambda data: b": queued" in data)
    shed = full.ask(chat(max_tokens=1), headers=crowd)
    assert (shed.status, shed.json["error"]["code"]) == (429, "server_busy")
    covered = full.begin(chat(max_tokens=5, stream=True))
    covered.until(lambda data: b": queued position=1" in data)  # those before it are behind it now
    displaced = waiting[1].rest()
    assert displaced.chunks[-1]["error"]["code"] == "server_busy"
    running[0].close()
    assert covered.rest().done  # had another been first, this would have to wait for 2000 tokens
    for each in (*running, *waiting):
        each.close()
    eventually(lambda: full.running(LLAMA) == 0)
