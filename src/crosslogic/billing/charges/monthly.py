"""Writes the fees of a month that has ended, and what new orgs are given.

Invariant: a fee is written once for each org, kind, reference and month, a signup credit once for each org; so it does
not matter how often, or by how many processes at once, this is done.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges import sql
from crosslogic.billing.charges.fees import DueFee, Month, fees_of, month_with
from crosslogic.billing.charges.own_terms import ConfiguredPlans, account, current_plan
from crosslogic.billing.credits.model import CreditClass
from crosslogic.billing.credits.service import CreditsService
from crosslogic.capacity.rows import to_reservation
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import OrgId, new_id
from crosslogic.pricing.sql import PriceShelf
from crosslogic.store.engine import reading
from crosslogic.store.tables import capacity_reservations, charges, credit_grants, fees, orgs
from crosslogic.store.types import exact_sum

SETTLED_AFTER = timedelta(minutes=5)  # usage of the last moments of a month comes into the ledger within seconds
SIGNUP_REF = "signup"
_ORGS = 500

_log = logging.getLogger(__name__)


class MonthlyFees:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine, clock: Clock, configured_plans: ConfiguredPlans) -> None:
        self._engine = engine
        self._clock = clock
        self._configured_plans = configured_plans
        self._shelf = PriceShelf()
        self._done: str | None = None  # the month that this process has seen to

    async def round(self) -> int:
        """Write the fees of the month before this one, where they are not there; returns how many were written."""
        now = self._clock.now()
        this = month_with(now)
        month = month_with(this.starts_at - timedelta(days=1))
        if now < this.starts_at + SETTLED_AFTER or self._done == month.name:
            return 0
        written, after = 0, ""
        while page := await self._orgs(after, month):
            after = page[-1][0]
            for org_id, created_at in page:
                written += await self._write(org_id, created_at, month)
        self._done = month.name
        return written

    async def _orgs(self, after: str, month: Month) -> Sequence[tuple[str, datetime]]:
        query = select(orgs.c.id, orgs.c.created_at).where(
            orgs.c.id > after, orgs.c.billing_enabled.is_(True), orgs.c.created_at < month.ends_at
        )
        async with reading(self._engine) as conn:
            rows = await conn.execute(query.order_by(orgs.c.id).limit(_ORGS))
            return [(row.id, row.created_at) for row in rows]

    async def _write(self, org_id: str, created_at: datetime, month: Month) -> int:
        async with self._engine.begin() as conn:
            await sql.hold_org(conn, org_id)
            due, currency = await self._due(conn, org_id, created_at, month)
            query = select(fees.c.kind, fees.c.reference).where(fees.c.org_id == org_id, fees.c.month == month.name)
            known = {(row.kind, row.reference) for row in await conn.execute(query)}
            rows = [
                {
                    "id": new_id("fee"),
                    "org_id": org_id,
                    "kind": fee.kind.value,
                    "reference": fee.reference,
                    "month": month.name,
                    # the last moment of the month that it is for: there its invoice looks for it
                    "at": month.ends_at - timedelta(microseconds=1),
                    "currency": currency,
                    "amount": fee.amount,
                    "description": fee.description,
                }
                for fee in due
                if (fee.kind.value, fee.reference) not in known
            ]
            if rows:
                await conn.execute(insert(fees), rows)
            return len(rows)

    async def _due(
        self, conn: AsyncConnection, org_id: str, created_at: datetime, month: Month
    ) -> tuple[list[DueFee], str]:
        own = await account(conn, org_id)
        c = charges.c
        spent = select(exact_sum(c.amount)).where(c.org_id == org_id, c.at >= month.starts_at, c.at < month.ends_at)
        used = 0 if own.commitment is None else int(await conn.scalar(spent) or 0)
        reserved = capacity_reservations.c
        query = select(capacity_reservations).where(
            reserved.org_id == org_id, reserved.starts_at < month.ends_at, reserved.expires_at > month.starts_at
        )
        found = (await conn.execute(query.order_by(reserved.id))).mappings().all()
        history = await self._shelf.history(conn)
        due = fees_of(
            month,
            plan=await current_plan(conn, org_id, self._configured_plans),
            member_since=created_at,
            reservations=[to_reservation(row) for row in found],
            commitment=own.commitment,
            used=used,
            exchange_rate=history.rate(own.currency, month.ends_at),
        )
        return due, own.currency


class SignupCredits:
    """Gives each org that is made from now on what new ones get. Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine, credits: CreditsService, amount: int, clock: Clock) -> None:
        self._engine = engine
        self._credits = credits
        self._amount = amount
        self._since = clock.now() - timedelta(days=1)  # made while this was not running for a while

    async def round(self) -> int:
        """Returns how many orgs were given theirs."""
        if self._amount == 0:
            return 0
        given = credit_grants.c
        has = select(given.id).where(given.org_id == orgs.c.id, given.source_ref == SIGNUP_REF).exists()
        query = select(orgs.c.id).where(orgs.c.created_at >= self._since, orgs.c.billing_enabled.is_(True), ~has)
        async with reading(self._engine) as conn:
            found = (await conn.execute(query.limit(_ORGS))).scalars().all()
        for org_id in found:
            await self._credits.grant(
                OrgId(org_id), CreditClass.SIGNUP, self._amount, source_ref=SIGNUP_REF, reason="welcome"
            )
        return len(found)
