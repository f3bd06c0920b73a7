"""Models are registered, deployed and rolled out on both databases; a rollout goes on, ends, or goes back by itself."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.lifecycle import Heartbeat
from crosslogic.fleet.model import Node, NodeHealth, NodeStatus, Symptom, Verdict
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import NodeId, first_request_id
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.model import Outcome
from crosslogic.orchestration.driver import OrchestrationDriver
from crosslogic.orchestration.model import (
    Deployment,
    DeploymentStatus,
    Rollout,
    RolloutKind,
    RolloutRules,
    RolloutStatus,
)
from crosslogic.orchestration.registry import UNDEPLOYED, ModelRegistry
from crosslogic.orchestration.sync import read_splits
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.scheduling.split import Split
from crosslogic.store.tables import audit_log
from crosslogic.tenancy import keys
from tests.metering_samples import usage

HASH = keys.key_hasher(None)
MODEL = "llama"
START = datetime(2026, 3, 1, tzinfo=UTC)
RULES = RolloutRules(steps=(100, 1000), step_s=60.0, min_requests=10)


class World:
    """A registry with its driver, a fleet, and a ledger, on one clock."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.clock = ManualClock(START)
        self.models = ModelRegistry(engine, HASH, self.clock)
        self.fleet = Registry(engine, self.clock)
        self.driver = OrchestrationDriver(engine, self.models, self.fleet, self.clock)
        self._ports = iter(range(8000, 9000))
        self._requests = 0

    async def node(self, deployment: Deployment | None) -> Node:
        url = f"http://10.0.0.1:{next(self._ports)}"
        deployment_id = None if deployment is None else deployment.id
        return await self.fleet.register(Registration(url, (MODEL,), deployment_id=deployment_id))

    async def ready(self, replicas: int = 1) -> tuple[Deployment, list[Node]]:
        """A deployment that is ready, with its nodes."""
        made = await self.models.deploy(MODEL, replicas=replicas)
        nodes = [await self.node(made) for _ in range(replicas)]
        await self.driver.round()
        return await self.models.deployment(made.id), nodes

    async def requests(self, count: int, node: Node, **changes: Any) -> None:
        """So many rows of the ledger, of now."""
        records = []
        for _ in range(count):
            self._requests += 1
            request_id = f"{first_request_id(int(self.clock.now().timestamp() * 1000))}{self._requests:020x}"
            records.append(usage(1, request_id=request_id, model=MODEL, node_id=node.id, **changes))
        await Ledger(self.engine).insert(records, PriceBook(PriceList()))

    async def shares(self) -> dict[str, int]:
        return {one.id: one.share for one in await self.models.deployments(model_id=MODEL)}


@pytest.fixture
def world(engine: AsyncEngine) -> World:
    return World(engine)


async def begun(world: World, kind: RolloutKind = RolloutKind.CANARY) -> tuple[Rollout, Node, Node]:
    """A rollout at its first step, with a node of the old and one of the new deployment."""
    await world.models.register(MODEL, "1")
    _, (old_node,) = await world.ready()
    await world.models.update(MODEL, version="2")
    new, (new_node,) = await world.ready()
    rollout = await world.models.roll_out(new.id, kind, RULES)
    await world.driver.round()
    return await world.models.rollout(rollout.id), old_node, new_node


# models


async def test_a_model_is_registered_once_and_changed_afterwards(world: World) -> None:
    made = await world.models.register(MODEL, "1", context_window=8192, capabilities=("chat",), metadata={"a": "b"})
    assert await world.models.model(MODEL) == made
    with pytest.raises(Conflict):
        await world.models.register(MODEL, "1")
    world.clock.advance(1)
    changed = await world.models.update(MODEL, version="2", source="s3://weights/2", checksum="sha256:00")
    assert (changed.version, changed.context_window, changed.source) == ("2", 8192, "s3://weights/2")
    assert changed.updated_at > made.updated_at == made.created_at


async def test_what_is_not_there_is_not_found_and_nonsense_is_refused(world: World) -> None:
    for ask in (world.models.model("no"), world.models.deployment("no"), world.models.rollout("no\x00")):
        with pytest.raises(NotFound):
            await ask
    with pytest.raises(NotFound):
        await world.models.deploy("no")
    for wrong in ({"model_id": "", "version": "1"}, {"model_id": "m", "version": "1", "checksum": "md5:0"}):
        with pytest.raises(InvalidRequest):
            await world.models.register(**wrong)


