"""Builds the management side: API, node registry and monitor, periodic jobs."""

import random
from collections.abc import Mapping, Sequence

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.app import create_app
from crosslogic.api.services import ApiServices
from crosslogic.fleet.fetch import HttpFetch
from crosslogic.fleet.monitor import Monitor, StaticNode
from crosslogic.fleet.registry import Registry
from crosslogic.gateway.operations import Check
from crosslogic.jobs.runner import JobRunner
from crosslogic.jobs.table import Job
from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.ledger import Ledger
from crosslogic.settings.model import Settings
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from crosslogic.wiring import translate
from crosslogic.wiring.process import Background
from crosslogic.wiring.web_tokens import new_verifier


class Management:
    """One for each control process, or one inside the embedded cloud."""

    def __init__(
        self, settings: Settings, *, engine: AsyncEngine, background: Background, checks: Mapping[str, Check]
    ) -> None:
        clock = SystemClock()
        self._settings = settings
        self._engine = engine
        self._background = background
        self._checks = checks
        self._fetch = HttpFetch()
        self._hash_key = translate.key_hasher_of(settings)
        self._tiers = settings.tiers
        self.tenancy = TenancyService(
            TenancySql(engine),
            self._hash_key,
            clock,
            configured_plans=lambda: translate.configured_plans(self._tiers),
            default_plan=translate.default_plan(settings),
        )
        self._web_tokens = new_verifier(settings, background)
        # A laptop's own servers are on loopback; link-local addresses (cloud metadata) stay refused.
        registry = Registry(engine, clock)
        self.monitor = Monitor(registry, self._fetch, clock, translate.monitor_timing(settings))
        self._registry = registry

    async def start(self, static_nodes: Sequence[StaticNode], jobs: Sequence[Job]) -> None:
        """Declare the nodes of the configuration, then watch them and run `jobs`."""
        await self.monitor.declare(static_nodes)
        self._background.start("node monitor", self.monitor.run())
        self._background.start("jobs", JobRunner(jobs, SystemClock(), random.Random()).run())

    def app(self, admin_key: str) -> FastAPI:
        services = ApiServices(
            tenancy=self.tenancy,
            usage=Ledger(self._engine),
            admin_key_hash=self._hash_key(admin_key.encode()),
            hash_key=self._hash_key,
            checks=self._checks,
            nodes=self._registry,
            jwt=self._web_tokens,
        )
        return create_app(services)

    async def close(self) -> None:
        await self._fetch.close()
