"""Preemption: a running request that has sent nothing yet gives its place to a higher one (`policy: preemptive`)."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest
import yaml

from tests.flow.clouds import EmbeddedCloud
from tests.flow.conftest import start_up
from tests.flow.processes import eventually
from tests.flow.scripted import ScriptedNodes, Turn, answer_well, delta
from tests.flow.wire import Conversation

CONFIG = {
    "enable_queuing": True,
    "enable_priority": True,
    "scheduling": {"policy": "preemptive", "max_requests_per_node": 1},
    "fleet": {"probe_interval_s": 1.0},
    "tiers": [
        {"id": "low", "features": ["api_access"]},
        {"id": "high", "features": ["api_access", "priority_queue"], "priority": 3},
    ],
}
BODY = {"model": "scripted", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def node() -> Iterator[ScriptedNodes]:
    with ScriptedNodes("scripted", 1) as nodes:
        yield nodes


class Preempting:
    """A cloud with one place, and a key of a low and of a high plan."""

    def __init__(self, cloud: EmbeddedCloud, node: ScriptedNodes) -> None:
        self.cloud, self.node = cloud, node
        self.low, self.high = self.key("low"), self.key("high")

    def key(self, plan: str) -> dict[str, str]:
        admin, name = self.cloud.admin, f"{plan}-{secrets.token_hex(3)}"
        admin.post("/admin/orgs", json={"name": name, "billing_plan": plan}).raise_for_status()
        admin.post(f"/admin/orgs/{name}/environments", json={"name": "prod"}).raise_for_status()
        made = admin.post("/admin/keys", json={"org": name, "environment": "prod", "name": "k"}).raise_for_status()
        key = {"authorization": f"Bearer {made.json()['key']}"}
        eventually(lambda: self.cloud.ask(BODY, headers=key).status == 200)
        return key

    def begin(self, key: dict[str, str], request_id: str, **more: object) -> Conversation:
        return self.cloud.begin(BODY | more, headers=key | {"x-request-id": request_id})

    def rows(self, request_id: str) -> list[dict[str, object]]:
        """The ledger's rows of a request, by the id that its caller gave."""
        return [row for row in self.cloud.rows() if row["client_request_id"] == request_id]

    def waiting(self) -> list[str]:
        """The callers' ids of the requests that wait."""
        return [row["client_request_id"] for row in self.cloud.admin.get("/admin/queue/requests").json()["data"]]

    def metric(self, name: str) -> float:
        text = self.cloud.admin.get("/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, node: ScriptedNodes) -> Iterator[Preempting]:
    directory = tmp_path_factory.mktemp("preempting")
    config = directory / "crosslogic.yaml"
    config.write_text(
        yaml.safe_dump(CONFIG | {"nodes": [{"endpoint": node.urls[0], "type": "vllm", "models": ["scripted"]}]})
    )
    cloud = start_up(directory, "--config", config)
    yield Preempting(cloud, node)
    cloud.program.kill()


@pytest.fixture
def preempting(running: Preempting) -> Iterator[Preempting]:
    running.node.forget()
    yield running
    running.node.forget()


class Held:
    """The first request that the node gets hears nothing until `release`; all others are answered well."""

    def __init__(self, node: ScriptedNodes) -> None:
        self.node = node
        self.released = asyncio.Event()
        node.script = self

    async def __call__(self, turn: Turn) -> None:
        if turn is self.node.turns[0]:
            while not self.released.is_set() and turn.left_s is None:
                await asyncio.sleep(0.01)
        await answer_well(turn)

    def release(self) -> None:
        self.released.set()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_it_is_put_back_and_answered_later_and_its_caller_notices_only_time(
    preempting: Preempting, stream: bool
) -> None:
    name = f"victim-{stream}"
    put_back = preempting.metric("queue_preempted_total")
    Held(preempting.node)
    victim = preempting.begin(preempting.low, name, stream=stream)
    turns = preempting.node.turns
    eventually(lambda: len(turns) == 1)
    assert preempting.begin(preempting.high, f"higher-{name}").rest().status == 200
    answer = victim.rest()
    assert answer.status == 200
    assert answer.done if stream else answer.json["choices"][0]["message"]["content"] == "Hello"
    assert turns[0].left_s is not None  # the node was told to stop
    assert len(turns) == 3
    (row,) = eventually(lambda: preempting.rows(name))
    assert (row["outcome"], row["attempts"], row["total_tokens"]) == ("completed", 1, 9)  # what was thrown away is free
    assert len(preempting.rows(f"higher-{name}")) == 1
    assert preempting.metric("queue_preempted_total") == put_back + 1


def test_comments_go_on_while_it_waits_again(preempting: Preempting) -> None:
    async def script(turn: Turn) -> None:
        number = preempting.node.turns.index(turn)
        for _ in range({0: 1000, 1: 230}.get(number, 0)):
            if turn.left_s is not None:
                return
            await asyncio.sleep(0.01)
        await answer_well(turn)

    preempting.node.script = script
    victim = preempting.begin(preempting.low, "commented", stream=True)
    eventually(lambda: len(preempting.node.turns) == 1)
    higher = preempting.begin(preempting.high, "slow")
    assert b": queued position=1" in victim.until(lambda data: b": queued" in data)
    assert higher.rest().status == 200
    assert victim.rest().done


def test_what_has_sent_something_runs_to_its_end(preempting: Preempting) -> None:
    go_on = asyncio.Event()

    async def script(turn: Turn) -> None:
        if turn is preempting.node.turns[0]:
            turn.events(delta("Hel"))
            await go_on.wait()
            turn.events(delta("lo", "stop"))
            turn.exchange.end(b"data: [DONE]\n\n")
        else:
            await answer_well(turn)

    preempting.node.script = script
    lower = preempting.begin(preempting.low, "talking", stream=True)
    lower.until(lambda data: b"Hel" in data)
    higher = preempting.begin(preempting.high, "patient", stream=True)
    higher.until(lambda data: b": queued position=1" in data)
    preempting.node.run(go_on.set)
    assert lower.rest().done
    assert higher.rest().done
    assert len(preempting.node.turns) == 2


def test_nobody_is_put_back_twice(preempting: Preempting) -> None:
    go_on = asyncio.Event()

    async def script(turn: Turn) -> None:
        if preempting.node.turns.index(turn) in (0, 2):  # the victim, both times
            while not go_on.is_set() and turn.left_s is None:
                await asyncio.sleep(0.01)
        await answer_well(turn)

    preempting.node.script = script
    turns = preempting.node.turns
    victim = preempting.begin(preempting.low, "twice")
    eventually(lambda: len(turns) == 1)
    assert preempting.begin(preempting.high, "first").rest().status == 200
    eventually(lambda: len(turns) == 3)
    second = preempting.begin(preempting.high, "second", stream=True)
    second.until(lambda data: b": queued position=1" in data)
    assert turns[2].left_s is None
    preempting.node.run(go_on.set)
    assert victim.rest().status == 200
    assert second.rest().done


def test_one_that_was_put_back_and_whose_caller_then_leaves_costs_nothing(preempting: Preempting) -> None:
    go_on = asyncio.Event()

    async def script(turn: Turn) -> None:
        while not go_on.is_set() and turn.left_s is None:
            await asyncio.sleep(0.01)
        await answer_well(turn)

    preempting.node.script = script
    turns = preempting.node.turns
    victim = preempting.begin(preempting.low, "leaves")
    eventually(lambda: len(turns) == 1)
    higher = preempting.begin(preempting.high, "stays")
    eventually(lambda: len(turns) == 2)
    eventually(lambda: "leaves" in preempting.waiting())
    victim.close()
    eventually(lambda: "leaves" not in preempting.waiting())
    preempting.node.run(go_on.set)
    assert higher.rest().status == 200
    eventually(lambda: preempting.rows("stays"))
    assert preempting.rows("leaves") == []
    # Its place in the limits is free again, too: the plan's next request is served.
    assert preempting.begin(preempting.low, "next").rest().status == 200