async def test_models_are_listed_in_pages(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.models.register(name, "1", capabilities=("chat",) if name != "b" else ("code",))
    assert [model.id for model in await world.models.models(limit=2)] == ["a", "b"]
    assert [model.id for model in await world.models.models(after="b")] == ["c"]
    assert [model.id for model in await world.models.models(capability="code")] == ["b"]


# deployments


async def test_the_first_deployment_has_all_requests_and_the_next_none(world: World) -> None:
    await world.models.register(MODEL, "1")
    first = await world.models.deploy(MODEL)
    second = await world.models.deploy(MODEL)
    assert (first.share, second.share) == (1000, 0)
    assert first.version == "1"


async def test_a_deployment_is_what_its_nodes_make_it(world: World) -> None:
    await world.models.register(MODEL, "1")
    made = await world.models.deploy(MODEL, replicas=2)
    first = await world.node(made)
    await world.driver.round()
    assert (await world.models.deployment(made.id)).status is DeploymentStatus.DEPLOYING
    await world.node(made)
    await world.driver.round()
    assert (await world.models.deployment(made.id)).status is DeploymentStatus.READY
    await world.fleet.deregister(first.id)
    await world.driver.round()
    assert (await world.models.deployment(made.id)).status is DeploymentStatus.SCALING
    await world.models.scale(made.id, 1)
    await world.driver.round()
    assert (await world.models.deployment(made.id)).status is DeploymentStatus.READY


async def test_a_node_that_may_be_taken_away_serves_on_and_its_replacement_is_wanted(world: World) -> None:
    await world.models.register(MODEL, "1")
    made = await world.models.deploy(MODEL)
    node = await world.node(made)
    await world.fleet.judge(node.id, NodeHealth(Verdict.DEGRADED, Symptom.AT_RISK))
    for _ in range(2):  # it is there, so the deployment did come up; but it is short of one
        await world.driver.round()
        assert (await world.models.deployment(made.id)).status is DeploymentStatus.SCALING
    assert (await world.fleet.node(node.id)).status is NodeStatus.ACTIVE
    await world.node(made)
    await world.driver.round()
    assert (await world.models.deployment(made.id)).status is DeploymentStatus.READY


async def test_undeploying_drains_the_nodes_and_retires_it_with_the_last(world: World) -> None:
    await world.models.register(MODEL, "1")
    made, (node,) = await world.ready()
    await world.models.undeploy(made.id)
    await world.models.undeploy(made.id)  # harmless
    await world.driver.round()
    assert (await world.fleet.node(node.id)).status is NodeStatus.DRAINING
    await world.fleet.deregister(node.id)
    await world.driver.round()
    assert (await world.models.deployment(made.id)).status is DeploymentStatus.RETIRED
    with pytest.raises(Conflict):
        await world.models.scale(made.id, 2)


# rollouts


async def test_until_its_nodes_are_ready_the_new_deployment_gets_nothing(world: World) -> None:
    await world.models.register(MODEL, "1")
    old, _ = await world.ready()
    new = await world.models.deploy(MODEL)
    rollout = await world.models.roll_out(new.id, RolloutKind.CANARY, RULES)
    await world.driver.round()
    assert (await world.models.rollout(rollout.id)).step == -1
    assert await read_splits(world.engine) == {MODEL: Split((old.id,), (1000,))}


async def test_a_canary_takes_its_steps_and_the_old_deployment_drains_at_the_end(world: World) -> None:
    rollout, old_node, new_node = await begun(world)
    assert await world.shares() == {rollout.old: 900, rollout.new: 100}
    for _ in range(2):
        world.clock.advance(61)
        for node in (old_node, new_node):
            await world.fleet.heartbeat(node.id, Heartbeat())
        await world.requests(12, new_node)
        await world.driver.round()
    ended = await world.models.rollout(rollout.id)
    assert ended.status is RolloutStatus.FINISHED
    assert await world.shares() == {rollout.old: 0, rollout.new: 1000}
    await world.driver.round()
    assert (await world.fleet.node(old_node.id)).status is NodeStatus.DRAINING
    # Until it is retired its nodes must get nothing.
    assert await read_splits(world.engine) == {MODEL: Split((rollout.new,), (1000,))}


async def test_blue_green_moves_everything_at_once(world: World) -> None:
    rollout, _, _ = await begun(world, RolloutKind.BLUE_GREEN)
    assert await world.shares() == {rollout.old: 0, rollout.new: 1000}


async def test_failures_take_it_back_also_when_another_node_saved_the_request(world: World) -> None:
    rollout, old_node, new_node = await begun(world)
    await world.requests(100, old_node)
    await world.requests(8, old_node, failed_nodes=(NodeId(new_node.id),), attempts=2)
    await world.driver.round()
    ended = await world.models.rollout(rollout.id)
    assert ended.status is RolloutStatus.ROLLED_BACK
    assert ended.reason == "8 of 8 requests failed on the new deployment, 0.0% on the old one"
    assert await world.shares() == {rollout.old: 1000, rollout.new: 0}
    assert (await world.models.deployment(rollout.new)).status is DeploymentStatus.DRAINING


async def test_errors_of_both_alike_are_not_held_against_the_new_one(world: World) -> None:
    rollout, old_node, new_node = await begun(world)
    for node, count in ((old_node, 60), (new_node, 12)):
        await world.requests(count, node)
        await world.requests(count // 3, node, outcome=Outcome.TRUNCATED)
    await world.driver.round()
    assert (await world.models.rollout(rollout.id)).status is RolloutStatus.RUNNING


async def test_a_rollout_from_nodes_of_no_deployment(world: World) -> None:
    await world.models.register(MODEL, "1")
    await world.node(None)
    new, _ = await world.ready()
    rollout = await world.models.roll_out(new.id, RolloutKind.CANARY, RULES, old=None)
    await world.driver.round()
    assert rollout.old == UNDEPLOYED
    assert await read_splits(world.engine) == {MODEL: Split((UNDEPLOYED, new.id), (900, 1000))}


async def test_an_ab_test_keeps_each_org_on_one_side(world: World) -> None:
    rollout, _, _ = await begun(world, RolloutKind.AB)
    split = (await read_splits(world.engine))[MODEL]
    chosen = [split.choose(f"org_{number}", 0.5) for number in range(2000)]
    assert chosen == [split.choose(f"org_{number}", 0.1) for number in range(2000)]
    assert 0.06 < chosen.count(rollout.new) / 2000 < 0.14


async def test_one_rollout_of_a_model_at_a_time_and_what_it_needs_stays(world: World) -> None:
    rollout, _, _ = await begun(world)
    other = await world.models.deploy(MODEL)
    with pytest.raises(Conflict, match="is running"):
        await world.models.roll_out(other.id, RolloutKind.CANARY)
    with pytest.raises(Conflict, match="needs this deployment"):
        await world.models.undeploy(rollout.new)
    await world.models.end_rollout(rollout.id, RolloutStatus.CANCELLED)
    await world.models.end_rollout(rollout.id, RolloutStatus.CANCELLED)  # harmless
    with pytest.raises(Conflict):
        await world.models.end_rollout(rollout.id, RolloutStatus.FINISHED)


async def test_two_drivers_at_once_do_nothing_twice(world: World) -> None:
    rollout, _, new_node = await begun(world)
    world.clock.advance(61)
    await world.fleet.heartbeat(new_node.id, Heartbeat())
    await world.requests(12, new_node)
    await asyncio.gather(*(world.driver.round() for _ in range(3)))
    after = await world.models.rollout(rollout.id)
    assert (after.status, after.step) == (RolloutStatus.RUNNING, 1)


async def test_what_is_done_is_in_the_audit_log(world: World) -> None:
    rollout, _, _ = await begun(world)
    await world.models.end_rollout(rollout.id, RolloutStatus.CANCELLED, "by an operator")
    async with world.engine.connect() as conn:
        actions = set((await conn.execute(select(audit_log.c.action))).scalars())
    assert actions >= {
        "model.create",
        "model.change",
        "deployment.create",
        "rollout.create",
        "rollout.advance",
        "rollout.cancelled",
    }
