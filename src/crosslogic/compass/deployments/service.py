"""Plan, deploy, look at, roll back and delete.

Invariants: the cluster is asked in a dry run for all objects before one is applied; a deployment that is being applied
says so before the first one, so that after a kill it is seen and can be asked for again, which is harmless. Objects of
the revision before that the new one does not have are removed last.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import yaml

from crosslogic.compass.deployments.model import (
    Answered,
    ClusterStatus,
    DeploymentState,
    ObjectRef,
    PlannedDeployment,
    Revision,
)
from crosslogic.compass.deployments.ports import Cluster, OwnNodes
from crosslogic.compass.deployments.sql import DeploymentsSql
from crosslogic.compass.manifests.model import DeploymentPlan, Manifest, Platform, Surroundings
from crosslogic.compass.manifests.names import dns_label
from crosslogic.compass.manifests.render import Quota, front_of, namespace_of, plain_files, render
from crosslogic.kernel.errors import Conflict, CrossLogicError, Unavailable
from crosslogic.tenancy.audit_sql import AuditTrail

MOST_TEST_TOKENS = 512
FRONT_PORT = 8080
_TENANTS = ("Namespace", "ResourceQuota")  # shared by all of a tenant's deployments


class TestPrompts:
    """Lets a few through in a minute: nothing that is asked so is metered."""

    def __init__(self, per_minute: int = 10) -> None:
        self._per_minute = per_minute
        self._asked: dict[str, deque[float]] = {}

    def admit(self, ref: str, now_s: float) -> bool:
        recent = self._asked.setdefault(ref, deque(maxlen=self._per_minute))
        if len(recent) == self._per_minute and now_s - recent[0] < 60.0:
            return False
        recent.append(now_s)
        return True


class DeploymentService:
    """Raises InvalidRequest, NotFound, Conflict, Forbidden and Unavailable."""

    def __init__(
        self,
        store: DeploymentsSql,
        cluster: Cluster | None,
        trail: AuditTrail,
        nodes: OwnNodes | None = None,
        prompts: TestPrompts | None = None,
    ) -> None:
        self._prompts = prompts or TestPrompts()
        self.store = store
        self._cluster = cluster
        self._trail = trail
        self._nodes = nodes

    def acting_as(self, trail: AuditTrail) -> DeploymentService:
        nodes = None if self._nodes is None else self._nodes.acting_as(trail.actor)
        return DeploymentService(self.store, self._cluster, trail, nodes, self._prompts)

    async def plan(self, plan: DeploymentPlan, around: Surroundings) -> PlannedDeployment:
        render(plan, around)  # refuses what cannot be rendered before it is stored
        return await self.store.add(plan, around, self._trail)

    async def revise(
        self, deployment_id: str, org_id: str, plan: DeploymentPlan, around: Surroundings
    ) -> PlannedDeployment:
        known = await self.store.one(deployment_id, org_id)
        if plan.name != known.name:
            raise Conflict("a deployment keeps its name; plan another one")
        before = await self.store.revision(known.id, known.revision)
        if around.platform is not before.surroundings.platform and known.applied_revision is not None:
            raise Conflict("a deployment stays where it was applied; delete it, and plan another one there")
        render(plan, around)
        return await self.store.revise(known, plan, around, self._trail)

    async def manifests(self, deployment_id: str, org_id: str, revision: int | None = None) -> list[Manifest]:
        known = await self.store.one(deployment_id, org_id)
        found = await self.store.revision(known.id, revision or known.revision)
        if found.surroundings.platform is Platform.NODES:
            return [each for each in plain_files(found.plan, found.surroundings) if each.path.endswith(".json")]
        return await self._rendered(found)

    async def deploy(
        self, deployment_id: str, org_id: str, *, force: bool = False, dry_run: bool = False
    ) -> PlannedDeployment:
        """Dry run, apply, prune. What fails is written down, and raised. `dry_run`: no more than that."""
        known = await self.store.one(deployment_id, org_id)
        if dry_run:
            await self._tried(await self.store.revision(known.id, known.revision), force=force)
            return known
        return await self._deploy(known, force=force)

    async def roll_back(self, deployment_id: str, org_id: str, *, force: bool = False) -> PlannedDeployment:
        """To the plan that was applied before the present one, as a revision of its own."""
        known = await self.store.one(deployment_id, org_id)
        before = await self.store.applied_before(known.id, known.applied_revision or known.revision)
        if before is None:
            raise Conflict("there is no revision before this one that was applied")
        await self._tried(before, force=force)
        known = await self.store.revise(known, before.plan, before.surroundings, self._trail)
        return await self._deploy(known, force=force, action="planned_deployment.roll_back")

    async def status(self, deployment_id: str, org_id: str) -> ClusterStatus:
        known = await self.store.one(deployment_id, org_id)
        current = await self._current(known)
        if current.surroundings.platform is Platform.NODES:
            return await self._own().status(known.id)
        cluster = self._there()
        objects = _objects(await self._rendered(current))
        serving = next(ObjectRef.of(each) for each in objects if each["kind"] in ("InferenceService", "Deployment"))
        return await cluster.status(serving.namespace, dns_label(current.plan.name), serving)

    async def ask(self, deployment_id: str, org_id: str, prompt: str, max_tokens: int = 64) -> Answered:
        """A test prompt to the engine itself, past our gateway: nothing is metered, so answers are short."""
        known = await self.store.one(deployment_id, org_id)
        current = await self._current(known)
        plan, around = current.plan, current.surroundings
        if known.state is not DeploymentState.APPLIED:
            raise Conflict(f"this deployment is {known.state.value}; apply it before it is asked")
        if around.platform is Platform.NODES:
            raise Conflict(
                f"nodes of ours answer through the gateway: send the model {plan.model} to /v1/chat/completions"
            )
        if around.api_key is not None:
            raise Conflict("its engine asks for a key that only the cluster holds; send the prompt to its endpoint")
        if not self._prompts.admit(known.id, self.store.monotonic_s()):
            raise Unavailable("this deployment was tested ten times within a minute; use its endpoint, or wait")
        body = {
            "model": plan.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max(1, min(max_tokens, MOST_TEST_TOKENS)),
        }
        return await self._there().ask(namespace_of(plan, around), front_of(plan), FRONT_PORT, body)

    async def delete(self, deployment_id: str, org_id: str) -> PlannedDeployment:
        """Remove its objects; the tenant's namespace stays. Harmless to repeat."""
        known = await self.store.one(deployment_id, org_id)
        current = await self._current(known)
        remove = self._own().delete if current.surroundings.platform is Platform.NODES else None
        cluster = self._there() if remove is None else None
        known = await self.store.set_state(
            known, DeploymentState.DELETING, "planned_deployment.delete", self._trail, message=known.message
        )
        if remove is not None:
            await remove(known.id)
        elif cluster is not None:
            refs: set[ObjectRef] = set()
            for number in {known.revision, known.applied_revision or known.revision}:
                refs |= _own(await self._rendered(await self.store.revision(known.id, number)))
            await cluster.delete(sorted(refs, reverse=True))
        return await self.store.set_state(known, DeploymentState.DELETED, "planned_deployment.deleted", self._trail)

    async def serving_nodes(self, revision: Revision) -> list[str] | None:
        """Ids of the nodes of ours that serve it; None where it runs elsewhere."""
        if revision.surroundings.platform is not Platform.NODES or self._nodes is None:
            return None
        return await self._nodes.node_ids(revision.deployment_id)

    async def _deploy(
        self, known: PlannedDeployment, *, force: bool, action: str = "planned_deployment.apply"
    ) -> PlannedDeployment:
        current = await self.store.revision(known.id, known.revision)
        await self._tried(current, force=force)
        known = await self.store.set_state(known, DeploymentState.APPLYING, action, self._trail)
        try:
            await self._brought(known, current, force=force)
        except CrossLogicError as error:
            await self.store.set_state(
                known, DeploymentState.FAILED, "planned_deployment.failed", self._trail, message=str(error)[:1000]
            )
            raise
        return await self.store.set_state(
            known, DeploymentState.APPLIED, "planned_deployment.applied", self._trail, revision=known.revision
        )

    async def _tried(self, current: Revision, *, force: bool) -> None:
        """Whether it would be taken; nothing is changed."""
        if current.surroundings.platform is Platform.NODES:
            await self._own().apply(current.deployment_id, current.revision, current.plan, dry_run=True)
        else:
            await self._there().apply(_objects(await self._rendered(current)), dry_run=True, force=force)

    async def _brought(self, known: PlannedDeployment, current: Revision, *, force: bool) -> None:
        if current.surroundings.platform is Platform.NODES:
            await self._own().apply(known.id, current.revision, current.plan)
            return
        cluster = self._there()
        manifests = await self._rendered(current)
        former: set[ObjectRef] = set()
        if known.applied_revision is not None:
            former = _own(await self._rendered(await self.store.revision(known.id, known.applied_revision)))
        await cluster.apply(_objects(manifests), force=force)
        await cluster.delete(sorted(former - _own(manifests), reverse=True))

    async def _current(self, known: PlannedDeployment) -> Revision:
        return await self.store.revision(known.id, known.applied_revision or known.revision)

    async def _rendered(self, revision: Revision) -> list[Manifest]:
        return render(revision.plan, revision.surroundings, await self._quota(revision))

    async def _quota(self, revision: Revision) -> Quota:
        """For all of the tenant's deployments in this namespace together, one replica more of each while it changes."""
        namespace = namespace_of(revision.plan, revision.surroundings)
        others = [
            each
            for each in await self.store.latest_plans(revision.plan.org_id)
            if each.deployment_id != revision.deployment_id and namespace_of(each.plan, each.surroundings) == namespace
        ]
        gpus = pods = 0
        for each in (*others, revision):
            replicas = each.plan.max_replicas + 1
            pods += 2 * replicas
            gpus += 0 if each.surroundings.simulator else each.plan.gpus_per_replica * replicas
        return Quota(gpus, pods)

    def _own(self) -> OwnNodes:
        if self._nodes is None:
            raise Unavailable("this process knows nothing of nodes; ask the control process")
        return self._nodes

    def _there(self) -> Cluster:
        if self._cluster is None:
            raise Unavailable("no cluster is configured; set compass.kubeconfig, or apply the manifests yourself")
        return self._cluster


def _objects(manifests: list[Manifest]) -> list[dict[str, Any]]:
    return [yaml.safe_load(each.text) for each in manifests]


def _own(manifests: list[Manifest]) -> set[ObjectRef]:
    return {ObjectRef.of(each) for each in _objects(manifests) if each["kind"] not in _TENANTS}


def with_name(plan: DeploymentPlan, name: str, org_id: str, tenant: str) -> DeploymentPlan:
    """The plan as this org's, whatever it said."""
    return msgspec.structs.replace(plan, name=name, org_id=org_id, tenant=tenant)
