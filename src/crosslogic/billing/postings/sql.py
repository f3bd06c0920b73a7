"""Postings in the database: written in the transaction of what they tell of, each once, never changed.

Invariant: whoever posts has taken the lock of what is posted of (the invoice, the org), so the same `ref` is not
posted by two at once; the database checks at the commit that each transaction sums to zero.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import exists, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.postings.model import Account, Posting, Transaction
from crosslogic.store.engine import reading
from crosslogic.store.tables import posting_transactions as transactions
from crosslogic.store.tables import postings as table
from crosslogic.store.types import exact_sum


async def post(
    conn: AsyncConnection,
    ref: str,
    kind: str,
    postings: tuple[Posting, ...],
    *,
    org_id: str,
    currency: str,
    at: datetime,
) -> bool:
    """False where it is there already, or nothing moves."""
    if not postings or await was_posted(conn, ref):
        return False
    rows = [
        {"transaction_ref": ref, "n": n, "account": each.account.value, "amount": each.amount}
        for n, each in enumerate(postings, 1)
    ]
    await conn.execute(insert(table), rows)
    # Last: the database then looks whether its postings sum to zero, and takes no further ones.
    values = {"ref": ref, "org_id": org_id, "currency": currency.upper(), "kind": kind, "at": at}
    await conn.execute(insert(transactions).values(values))
    return True


async def was_posted(conn: AsyncConnection, ref: str) -> bool:
    return bool(await conn.scalar(select(exists().where(transactions.c.ref == ref))))


async def balances(engine: AsyncEngine, org_id: str | None = None) -> dict[tuple[str, str], dict[Account, int]]:
    """By org and currency, then by account."""
    t = transactions.c
    query = (
        select(t.org_id, t.currency, table.c.account, exact_sum(table.c.amount))
        .join(transactions, t.ref == table.c.transaction_ref)
        .group_by(t.org_id, t.currency, table.c.account)
        .order_by(t.org_id, t.currency, table.c.account)
    )
    if org_id is not None:
        query = query.where(t.org_id == org_id)
    found: dict[tuple[str, str], dict[Account, int]] = {}
    async with reading(engine) as conn:
        for org, currency, account, amount in await conn.execute(query):
            found.setdefault((org, currency), {})[Account(account)] = int(amount)
    return found


async def trial_balance(engine: AsyncEngine, org_id: str | None = None) -> dict[str, dict[Account, int]]:
    """By currency, then by account; of an org, or of all together."""
    found: dict[str, dict[Account, int]] = {}
    for (_, currency), accounts in (await balances(engine, org_id)).items():
        mine = found.setdefault(currency, {})
        for account, amount in accounts.items():
            mine[account] = mine.get(account, 0) + amount
    return found


async def listed(
    engine: AsyncEngine, only: Mapping[str, str | None], after: tuple[datetime, str] | None, limit: int
) -> list[Transaction]:
    """Newest first; `after` says where the page before ended."""
    t = transactions.c
    query = select(transactions).order_by(t.at.desc(), t.ref.desc()).limit(limit)
    for name, value in only.items():
        if value is not None:
            query = query.where(t[name] == value)
    if after is not None:
        then, ref = after
        query = query.where((t.at < then) | ((t.at == then) & (t.ref < ref)))
    async with reading(engine) as conn:
        rows = (await conn.execute(query)).mappings().all()
        refs = [row["ref"] for row in rows]
        own = select(table).where(table.c.transaction_ref.in_(refs)).order_by(table.c.transaction_ref, table.c.n)
        parts: dict[str, list[Posting]] = {}
        for row in (await conn.execute(own)).mappings():
            parts.setdefault(row["transaction_ref"], []).append(Posting(Account(row["account"]), row["amount"]))
    return [Transaction(**row, postings=tuple(parts.get(row["ref"], ()))) for row in rows]
