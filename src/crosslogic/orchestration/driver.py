"""Drives deployments and rollouts: one round looks at nodes and ledger, decides by the pure files, and writes it down.

Invariant: a round may be killed at any line and be run by two processes at once: each step reads its row again under
a lock and does nothing when it is done already.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.model import NodeStatus, Symptom
from crosslogic.fleet.registry import Registry
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.kernel.ids import NodeId, first_request_id
from crosslogic.metering.model import NODES_FAULT
from crosslogic.orchestration import deployment as life
from crosslogic.orchestration.model import (
    Deployment,
    DeploymentStatus,
    Observed,
    Rollout,
    RolloutStatus,
)
from crosslogic.orchestration.registry import UNDEPLOYED, ModelRegistry
from crosslogic.orchestration.rollout import Advance, Finish, RollBack, decide
from crosslogic.store.engine import reading
from crosslogic.store.tables import nodes as fleet_nodes
from crosslogic.store.tables import usage_records

READY_WITHIN_S = 1800.0
_SAMPLE = 5_000  # the model's latest requests in a step

_log = logging.getLogger(__name__)


class Tried(msgspec.Struct, frozen=True):
    """One request, as far as it tells of nodes."""

    node_id: str
    outcome: str
    first_token_ms: int | None
    failed_nodes: str | None  # with spaces between them


class Present(msgspec.Struct, frozen=True):
    """A node, as far as it matters to its deployment."""

    id: NodeId
    status: NodeStatus
    at_risk: bool


class OrchestrationDriver:
    """A leased job of the control process."""

    def __init__(self, engine: AsyncEngine, registry: ModelRegistry, fleet: Registry, clock: Clock) -> None:
        self._engine = engine
        self._registry = registry
        self._fleet = fleet
        self._clock = clock

    async def round(self) -> None:
        """Settle every deployment that has not ended, then every running rollout."""
        deployments = await self._registry.unended()
        rollouts = await self._registry.rollouts(status=RolloutStatus.RUNNING, limit=10_000)
        if not deployments and not rollouts:
            return
        nodes = await self._present()
        for deployment in deployments:
            await self._settle(deployment, nodes.get(deployment.id, []))
        for rollout in rollouts:
            await self._drive(rollout, nodes)

    async def _present(self) -> dict[str, list[Present]]:
        """By deployment."""
        n = fleet_nodes.c
        # An org's own nodes are its own affair, whatever they say that they run.
        query = select(n.id, n.deployment_id, n.status, n.health).where(n.org_id.is_(None)).order_by(n.id)
        found: dict[str, list[Present]] = defaultdict(list)
        async with reading(self._engine) as conn:
            for node_id, deployment_id, status, health in await conn.execute(query):
                at_risk = health.get("symptom") == Symptom.AT_RISK.value
                found[deployment_id or UNDEPLOYED].append(Present(node_id, NodeStatus(status), at_risk))
        return found

    async def _settle(self, deployment: Deployment, nodes: Sequence[Present]) -> None:
        if deployment.status is DeploymentStatus.DRAINING:
            await self._drain(nodes)
        active = [node for node in nodes if node.status is NodeStatus.ACTIVE]
        at_risk = sum(node.at_risk for node in active)
        present = sum(node.status is not NodeStatus.DEAD for node in nodes)
        now = self._clock.now()
        after = life.settled(deployment, len(active), present, now, READY_WITHIN_S, at_risk)
        if after is deployment:
            return
        async with self._engine.begin() as conn:
            written = await self._registry.write_deployment(conn, deployment, after, after.status.value)
        _log.info("deployment %s of %s is %s", deployment.id, deployment.model_id, after.status.value)
        await self._settle(written, nodes)  # it may go on at once; where it does not move there is an end

    async def _drain(self, nodes: Iterable[Present]) -> None:
        for node in nodes:
            if node.status in (NodeStatus.ACTIVE, NodeStatus.STARTING):
                try:
                    await self._fleet.drain(node.id)
                except (NotFound, Conflict):
                    continue  # it went by itself

    async def _drive(self, rollout: Rollout, nodes: Mapping[str, Sequence[Present]]) -> None:
        new = await self._registry.deployment(rollout.new)
        tried = await self._tried(rollout)
        old_seen, new_seen = (
            observed(tried, {node.id for node in nodes.get(deployment_id, [])})
            for deployment_id in (rollout.old, rollout.new)
        )
        decision = decide(rollout, new, old_seen, new_seen, self._clock.now())
        if isinstance(decision, Finish):
            await self._registry.end_rollout(rollout.id, RolloutStatus.FINISHED)
        elif isinstance(decision, RollBack):
            await self._registry.end_rollout(rollout.id, RolloutStatus.ROLLED_BACK, decision.reason)
            _log.warning("rollout %s of %s went back: %s", rollout.id, rollout.model_id, decision.reason)
        elif isinstance(decision, Advance):
            await self._advance(rollout, decision)

    async def _advance(self, rollout: Rollout, decision: Advance) -> None:
        async with self._engine.begin() as conn:
            running = await self._registry.running_rollout(conn, rollout.model_id)
            if running is None or running.id != rollout.id or running.step != rollout.step:
                return
            after = msgspec.structs.replace(running, step=decision.step, step_since=self._clock.now())
            await self._registry.share_out(conn, after, decision.share)
            await self._registry.write_rollout(conn, running, after, "advance")
        _log.info("rollout %s of %s: %.1f %% to the new one", rollout.id, rollout.model_id, decision.share / 10)

    async def _tried(self, rollout: Rollout) -> list[Tried]:
        """What became of the model's requests since the step began."""
        if rollout.step < 0:
            return []
        t = usage_records.c
        query = (
            select(t.node_id, t.outcome, t.first_token_ms, t.failed_nodes)
            .where(t.request_id >= first_request_id(int(rollout.step_since.timestamp() * 1000)))
            .where(t.n == 0, t.model == rollout.model_id)
            .order_by(t.request_id.desc())
            .limit(_SAMPLE)
        )
        async with reading(self._engine) as conn:
            return [Tried(*row) for row in await conn.execute(query)]


def observed(tried: Iterable[Tried], nodes: Set[str]) -> Observed:
    """What these nodes did of it. A failure counts also where another node saved the request afterwards."""
    requests = failures = 0
    first_tokens_ms = []
    for one in tried:
        failed_first = sum(node_id in nodes for node_id in (one.failed_nodes or "").split())
        here = one.node_id in nodes
        requests += failed_first + here
        failures += failed_first + (here and one.outcome in NODES_FAULT)
        if here and not failed_first and one.first_token_ms is not None:
            first_tokens_ms.append(one.first_token_ms)
    return Observed(requests, failures, tuple(first_tokens_ms))
