"""Builds what stands behind usage: who answers for costs, how long rows are kept, and the jobs of both."""

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import MoneyServices
from crosslogic.billing.retention.service import RetentionService
from crosslogic.jobs.table import Job, copy_jobs, retention_jobs, rollup_jobs
from crosslogic.kernel.clock import Clock
from crosslogic.metering.costs.clickhouse import ClickHouseCostTracker, HttpClickHouse
from crosslogic.metering.costs.copying import UsageCopies
from crosslogic.metering.costs.ports import CostTracker
from crosslogic.metering.costs.sql import SqlCostTracker
from crosslogic.metering.partitions import Partitions
from crosslogic.metering.rollup import Rollups
from crosslogic.pricing.book import PriceBook
from crosslogic.settings.model import Settings
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.wiring import translate


class UsageRooms:
    """Of the management side."""

    def __init__(
        self, settings: Settings, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, money: MoneyServices
    ) -> None:
        chosen = settings.cost_tracking
        copied = chosen.storage_backend == "clickhouse"
        book = PriceBook(translate.price_list(settings.prices, settings.regions))
        self.costs: CostTracker
        self._clickhouse: HttpClickHouse | None = None
        copying: tuple[Job, ...] = ()
        if copied:
            there = chosen.clickhouse
            password = there.password.get_secret_value() if there.password is not None else ""
            self._clickhouse = HttpClickHouse(there.url, database=there.database, user=there.user, password=password)
            tracker = ClickHouseCostTracker(self._clickhouse, lambda: book, clock.now)
            self.costs = tracker
            copying = copy_jobs(UsageCopies(engine, tracker), chosen.aggregation_interval_s)
        else:
            self.costs = SqlCostTracker(engine, lambda: book)
        self.retention = RetentionService(
            engine,
            clock,
            AuditTrail(digest=hash_key, clock=clock),
            money.rating,
            months=chosen.retention_months,
            billed=settings.enable_billing,
            copied=copied,
        )
        self.jobs = (
            *rollup_jobs(Rollups(engine), Partitions(engine, clock)),
            *copying,
            *retention_jobs(self.retention),
        )

    async def close(self) -> None:
        if self._clickhouse is not None:
            await self._clickhouse.close()
