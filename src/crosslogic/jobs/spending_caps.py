"""Suspends orgs and environments whose month's spending cap was met, where they have chosen that (`at_cap: suspend`).

Invariants: the system suspends, and takes up nobody but who pays ahead and has paid (`prepaid.py`); and one request
that is too large for what is left suspends nobody: a cap counts as met when it refused a request and at least half of
it is spent.
"""

import logging
from collections.abc import Callable

from crosslogic.insight.alerts.rules import suspension_notice
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import NotFound
from crosslogic.limits.model import Layer
from crosslogic.metering.spend import CapHit, SpendBook, month_of
from crosslogic.tenancy.audit import SYSTEM
from crosslogic.tenancy.directory import LayerLimits
from crosslogic.tenancy.model import AtCap, Environment, Org, Status, SuspendedFor
from crosslogic.tenancy.service import TenancyService

_log = logging.getLogger(__name__)


class SpendingCaps:
    """Run as a leased job: of several control processes one acts."""

    def __init__(
        self,
        spend: SpendBook,
        tenancy: TenancyService,
        limits: Callable[[], LayerLimits],
        clock: Clock,
        outbox: Outbox,
    ) -> None:
        self._spend = spend
        self._tenancy = tenancy.acting_as(SYSTEM)
        self._limits = limits
        self._clock = clock
        self._outbox = outbox

    async def suspend(self) -> int:
        """See to the caps that gateways say were met; returns how many tenants were suspended."""
        month = month_of(self._clock.now())
        hits = await self._spend.hits(month)
        suspended = 0
        for hit in hits:
            try:
                suspended += await self._see_to(hit, month)
            except NotFound:
                continue
        if hits:
            await self._spend.forget(hits)
        return suspended

    async def _see_to(self, hit: CapHit, month: str) -> bool:
        env: Environment | None = None
        if hit.layer == Layer.ENV:
            env = await self._tenancy.environment_of_id(hit.entity_id)
        org = await self._tenancy.org(hit.entity_id if env is None else env.org_id)
        plan = (await self._tenancy.plans.plan(org.billing_plan)).plan
        tenant: Org | Environment = org if env is None else env
        if tenant.at_cap is not AtCap.SUSPEND or tenant.status is not Status.ACTIVE:
            return False
        configured = self._limits()
        ceilings = configured.of_org(org, plan) if env is None else configured.of_env(env, org, plan)
        cap_pusd = ceilings.spend_per_month_pusd
        if cap_pusd is None or 2 * await self._spent_pusd(org, env, month) < cap_pusd:
            return False
        # Told first: a kill in between has it told of what the next run does.
        name = org.name if env is None else f"{org.name}/{env.name}"
        await self._outbox.raise_all([suspension_notice(org.id, tenant.id, name, month, self._clock.now())])
        if env is None:
            cap = SuspendedFor.SPENDING_CAP
            await self._tenancy.change_org(org.id, status=Status.SUSPENDED, suspended_for=cap)
        else:
            await self._tenancy.change_environment(org.id, env.id, status=Status.SUSPENDED)
        _log.warning("%s is suspended: it has met its spending cap of the month", tenant.id)
        return True

    async def _spent_pusd(self, org: Org, env: Environment | None, month: str) -> int:
        return sum(
            one.cost_pusd for one in await self._spend.of_orgs(month, [org.id]) if env is None or one.env_id == env.id
        )
