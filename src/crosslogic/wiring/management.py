"""Builds the management side: API, node registry and monitor, periodic jobs."""

import random
from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.app import create_app
from crosslogic.api.cluster import cluster_router
from crosslogic.api.services import ApiServices
from crosslogic.cache.ports import KeptAnswers
from crosslogic.capacity.service import CapacityService
from crosslogic.catalog.store import CatalogStore
from crosslogic.compass.ranking.service import PlanningService
from crosslogic.fleet.fetch import HttpFetch
from crosslogic.fleet.monitor import Monitor, StaticNode
from crosslogic.fleet.registry import Registry
from crosslogic.gateway.operations import Check
from crosslogic.insight.anomalies.model import Watching
from crosslogic.insight.anomalies.sql import AnomaliesSql
from crosslogic.insight.finops.sql import FinopsSql
from crosslogic.insight.forecast.predict import PredictionModel
from crosslogic.insight.forecast.service import CapacityPlanner
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.anomalies import AnomaliesJob
from crosslogic.jobs.data_health import DataHealthJob
from crosslogic.jobs.finops import FinopsJob
from crosslogic.jobs.forecast import ForecastJob, Looking
from crosslogic.jobs.licence import LicenceJob
from crosslogic.jobs.node_health import NodeHealthJob
from crosslogic.jobs.runner import JobRunner
from crosslogic.jobs.spending_caps import SpendingCaps
from crosslogic.jobs.table import (
    Job,
    anomaly_jobs,
    capacity_jobs,
    data_health_jobs,
    finops_jobs,
    forecast_jobs,
    health_jobs,
    licence_jobs,
    notice_jobs,
    orchestration_jobs,
)
from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.live.boards import LiveBoard
from crosslogic.metering.requests import RequestFinder
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.metering.spend import SpendBook
from crosslogic.orchestration.driver import OrchestrationDriver
from crosslogic.orchestration.registry import ModelRegistry
from crosslogic.queueing.board.ports import QueueBoard
from crosslogic.settings.model import Settings
from crosslogic.settings.reload import Reloadable
from crosslogic.telemetry.metrics import Metrics
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from crosslogic.tenancy.strangers import Strangers
from crosslogic.wiring import foresight, translate
from crosslogic.wiring.agents import AgentEntrance
from crosslogic.wiring.allocator import new_allocator
from crosslogic.wiring.compass import new_compass, new_deployments, outcome_jobs_of
from crosslogic.wiring.coordination import Alone, Coordination
from crosslogic.wiring.invoicing import invoicing_jobs_of, new_invoicing
from crosslogic.wiring.money import money_jobs, new_money
from crosslogic.wiring.notices import Notices
from crosslogic.wiring.payments import licensed_site, new_payments
from crosslogic.wiring.process import Background
from crosslogic.wiring.usage import UsageRooms
from crosslogic.wiring.web_tokens import new_verifier


