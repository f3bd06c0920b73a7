"""On which terms an org buys: its currency, prepaid or not, free tokens, overage of reserved capacity, commitment.

Invariant: an org keeps its currency once it has a charge or a credit. What else changes holds for what is rated later.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges import sql
from crosslogic.billing.charges.own_terms import Account, account
from crosslogic.billing.charges.rows import canonical
from crosslogic.billing.charges.terms import Commitment
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.pricing.service import check_currency
from crosslogic.pricing.versions import USD
from crosslogic.store.engine import reading
from crosslogic.store.tables import billing_accounts, charges, credit_grants, exchange_rates, orgs
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.writing import Writer

_MOST_TOKENS = 10**15


class AccountsService:
    """Raises InvalidRequest, NotFound and Conflict."""

    def __init__(self, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, actor: Actor = SYSTEM) -> None:
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._rows = Writer(engine, AuditTrail(actor, hash_key, clock))

    def acting_as(self, actor: Actor) -> "AccountsService":
        return AccountsService(self._engine, self._hash_key, self._clock, actor)

    async def of_org(self, org_id: OrgId) -> Account:
        async with reading(self._engine) as conn:
            return await account(conn, org_id)

    async def put(self, wanted: Account) -> Account:
        """Create or replace."""
        check_currency(wanted.currency)
        _check(wanted.free_tokens_per_month, wanted.commitment)
        org_id, now = wanted.org_id, self._clock.now()
        async with self._engine.begin() as conn:
            await sql.hold_org(conn, org_id)
            if await conn.scalar(select(orgs.c.id).where(orgs.c.id == org_id)) is None:
                raise NotFound("there is no such org")
            before = await account(conn, org_id)
            if wanted.currency != before.currency:
                await self._check_currency(conn, org_id, wanted.currency, now)
            await self._write(conn, before, wanted, now)
        return wanted

    async def _write(self, conn: AsyncConnection, before: Account, after: Account, now: datetime) -> None:
        values, t = _columns(after), billing_accounts
        known = await conn.scalar(select(t.c.org_id).where(t.c.org_id == after.org_id))
        if known is None:
            await conn.execute(insert(t).values(**values, updated_at=now))
        else:
            await conn.execute(update(t).where(t.c.org_id == after.org_id).values(**values, updated_at=now))
        told = {"id": after.org_id}
        await self._rows.announce(
            conn,
            "billing_account.change",
            "billing_account",
            before={**_columns(before), **told},
            after={**values, **told},
        )

    async def _check_currency(self, conn: AsyncConnection, org_id: str, currency: str, now: datetime) -> None:
        for table in (charges, credit_grants):
            if await conn.scalar(select(table.c.org_id).where(table.c.org_id == org_id).limit(1)) is not None:
                raise Conflict("this org has charges or credits in its currency already: it keeps it")
        if currency == USD:
            return
        rates = exchange_rates.c
        begun = select(rates.rate).where(rates.currency == currency, rates.effective_from <= now).limit(1)
        if await conn.scalar(begun) is None:
            raise InvalidRequest(f"there is no exchange rate for {currency} yet; set one first", param="currency")


def _columns(one: Account) -> dict[str, Any]:
    return {
        "org_id": one.org_id,
        "currency": one.currency,
        "prepaid": one.prepaid,
        "bill_overage": one.bill_overage,
        "free_tokens_per_month": one.free_tokens_per_month,
        "commitment": None if one.commitment is None else canonical(one.commitment),
    }


def _check(free_tokens: int | None, commitment: Commitment | None) -> None:
    if free_tokens is not None and not 0 <= free_tokens <= _MOST_TOKENS:
        raise InvalidRequest(f"free tokens are 0 to {_MOST_TOKENS:,}", param="free_tokens_per_month")
    if commitment is None:
        return
    if not 0 < commitment.amount_per_month <= 10**24:
        raise InvalidRequest("a commitment is to more than nothing", param="commitment")
    if commitment.ends_at is not None and commitment.ends_at <= commitment.starts_at:
        raise InvalidRequest("a commitment ends after it starts", param="commitment")
