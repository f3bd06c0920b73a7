"""The figures that alerts are decided from, read from roll-ups, credits and reservations.

Each look costs a few grouped queries, however many requests there were. Raises `store.engine.DATABASE_ERRORS`.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.alerts.model import DailySpend, ExpiringCredit, FailedPayment, ReservedHour
from crosslogic.insight.alerts.rules import CREDIT_WITHIN, SPIKE_LEAST_PUSD
from crosslogic.store.engine import reading
from crosslogic.store.tables import (
    capacity_reservations,
    credit_draws,
    credit_grants,
    payments,
    usage_daily,
    usage_hourly,
)
from crosslogic.store.types import exact_sum

SPIKE_OVER_DAYS = 30
PAYMENTS_OF = timedelta(days=3)  # a control that was away for longer does not tell of old failures
_AT_ONCE = 500


class Figures:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def daily_spends(self, now: datetime) -> list[DailySpend]:
        """Of the orgs whose day costs enough to be looked at."""
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        t = usage_daily.c
        sums = select(t.org_id, exact_sum(t.cost_pusd)).where(t.at == today).group_by(t.org_id)
        async with reading(self._engine) as conn:
            spent = {org_id: int(cost) for org_id, cost in await conn.execute(sums) if int(cost) >= SPIKE_LEAST_PUSD}
        before: dict[str, list[int]] = defaultdict(list)
        for org_ids in _some(sorted(spent)):
            days = (
                select(t.org_id, exact_sum(t.cost_pusd))
                .where(t.org_id.in_(org_ids), t.at < today, t.at >= today - timedelta(days=SPIKE_OVER_DAYS))
                .group_by(t.org_id, t.at)
            )
            async with reading(self._engine) as conn:
                for org_id, cost in await conn.execute(days):
                    before[org_id].append(int(cost))
        return [DailySpend(org_id, _day(today), cost, tuple(before[org_id])) for org_id, cost in spent.items()]

    async def expiring_credits(self, now: datetime) -> list[ExpiringCredit]:
        grants = credit_grants.c
        drawn = (
            select(credit_draws.c.grant_id, exact_sum(credit_draws.c.amount).label("amount"))
            .group_by(credit_draws.c.grant_id)
            .subquery()
        )
        query = (
            select(grants.org_id, grants.id, grants.currency, grants.amount, drawn.c.amount, grants.expires_at)
            .join(drawn, drawn.c.grant_id == grants.id, isouter=True)
            .where(
                grants.voided_at.is_(None),
                grants.starts_at <= now,
                grants.expires_at > now,
                grants.expires_at <= now + max(CREDIT_WITHIN),
            )
            .order_by(grants.id)
        )
        async with reading(self._engine) as conn:
            return [
                ExpiringCredit(org_id, grant_id, currency, amount - int(drawn_amount or 0), expires_at)
                for org_id, grant_id, currency, amount, drawn_amount, expires_at in await conn.execute(query)
            ]

    async def reserved_hours(self, hour: datetime) -> list[ReservedHour]:
        """What orgs used in this hour of what they had reserved in all of it."""
        r, t = capacity_reservations.c, usage_hourly.c
        reserved = (
            select(r.org_id, r.model, r.region, func.sum(r.units))
            .where(
                r.starts_at <= hour,
                r.expires_at >= hour + timedelta(hours=1),
                r.cancelled_at.is_(None),
            )
            .group_by(r.org_id, r.model, r.region)
        )
        async with reading(self._engine) as conn:
            promised = (await conn.execute(reserved)).all()
        used: dict[tuple[str, str, str | None], int] = defaultdict(int)
        for org_ids in _some(sorted({row[0] for row in promised})):
            sums = (
                select(t.org_id, t.model, t.region, func.sum(t.total_tokens))
                .where(t.org_id.in_(org_ids), t.at == hour)
                .group_by(t.org_id, t.model, t.region)
            )
            async with reading(self._engine) as conn:
                for org_id, model, region, tokens in await conn.execute(sums):
                    used[org_id, model, region] += int(tokens)
                    used[org_id, model, None] += int(tokens)
        return [
            ReservedHour(org_id, model, region, hour, int(units), used[org_id, model, region])
            for org_id, model, region, units in promised
        ]

    async def failed_payments(self, now: datetime) -> list[FailedPayment]:
        t = payments.c
        query = (
            select(t.org_id, t.id, t.invoice_id, t.amount_minor, t.currency, t.failure_code)
            .where(t.status == "failed", t.resolved_at > now - PAYMENTS_OF)
            .order_by(t.id)
        )
        async with reading(self._engine) as conn:
            return [FailedPayment(*row) for row in await conn.execute(query)]


def _day(instant: datetime) -> date:
    return instant.date()


def _some(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]
