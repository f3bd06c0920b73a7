"""Planned deployments on nodes of our own: each becomes deployments of the model registry, with ids that it gives.

Invariant: applied twice, or after a kill at any line, it wants no node twice, for the id of what a revision wants is
known before it is wanted. Requests move once the new nodes are ready, by a rollout that goes back by itself.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.deployments.model import ClusterStatus, PodStatus
from crosslogic.compass.manifests.model import DeploymentPlan
from crosslogic.fleet import sql as fleet_sql
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.orchestration.deployment import ENDING
from crosslogic.orchestration.model import Deployment, DeploymentConfig, DeploymentId, RolloutKind, RolloutStatus
from crosslogic.orchestration.registry import ModelRegistry
from crosslogic.tenancy.audit import Actor

_MOST = 500


class PlannedOnNodes:
    """`compass.deployments.ports.OwnNodes`."""

    def __init__(self, registry: ModelRegistry, engine: AsyncEngine) -> None:
        self._registry = registry
        self._engine = engine

    def acting_as(self, actor: Actor) -> PlannedOnNodes:
        return PlannedOnNodes(self._registry.acting_as(actor), self._engine)

    async def apply(self, ref: str, revision: int, plan: DeploymentPlan, *, dry_run: bool = False) -> None:
        """Raises Conflict while a rollout of the model runs."""
        config = DeploymentConfig(
            tensor_parallelism=plan.tensor_parallel,
            max_batch_size=plan.max_num_seqs,
            quantization=plan.quantization,
        )
        ours = await self._ours(ref)
        live = [each for each in ours if each.status not in ENDING]
        alike = [
            each
            for each in live
            if (each.model_id, each.version, each.config) == (plan.model, plan.model_version, config)
        ]
        running = await self._registry.rollouts(model_id=plan.model, status=RolloutStatus.RUNNING, limit=1)
        if running and not (alike and running[0].new == alike[-1].id):
            raise Conflict(f"the rollout {running[0].id} of this model is running; finish or cancel it first")
        if dry_run:
            return
        if alike:
            current = alike[-1]
            if current.replicas != plan.max_replicas:
                await self._registry.scale(current.id, plan.max_replicas)
        else:
            await self._registered(plan)
            current = await self._registry.deploy(
                plan.model,
                replicas=plan.max_replicas,
                version=plan.model_version,
                config=config,
                deployment_id=_id_of(ref, revision, ours),
            )
        former = [each for each in live if each.id != current.id]
        for each in former:
            if each.model_id != plan.model:
                await self._registry.undeploy(each.id)
        siblings = [each for each in former if each.model_id == plan.model]
        if siblings and not running:
            await self._registry.roll_out(current.id, RolloutKind.BLUE_GREEN, old=siblings[-1].id)

    async def delete(self, ref: str) -> int:
        live = [each for each in await self._ours(ref) if each.status not in ENDING]
        for model in {each.model_id for each in live}:
            for rollout in await self._registry.rollouts(model_id=model, status=RolloutStatus.RUNNING):
                if rollout.new in {each.id for each in live}:
                    await self._registry.end_rollout(rollout.id, RolloutStatus.CANCELLED, "its deployment is deleted")
        for each in live:
            await self._registry.undeploy(each.id)
        return len(live)

    async def status(self, ref: str) -> ClusterStatus:
        ours = await self._ours(ref)
        if not ours:
            return ClusterStatus(False, 0, (), None, "no node was asked for it yet")
        current = next((each for each in reversed(ours) if each.status not in ENDING), ours[-1])
        nodes = await self._nodes([current])
        active = sum(node.status is NodeStatus.ACTIVE for node in nodes)
        message = current.reason
        if active < current.replicas and current.status not in ENDING:
            message = (
                f"{active} of {current.replicas} nodes serve it; start others with "
                f"`crosslogic agent --deployment {current.id}`"
            )
        ready = active >= current.replicas and current.status not in ENDING
        return ClusterStatus(ready, active, tuple(map(_as_pod, nodes)), None, message)

    async def node_ids(self, ref: str) -> list[str]:
        live = [each for each in await self._ours(ref) if each.status not in ENDING]
        return sorted(node.id for node in await self._nodes(live))

    async def _ours(self, ref: str) -> list[Deployment]:
        """In the order in which they were made."""
        prefix = _prefix(ref)
        found = await self._registry.deployments(after=prefix, limit=_MOST)
        return sorted((each for each in found if each.id.startswith(prefix)), key=lambda each: each.created_at)

    async def _nodes(self, those: list[Deployment]) -> list[Node]:
        ids = {each.id for each in those}
        return [
            node for node in await fleet_sql.fetch(self._engine) if node.deployment_id in ids and node.org_id is None
        ]

    async def _registered(self, plan: DeploymentPlan) -> None:
        """What somebody registered before stays as it is; its version is said with the deployment."""
        try:
            await self._registry.model(plan.model)
        except NotFound:
            card = {} if plan.max_model_len is None else {"context_window": plan.max_model_len}
            try:
                await self._registry.register(
                    plan.model, plan.model_version, quantization=plan.quantization or plan.precision, **card
                )
            except Conflict:
                return  # meanwhile somebody else has


def _prefix(ref: str) -> str:
    return f"dep_{ref.removeprefix('plan_')}_"


def _id_of(ref: str, revision: int, ours: list[Deployment]) -> DeploymentId:
    """The same for the same revision, unless what that one wanted has ended."""
    stem = f"{_prefix(ref)}{revision}"
    ended = sum(each.id.split(".")[0] == stem for each in ours)
    return DeploymentId(f"{stem}.{ended}" if ended else stem)


def _as_pod(node: Node) -> PodStatus:
    reason = node.health.detail or (None if node.status is NodeStatus.ACTIVE else node.status.value)
    return PodStatus(node.id, node.status.value, node.status is NodeStatus.ACTIVE, 0, reason)
