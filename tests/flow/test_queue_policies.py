"""Each tier's own order (`tiers[].policy`), through the real edge; a plan that is changed is obeyed at once."""

from collections.abc import Iterator

import pytest
import yaml

from tests.flow.conftest import start_up
from tests.flow.processes import eventually
from tests.flow.scripted import ScriptedNodes
from tests.flow.test_gateway_preemption import CONFIG, Held, Preempting

PAID = ["api_access", "priority_queue"]
TIERS = [
    {"id": "low", "features": ["api_access"], "policy": "fifo"},
    {"id": "middle", "features": PAID, "priority": 2, "policy": "priority"},
    {"id": "high", "features": PAID, "priority": 3, "policy": "preemptive"},
]


@pytest.fixture(scope="module")
def node() -> Iterator[ScriptedNodes]:
    with ScriptedNodes("scripted", 1) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def tiered(tmp_path_factory: pytest.TempPathFactory, node: ScriptedNodes) -> Iterator[Preempting]:
    config = tmp_path_factory.mktemp("tiered") / "crosslogic.yaml"
    scheduling = {"policy": "weighted-fair", "max_requests_per_node": 1}
    served = [{"endpoint": node.urls[0], "type": "vllm", "models": ["scripted"]}]
    config.write_text(yaml.safe_dump(CONFIG | {"tiers": TIERS, "scheduling": scheduling, "nodes": served}))
    cloud = start_up(config.parent, "--config", config)
    yield Preempting(cloud, node)
    cloud.program.kill()


@pytest.fixture(autouse=True)
def _forgotten(node: ScriptedNodes) -> Iterator[None]:
    node.forget()
    yield
    node.forget()


def test_only_the_tier_whose_policy_is_preemptive_puts_back_what_runs(tiered: Preempting) -> None:
    middle = tiered.key("middle")
    tiered.node.forget()
    held, turns = Held(tiered.node), tiered.node.turns
    running = tiered.begin(tiered.low, "runs")
    eventually(lambda: len(turns) == 1)
    patient = tiered.begin(middle, "patient", stream=True)
    patient.until(lambda data: b": queued position=1" in data)
    assert turns[0].left_s is None
    assert tiered.begin(tiered.high, "urgent").rest().status == 200
    assert turns[0].left_s is not None
    assert patient.rest().done
    held.release()
    assert running.rest().status == 200
    for name in ("runs", "patient", "urgent"):
        assert len(eventually(lambda name=name: tiered.rows(name))) == 1


def test_a_plan_that_is_given_another_policy_is_ordered_by_it_without_a_restart(tiered: Preempting) -> None:
    admin, middle = tiered.cloud.admin, tiered.key("middle")
    plan = admin.get("/admin/plans/middle").raise_for_status().json()
    assert plan["policy"] == "priority"
    body = {name: value for name, value in plan.items() if name not in ("id", "source")}
    assert admin.put("/admin/plans/middle", json=body | {"policy": "lottery"}).status_code == 400
    admin.put("/admin/plans/middle", json=body | {"policy": "preemptive"}).raise_for_status()
    try:

        def puts_back() -> bool:
            tiered.node.forget()
            held, turns = Held(tiered.node), tiered.node.turns
            low = tiered.begin(tiered.low, "lower")
            eventually(lambda: len(turns) == 1)
            higher = tiered.begin(middle, "higher", stream=True)
            higher.until(lambda data: b"data: " in data or b": queued" in data)
            put_back = turns[0].left_s is not None
            tiered.node.run(held.release)
            assert higher.rest().done
            assert low.rest().status == 200
            return put_back

        eventually(puts_back, 10)
    finally:
        admin.delete("/admin/plans/middle").raise_for_status()
