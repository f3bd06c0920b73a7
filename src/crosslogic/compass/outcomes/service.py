"""Observes a deployment's window, judges it and learns of it.

Invariant: what is learnt from comes from our ledger or our Prometheus, never from a caller's own figures.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.deployments.model import Revision
from crosslogic.compass.deployments.sql import DeploymentsSql
from crosslogic.compass.manifests.model import DeploymentPlan, PlannedForecast, Platform
from crosslogic.compass.manifests.render import front_of, hosts_of, namespace_of
from crosslogic.compass.outcomes.bias import corrected
from crosslogic.compass.outcomes.ledger import from_ledger
from crosslogic.compass.outcomes.model import Judged, Observation
from crosslogic.compass.outcomes.prometheus import Prometheus
from crosslogic.compass.outcomes.sql import OutcomesSql
from crosslogic.compass.ranking.model import Candidate
from crosslogic.compass.ranking.service import PlanningService
from crosslogic.fleet import sql as fleet_sql
from crosslogic.kernel.errors import Conflict, InvalidRequest, Unavailable

LONGEST_S = 24 * 3600


class Source(StrEnum):
    LEDGER = "ledger"
    PROMETHEUS = "prometheus"


class NothingServed(Conflict):
    """Most windows at night are so."""


class OutcomeService:
    def __init__(
        self,
        engine: AsyncEngine,
        store: OutcomesSql,
        deployments: DeploymentsSql,
        planning: PlanningService,
        prometheus: Prometheus | None = None,
        serving: Callable[[Revision], Awaitable[list[str] | None]] | None = None,
    ) -> None:
        self._serving = serving
        self.store = store
        self._engine = engine
        self._deployments = deployments
        self._planning = planning
        self._prometheus = prometheus

    async def observe(
        self,
        deployment_id: str,
        org_id: str,
        *,
        start: datetime,
        end: datetime,
        source: Source = Source.LEDGER,
        replicas: int | None = None,
        nodes: Sequence[str] = (),
    ) -> Judged:
        """Raises NothingServed where the window says nothing."""
        if not 0 < (end - start).total_seconds() <= LONGEST_S:
            raise InvalidRequest("a window is longer than nothing and at most a day", param="end")
        known = await self._deployments.one(deployment_id, org_id)
        revision = await self._deployments.revision(known.id, known.applied_revision or known.revision)
        whose = org_id if nodes else _whose(revision)
        if source is Source.LEDGER and not nodes:
            nodes = await self._nodes_of(revision)
        seen = await self._seen(revision, whose, source, start, end, replicas, nodes)
        return await self._judged(revision, seen)

    async def observe_apart(self, revision: Revision, start: datetime, end: datetime) -> Judged | None:
        """What is surely of this deployment alone; None where nothing is, or nothing was served.

        By Prometheus, else by the ledger where nodes are known to be its own: an org may well have the same model
        served by others, and their speed teaches nothing of this one.
        """
        own_nodes = revision.surroundings.platform is Platform.NODES
        source = Source.PROMETHEUS if self._prometheus is not None and not own_nodes else Source.LEDGER
        nodes = await self._nodes_of(revision) if source is Source.LEDGER else []
        if source is Source.LEDGER and not nodes:
            return None
        try:
            seen = await self._seen(revision, _whose(revision), source, start, end, None, nodes)
            return await self._judged(revision, seen)
        except NothingServed:
            return None

    async def _nodes_of(self, revision: Revision) -> list[str]:
        """Nodes of the gateway that are this deployment: those that it wanted, or whose address is its own."""
        wanted = None if self._serving is None else await self._serving(revision)
        if wanted is not None:
            return wanted
        hosts = hosts_of(revision.plan, revision.surroundings)
        return [
            node.id for node in await fleet_sql.fetch(self._engine) if urlsplit(node.endpoint_url).hostname in hosts
        ]

    async def _seen(
        self,
        revision: Revision,
        org_id: str | None,
        source: Source,
        start: datetime,
        end: datetime,
        replicas: int | None,
        nodes: Sequence[str],
    ) -> Observation:
        plan = revision.plan
        one_pusd = plan.cost_per_hour_pusd // plan.max_replicas
        seen: Observation | None
        if source is Source.PROMETHEUS:
            if self._prometheus is None:
                raise Unavailable("no Prometheus is configured; set compass.prometheus_url, or observe the ledger")
            namespace = namespace_of(plan, revision.surroundings)
            seen = await self._prometheus.observe(namespace, front_of(plan), start=start, end=end)
            if seen is not None:
                seen = msgspec.structs.replace(seen, cost_per_hour_pusd=one_pusd * seen.replicas)
        else:
            own_nodes = revision.surroundings.platform is Platform.NODES
            count = replicas or (len(nodes) if nodes and own_nodes else plan.max_replicas)
            seen = await from_ledger(
                self._engine,
                org_id=org_id,
                model=plan.model,
                start=start,
                end=end,
                replicas=count,
                cost_per_hour_pusd=one_pusd * count,
                nodes=nodes,
            )
        if seen is None:
            raise NothingServed("nothing was served whole in this window")
        return seen

    async def _judged(self, revision: Revision, seen: Observation) -> Judged:
        plan = revision.plan
        candidate = candidate_of(plan)
        model = await self._planning.step_model(candidate, seen.prompt_tokens, seen.output_tokens)
        limits = ReplicaLimits(plan.kv_tokens or 10**7, plan.max_num_seqs)
        return await self.store.record(plan.org_id, revision.deployment_id, candidate.id, seen, model, limits, plan.slo)

    async def close(self) -> None:
        if self._prometheus is not None:
            await self._prometheus.close()

    async def forecast(self, plan: DeploymentPlan) -> PlannedForecast:
        """The plan's, with what was learnt since it was made."""
        bias = await self.store.bias(plan.org_id, candidate_of(plan).id)
        return plan.forecast if bias is None else corrected(plan.forecast, bias)


def _whose(revision: Revision) -> str | None:
    """Whose requests are a window's: of nodes that we run for everybody everybody's, for those make them slow."""
    return None if revision.surroundings.platform is Platform.NODES else revision.plan.org_id


def candidate_of(plan: DeploymentPlan) -> Candidate:
    return Candidate(plan.model, plan.gpu_type, plan.tensor_parallel, plan.precision)
