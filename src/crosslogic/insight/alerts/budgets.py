"""The month's spending caps of whoever has spent anything, as the tenants' ceilings say them."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.alerts.model import Budget
from crosslogic.metering.spend import month_of
from crosslogic.store.engine import reading
from crosslogic.store.tables import environments, monthly_spend, orgs
from crosslogic.store.types import exact_sum
from crosslogic.tenancy import rows
from crosslogic.tenancy.directory import LayerLimits
from crosslogic.tenancy.model import Environment, Org, Plan
from crosslogic.tenancy.service import TenancyService

_AT_ONCE = 500


class Budgets:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine, tenancy: TenancyService, limits: Callable[[], LayerLimits]) -> None:
        self._engine = engine
        self._tenancy = tenancy
        self._limits = limits

    async def of_month(self, now: datetime) -> list[Budget]:
        """The caps of all orgs and environments that spent something this month."""
        month = month_of(now)
        found: list[Budget] = []
        plans = {known.plan.id: known.plan for known in await self._tenancy.plans.plans()}
        spent = await self._spent(month)
        org_ids = sorted(spent)
        for start in range(0, len(org_ids), _AT_ONCE):
            some = org_ids[start : start + _AT_ONCE]
            for org, envs in await self._tenants(some):
                plan = plans.get(org.billing_plan)
                if plan is not None:
                    found += self._of_org(org, envs, plan, spent[org.id], month)
        return found

    def _of_org(
        self, org: Org, envs: Sequence[Environment], plan: Plan, spent: dict[str, int], month: str
    ) -> Iterator[Budget]:
        configured = self._limits()
        cap = configured.of_org(org, plan).spend_per_month_pusd
        if cap is not None:
            yield Budget(org.id, None, org.name, month, cap, sum(spent.values()))
        for env in envs:
            cap = configured.of_env(env, org, plan).spend_per_month_pusd
            if cap is not None and env.id in spent:
                yield Budget(org.id, env.id, f"{org.name}/{env.name}", month, cap, spent[env.id])

    async def _spent(self, month: str) -> dict[str, dict[str, int]]:
        """Pico-USD by org and environment."""
        t = monthly_spend.c
        query = select(t.org_id, t.env_id, exact_sum(t.cost_pusd)).where(t.month == month).group_by(t.org_id, t.env_id)
        spent: dict[str, dict[str, int]] = defaultdict(dict)
        async with reading(self._engine) as conn:
            for org_id, env_id, cost in await conn.execute(query):
                spent[org_id][env_id] = int(cost)
        return spent

    async def _tenants(self, org_ids: Sequence[str]) -> list[tuple[Org, list[Environment]]]:
        envs: dict[str, list[Environment]] = defaultdict(list)
        async with reading(self._engine) as conn:
            for row in (await conn.execute(select(environments).where(environments.c.org_id.in_(org_ids)))).mappings():
                envs[row["org_id"]].append(rows.to_environment(row))
            found = (await conn.execute(select(orgs).where(orgs.c.id.in_(org_ids)))).mappings().all()
        return [(rows.to_org(row), envs[row["id"]]) for row in found]
