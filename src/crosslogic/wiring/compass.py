"""Builds the planner's side of the management API."""

from importlib import import_module

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import Deployed
from crosslogic.compass.conversation.service import CompassService
from crosslogic.compass.deployments.ports import Cluster
from crosslogic.compass.deployments.service import DeploymentService
from crosslogic.compass.deployments.sql import DeploymentsSql
from crosslogic.compass.intent.deterministic import DeterministicExtractor
from crosslogic.compass.intent.llm import LlmExtractor
from crosslogic.compass.intent.ports import Extractor
from crosslogic.compass.outcomes.prometheus import Prometheus
from crosslogic.compass.outcomes.service import OutcomeService
from crosslogic.compass.outcomes.sql import OutcomesSql
from crosslogic.compass.ranking.service import PlanningService
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.outcomes import OutcomesJob
from crosslogic.jobs.table import Job, outcome_jobs
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.orchestration.planned import PlannedOnNodes
from crosslogic.orchestration.registry import ModelRegistry
from crosslogic.settings.compass import CompassSettings
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher


def new_extractor(settings: CompassSettings) -> Extractor:
    """Rules, or a language model with the rules to fall back to."""
    if settings.llm_url is None:
        return DeterministicExtractor()
    key = settings.llm_api_key
    return LlmExtractor(
        settings.llm_url,
        settings.llm_model,
        api_key=None if key is None else key.get_secret_value(),
        timeout_s=settings.llm_timeout_s,
    )


def new_compass(settings: CompassSettings, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock) -> CompassService:
    return CompassService(engine, hash_key, clock, new_extractor(settings))


def new_deployments(
    settings: CompassSettings,
    engine: AsyncEngine,
    hash_key: KeyHasher,
    clock: Clock,
    planning: PlanningService,
    models: ModelRegistry,
) -> Deployed:
    cluster: Cluster | None = None
    if settings.kubeconfig is not None:
        try:
            adapter = import_module("crosslogic.compass.deployments.kubernetes")
        except ImportError:
            raise ConfigurationError("compass.kubeconfig needs the extra: pip install crosslogic[kubernetes]") from None
        path = None if settings.kubeconfig == "in-cluster" else settings.kubeconfig
        cluster = adapter.kubernetes_cluster(path, settings.kube_context)
    prometheus = None
    if settings.prometheus_url is not None:
        prometheus = Prometheus(settings.prometheus_url, httpx.AsyncClient(trust_env=False))
    store = DeploymentsSql(engine, clock)
    trail = AuditTrail(digest=hash_key, clock=clock)
    service = DeploymentService(store, cluster, trail, PlannedOnNodes(models, engine))
    outcomes = OutcomeService(
        engine, OutcomesSql(engine, clock), store, planning, prometheus, serving=service.serving_nodes
    )
    return Deployed(service, outcomes, settings.grafana_url)


def outcome_jobs_of(
    settings: CompassSettings, engine: AsyncEngine, clock: Clock, deployed: Deployed
) -> tuple[Job, ...]:
    job = OutcomesJob(deployed.outcomes, deployed.service.store, Outbox(engine), clock, settings.outcome_window_s)
    return outcome_jobs(job)
