"""Bought credits whose money goes back: what is left of them is taken back, and given again when the money stays.

Invariants: no more is taken than is left, so a credit never falls below zero and no charge changes; grants are never
changed: what is taken back is voided, and what is to stay of it is granted anew. Each `ref` counts once.
"""

from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.billing.charges import sql
from crosslogic.billing.credits.draw import in_order, standing
from crosslogic.billing.credits.model import CreditClass
from crosslogic.billing.credits.rows import to_grant
from crosslogic.billing.credits.service import CreditsService
from crosslogic.kernel.ids import OrgId
from crosslogic.store.tables import credit_grants, credit_returns
from crosslogic.store.types import exact_sum

ANEW = _REST, _AGAIN = ("rest:", "again:")  # what sources of grants begin with that are in place of others


async def take_back(
    conn: AsyncConnection,
    credits: CreditsService,
    org_id: OrgId,
    source_ref: str,
    amount: int,
    *,
    owner_ref: str,
    ref: str,
    now: datetime,
) -> int:
    """Take back so much of the credits that were granted for `source_ref`, or what is left; returns how much it was."""
    known = await _known(conn, org_id, ref)
    if known is not None:
        return known
    t = credit_returns.c
    earlier = (await conn.execute(select(t.ref).where(t.source_ref == source_ref))).scalars().all()
    refs = [source_ref, *(prefix + each for each in earlier for prefix in (_REST, _AGAIN))]
    g = credit_grants.c
    query = select(credit_grants).where(g.org_id == org_id, g.source_ref.in_(refs), g.voided_at.is_(None))
    found = [to_grant(row) for row in (await conn.execute(query)).mappings()]
    _, state = await sql.cursor(conn, org_id)
    left = amount
    for grant in in_order(found):
        remaining = standing(grant, state.drawn.get(grant.id, 0), now).remaining
        part = min(left, remaining)
        if part <= 0:
            continue
        left -= part
        await credits.void_in(conn, grant, returned=True)
        if remaining > part:  # of the last one alone
            await credits.grant_in(
                conn,
                org_id,
                grant.credit_class,
                remaining - part,
                priority=grant.priority,
                starts_at=grant.starts_at,
                expires_at=grant.expires_at,
                source_ref=_REST + ref,
                reason=grant.reason,
                anew=True,
            )
    await _write(conn, org_id, source_ref, amount - left, owner_ref, ref, now)
    return amount - left


async def give_again(
    conn: AsyncConnection,
    credits: CreditsService,
    org_id: OrgId,
    amount: int,
    *,
    owner_ref: str,
    ref: str,
    now: datetime,
) -> int:
    """Give again so much of what was taken for `owner_ref`, at most all of it; returns how much it was."""
    known = await _known(conn, org_id, ref)
    if known is not None:
        return -known
    t = credit_returns.c
    source_ref = await conn.scalar(select(t.source_ref).where(t.owner_ref == owner_ref).limit(1))
    if source_ref is None:
        return 0
    given = min(amount, await outstanding(conn, owner_ref))
    if given > 0:
        await credits.grant_in(
            conn, org_id, CreditClass.PAID, given, source_ref=_AGAIN + ref, reason="bought, given again", anew=True
        )
    await _write(conn, org_id, source_ref, -given, owner_ref, ref, now)
    return given


async def _known(conn: AsyncConnection, org_id: OrgId, ref: str) -> int | None:
    """What was written under `ref` already. The org is held from here on, so that nobody writes it meanwhile."""
    await sql.hold_org(conn, org_id)
    amount = await conn.scalar(select(credit_returns.c.amount).where(credit_returns.c.ref == ref))
    return None if amount is None else int(amount)


async def outstanding(conn: AsyncConnection, owner_ref: str) -> int:
    """What is taken for `owner_ref` and was not given again."""
    query = select(exact_sum(credit_returns.c.amount)).where(credit_returns.c.owner_ref == owner_ref)
    return int(await conn.scalar(query) or 0)


async def _write(
    conn: AsyncConnection, org_id: OrgId, source_ref: str, amount: int, owner_ref: str, ref: str, now: datetime
) -> None:
    values = {"ref": ref, "org_id": org_id, "source_ref": source_ref, "owner_ref": owner_ref}
    await conn.execute(insert(credit_returns).values(**values, amount=amount, at=now))
