"""Keeps the spending cap of orgs that pay ahead at what their credits still carry: gateways refuse them at zero.

The cap of the month is what the ledger says was spent in it, and what credits are left beside that. As long as usage
costs what the gateways count, it does not move while credits are used up; top-ups and a new month move it.

An org that was suspended at this cap (`at_cap: suspend`) is taken up again once there are credits.

Invariant: nothing of it is on the request path: gateways hold the most that a request may cost against the cap, as they
do for any other (`limits/`), and learn of a new cap by the change feed.
"""

from datetime import datetime
from decimal import ROUND_FLOOR, Decimal

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges import sql
from crosslogic.billing.charges.state import month_of
from crosslogic.billing.credits.draw import standing
from crosslogic.kernel.clock import Clock
from crosslogic.pricing.sql import PriceShelf
from crosslogic.store.engine import reading
from crosslogic.store.tables import billing_accounts, monthly_spend, orgs, usage_records
from crosslogic.store.types import exact_sum
from crosslogic.tenancy.audit import SYSTEM
from crosslogic.tenancy.model import Status, SuspendedFor
from crosslogic.tenancy.service import TenancyService


class PrepaidCaps:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine, tenancy: TenancyService, clock: Clock) -> None:
        self._engine = engine
        self._tenancy = tenancy.acting_as(SYSTEM)
        self._clock = clock
        self._shelf = PriceShelf()

    async def round(self) -> int:
        """Returns how many caps were moved."""
        query = (
            select(billing_accounts.c.org_id, billing_accounts.c.currency)
            .join(orgs, orgs.c.id == billing_accounts.c.org_id)
            .where(billing_accounts.c.prepaid.is_(True))
            .where(or_(orgs.c.status == Status.ACTIVE.value, orgs.c.suspended_for == SuspendedFor.SPENDING_CAP.value))
        )
        async with reading(self._engine) as conn:
            prepaid = (await conn.execute(query)).all()
        moved = 0
        for org_id, currency in prepaid:
            async with reading(self._engine) as conn:
                spent_pusd, left_pusd = await self._standing(conn, org_id, currency, self._clock.now())
            cap_pusd = spent_pusd + left_pusd
            org = await self._tenancy.org(org_id)
            if org.limits.spend_per_month_pusd != cap_pusd:
                limits = msgspec.structs.replace(org.limits, spend_per_month_pusd=cap_pusd)
                await self._tenancy.change_org(org_id, limits=limits)
                moved += 1
            if left_pusd > 0 and org.suspended_for is SuspendedFor.SPENDING_CAP:
                await self._tenancy.take_up(org.id, SuspendedFor.SPENDING_CAP)
        return moved

    async def _standing(self, conn: AsyncConnection, org_id: str, currency: str, now: datetime) -> tuple[int, int]:
        """What was spent in the month, and what credits still carry."""
        reached, state = await sql.cursor(conn, org_id)
        left = sum(
            standing(each, state.drawn.get(each.id, 0), now).remaining
            for each in await sql.grants(conn, org_id)
            if each.starts_at <= now
        )
        rate = (await self._shelf.history(conn)).rate(currency, now)
        left_pusd = int((Decimal(left) / rate).to_integral_value(ROUND_FLOOR))
        spend, used = monthly_spend.c, usage_records.c
        spent = select(exact_sum(spend.cost_pusd)).where(spend.org_id == org_id, spend.month == month_of(now))
        unrated = select(exact_sum(used.cost_pusd)).where(used.org_id == org_id, used.seq > reached)
        spent_pusd, unrated_pusd = int(await conn.scalar(spent) or 0), int(await conn.scalar(unrated) or 0)
        return spent_pusd, max(left_pusd - unrated_pusd, 0)