class Management:
    """One for each control process, or one inside the embedded cloud."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: AsyncEngine,
        background: Background,
        checks: Mapping[str, Check],
        coordination: Coordination | Alone,
        queues: QueueBoard,
        live: LiveBoard,
        metrics: Metrics,
    ) -> None:
        clock = SystemClock()
        self._settings = settings
        self._engine = engine
        self._background = background
        self._checks = checks
        self._fetch = HttpFetch()
        self._hash_key = translate.key_hasher_of(settings)
        self._tiers = settings.tiers
        self._capacity_planning = settings.capacity_planning
        self._anomaly_detection = settings.anomaly_detection
        self.tenancy = TenancyService(
            TenancySql(engine),
            self._hash_key,
            clock,
            configured_plans=lambda: translate.configured_plans(self._tiers),
            default_plan=translate.default_plan(settings),
        )
        limits = translate.layer_limits(settings.limits)
        self.spending_caps = SpendingCaps(SpendBook(engine), self.tenancy, lambda: limits, clock, Outbox(engine))
        self._configured_plans = lambda: translate.configured_plans(self._tiers)
        self._money = new_money(settings, engine, self._hash_key, clock, self._configured_plans)
        self._web_tokens = new_verifier(settings, background)
        # A laptop's own servers are on loopback; link-local addresses (cloud metadata) stay refused.
        registry = Registry(engine, clock)
        self.monitor = Monitor(registry, self._fetch, clock, translate.monitor_timing(settings))
        self._registry = registry
        self._models = ModelRegistry(engine, self._hash_key, clock)
        self._coordination = coordination
        self._allocator = new_allocator(settings, engine, self._hash_key)
        self._queues = queues
        self._live = live
        self._capacity = CapacityService(engine, self._hash_key, clock, translate.terms(settings.capacity))
        self._payments = new_payments(settings, engine, self._hash_key, clock, metrics)
        self._licensed = licensed_site(settings.payments, engine, clock)
        rooms = self._payments.rooms
        methods = None if rooms is None else rooms.service.methods
        self._invoicing = new_invoicing(settings, engine, self._hash_key, clock, methods)
        self._usage = UsageRooms(settings, engine, self._hash_key, clock, self._money)
        self._notices = Notices(settings, engine, self._hash_key, clock, self.tenancy, lambda: limits)
        self._planning = PlanningService(engine, clock)
        self._deployed = new_deployments(settings.compass, engine, self._hash_key, clock, self._planning, self._models)
        self._forecast = CapacityPlanner(
            engine,
            self._planning,
            clock,
            settings.finops.usd_per_gpu_hour,
            settings.capacity.tokens_per_s_per_gpu,
            lambda: PredictionModel(self._capacity_planning.prediction_model),
        )
        self._compass = new_compass(settings.compass, engine, self._hash_key, clock)
        self._catalog = CatalogStore(engine, clock)
        self._agents = AgentEntrance(settings, engine, registry, clock, self._hash_key)

    async def start(self, static_nodes: Sequence[StaticNode], jobs: Sequence[Job]) -> None:
        """Declare the nodes of the configuration, then watch them and run `jobs`."""
        await self.monitor.declare(static_nodes)
        await self._agents.start(self._background)
        self._background.start("node monitor", self.monitor.run())
        self._coordination.start(self._background)
        jobs = (*jobs, *self._jobs())
        runner = JobRunner(jobs, SystemClock(), random.Random(), leads=self._coordination.leads)
        self._background.start("jobs", runner.run())

    def _jobs(self) -> tuple[Job, ...]:
        """What every process with the management API does again and again, as far as it leads."""
        settings, engine, clock = self._settings, self._engine, SystemClock()
        driver = OrchestrationDriver(engine, self._models, self._registry, clock)
        health = NodeHealthJob(engine, self._registry, clock, translate.health_rules(settings))
        return (
            *capacity_jobs(self._allocator),
            *self._usage.jobs,
            *self._payments.jobs,
            *(() if self._licensed is None else licence_jobs(LicenceJob(self._licensed, Outbox(engine), clock))),
            *orchestration_jobs(driver),
            *health_jobs(health, settings.fleet.health.interval_s),
            *money_jobs(settings, engine, clock, self._money, self._configured_plans, self.tenancy),
            *invoicing_jobs_of(settings, self._invoicing, engine, self.tenancy, clock),
            *finops_jobs(FinopsJob(engine, clock, settings.finops.usd_per_gpu_hour)),
            *outcome_jobs_of(settings.compass, engine, clock, self._deployed),
            *data_health_jobs(DataHealthJob(self._catalog, clock)),
            *forecast_jobs(ForecastJob(self._forecast, Outbox(engine), clock, self._models, self._looking)),
            *anomaly_jobs(AnomaliesJob(engine, self._forecast, clock, self._watching)),
            *notice_jobs(self._notices.alerts, self._notices.dispatcher),
        )

    def reconfigure(self, changed: Reloadable) -> None:
        """Take what may change while this runs; jobs act on it in their next round."""
        self._capacity_planning = changed.capacity_planning
        self._anomaly_detection = changed.anomaly_detection

    def _looking(self) -> Looking | None:
        return foresight.looking(self._capacity_planning)

    def _watching(self) -> Watching | None:
        return foresight.watching(self._anomaly_detection)

    def app(self, admin_key: str, cache: KeptAnswers) -> FastAPI:
        services = ApiServices(
            tenancy=self.tenancy,
            usage=RollupSums(self._engine),
            usage_log=LedgerReader(self._engine),
            requests=RequestFinder(self._engine),
            costs=self._usage.costs,
            retention=self._usage.retention,
            admin_key_hash=self._hash_key(admin_key.encode()),
            hash_key=self._hash_key,
            checks=self._checks,
            nodes=self._registry,
            models=self._models,
            capacity=self._capacity,
            invoicing=self._invoicing,
            allocator=self._allocator,
            channels=self._notices.channels,
            finops=FinopsSql(self._engine),
            planning=self._planning,
            deployed=self._deployed,
            queues=self._queues,
            live=self._live,
            jwt=self._web_tokens,
            strangers=Strangers(self._settings.auth.bad_keys_per_minute),
            agents=self._agents.services,
            licensed=self._licensed,
            payments=self._payments.rooms,
            reconciler=self._payments.reconciler,
            money=self._money,
            cache=cache,
            compass=self._compass,
            forecast=self._forecast,
            anomalies=AnomaliesSql(self._engine),
            catalog=self._catalog,
            regions=translate.regions(self._settings.regions),
        )
        coordination = self._coordination
        return create_app(
            services, [cluster_router(coordination.processes, coordination.leader_id, self._registry.fleet)]
        )

    async def close(self) -> None:
        await self._agents.close()
        await self._payments.close()
        await self._notices.close()
        await self._usage.close()
        await self._compass.close()
        await self._deployed.outcomes.close()
        await self._coordination.close()
        await self._fetch.close()
