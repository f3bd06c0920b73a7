"""Planned deployments on nodes of our own, on both databases: wanted once, moved by rollouts, seen, and let go."""

from typing import Any

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.deployments.model import DeploymentState, PlannedDeployment
from crosslogic.compass.deployments.service import DeploymentService
from crosslogic.compass.deployments.sql import DeploymentsSql
from crosslogic.compass.manifests.model import Platform, Surroundings
from crosslogic.fleet.model import NodeStatus
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, Unavailable
from crosslogic.orchestration.driver import OrchestrationDriver
from crosslogic.orchestration.model import DeploymentStatus, RolloutStatus
from crosslogic.orchestration.planned import PlannedOnNodes
from crosslogic.orchestration.registry import ModelRegistry
from crosslogic.store.tables import nodes
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.manifest_samples import PLAN

NODES = Surroundings(platform=Platform.NODES)


class Rig:
    def __init__(self, engine: AsyncEngine, org_id: str) -> None:
        self.engine = engine
        self.org_id = org_id
        clock = ManualClock()
        self.models = ModelRegistry(engine, key_hasher(), clock)
        self.fleet = Registry(engine, clock)
        self.driver = OrchestrationDriver(engine, self.models, self.fleet, clock)
        trail = AuditTrail(digest=key_hasher(), clock=clock)
        self.service = DeploymentService(
            DeploymentsSql(engine, clock), None, trail, PlannedOnNodes(self.models, engine)
        )

    async def planned(self, **fields: Any) -> PlannedDeployment:
        return await self.service.plan(self.plan(**fields), NODES)

    def plan(self, **fields: Any) -> Any:
        return msgspec.structs.replace(PLAN, **{"org_id": self.org_id, "max_replicas": 2, **fields})

    async def wanted(self) -> list[Any]:
        return await self.models.deployments(limit=500)

    async def join(self, number: int, deployment_id: str) -> None:
        """A node registers with the deployment's id, and is seen healthy."""
        await self.fleet.register(
            Registration(f"http://10.0.0.{number}:80", (PLAN.model,), node_id=f"n{number}", deployment_id=deployment_id)
        )
        async with self.engine.begin() as conn:
            await conn.execute(nodes.update().values(status=NodeStatus.ACTIVE.value))


@pytest.fixture
async def rig(engine: AsyncEngine) -> Rig:
    org = await TenancyService(TenancySql(engine), key_hasher(), ManualClock()).create_org("acme")
    return Rig(engine, org.id)


async def test_a_plan_becomes_one_deployment_however_often_it_is_applied(rig: Rig) -> None:
    planned = await rig.planned()
    await rig.service.deploy(planned.id, rig.org_id, dry_run=True)
    assert await rig.wanted() == []
    for _ in range(2):
        done = await rig.service.deploy(planned.id, rig.org_id)
        assert done.state is DeploymentState.APPLIED
    (made,) = await rig.wanted()
    assert (made.model_id, made.replicas, made.config.max_batch_size) == (PLAN.model, 2, 256)
    assert made.id == f"dep_{planned.id.removeprefix('plan_')}_1"
    assert (await rig.models.model(PLAN.model)).context_window == 8192
    files = await rig.service.manifests(planned.id, rig.org_id)
    assert [each.path for each in files] == ["files/crosslogic-deployment.json"]


async def test_its_nodes_are_its_pods_and_it_is_ready_when_all_serve(rig: Rig) -> None:
    planned = await rig.planned()
    await rig.service.deploy(planned.id, rig.org_id)
    (made,) = await rig.wanted()
    seen = await rig.service.status(planned.id, rig.org_id)
    assert not seen.ready
    assert f"0 of 2 nodes serve it; start others with `crosslogic agent --deployment {made.id}`" in str(seen.message)
    for number in (1, 2):
        await rig.join(number, made.id)
    seen = await rig.service.status(planned.id, rig.org_id)
    assert (seen.ready, seen.ready_replicas, [pod.name for pod in seen.pods]) == (True, 2, ["n1", "n2"])
    revision = await rig.service.store.revision(planned.id, 1)
    assert await rig.service.serving_nodes(revision) == ["n1", "n2"]
    with pytest.raises(Conflict, match="/v1/chat/completions"):
        await rig.service.ask(planned.id, rig.org_id, "hello")


async def test_another_size_scales_and_another_configuration_rolls_out(rig: Rig) -> None:
    planned = await rig.planned()
    await rig.service.deploy(planned.id, rig.org_id)
    (first,) = await rig.wanted()
    await rig.service.revise(planned.id, rig.org_id, rig.plan(max_replicas=3), NODES)
    await rig.service.deploy(planned.id, rig.org_id)
    assert [(each.id, each.replicas) for each in await rig.wanted()] == [(first.id, 3)]
    for number in (1, 2, 3):
        await rig.join(number, first.id)
    await rig.driver.round()
    await rig.service.revise(planned.id, rig.org_id, rig.plan(tensor_parallel=2, gpus_per_replica=2), NODES)
    for _ in range(2):  # as after a kill in between
        await rig.service.deploy(planned.id, rig.org_id)
    second = next(each for each in await rig.wanted() if each.id != first.id)
    assert second.id.endswith("_3")
    (rollout,) = await rig.models.rollouts()
    assert (rollout.old, rollout.new, rollout.status) == (first.id, second.id, RolloutStatus.RUNNING)
    for number in (4, 5):
        await rig.join(number, second.id)
    await rig.driver.round()
    assert (await rig.models.deployment(second.id)).share == 1000
    with pytest.raises(Conflict, match=f"the rollout {rollout.id} of this model is running"):
        await rig.service.roll_back(planned.id, rig.org_id)
    await rig.models.end_rollout(rollout.id, RolloutStatus.FINISHED)
    back = await rig.service.roll_back(planned.id, rig.org_id)
    assert (back.revision, back.applied_revision) == (4, 4)
    third = [each for each in await rig.wanted() if each.id.endswith("_4")]
    assert [each.config.tensor_parallelism for each in third] == [1]


async def test_deleting_lets_its_nodes_finish_and_may_be_repeated(rig: Rig) -> None:
    planned = await rig.planned()
    await rig.service.deploy(planned.id, rig.org_id)
    for _ in range(2):
        assert (await rig.service.delete(planned.id, rig.org_id)).state is DeploymentState.DELETED
    assert {each.status for each in await rig.wanted()} == {DeploymentStatus.DRAINING}
    again = await rig.service.deploy(planned.id, rig.org_id)
    assert again.state is DeploymentState.APPLIED
    assert [each.id[-4:] for each in await rig.wanted() if each.status is DeploymentStatus.PENDING] == [
        f"{planned.id[-2:]}_1.1"[-4:]
    ]


async def test_it_stays_where_it_was_applied(rig: Rig) -> None:
    planned = await rig.planned()
    await rig.service.deploy(planned.id, rig.org_id)
    with pytest.raises(Conflict, match="stays where it was applied"):
        await rig.service.revise(planned.id, rig.org_id, rig.plan(), Surroundings())
    elsewhere = await rig.service.plan(rig.plan(name="other"), Surroundings())
    with pytest.raises(Unavailable, match="no cluster is configured"):
        await rig.service.deploy(elsewhere.id, rig.org_id)
