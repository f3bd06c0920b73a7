"""What invoices are made of, read from the tables of charges, fees and draws, and claimed for one of them.

Invariant: a charge or fee stands on one invoice: `claim` names the invoice on those that have none, in the transaction
that writes it, and the triggers of charges let that happen once.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, and_, case, exists, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.billing.charges.model import FeeKind
from crosslogic.billing.credits.model import CreditClass
from crosslogic.billing.invoices.document import Hours
from crosslogic.billing.invoices.draft import Bill, DrawSum, FeeSum, UsageSum
from crosslogic.store.tables import charges, credit_draws, credit_grants, fees
from crosslogic.store.types import exact_sum

CLAIMED_AT_ONCE = 10_000  # positions of the ledger, so that no statement runs into its time limit
_HOUR = timedelta(hours=1)


async def earliest(conn: AsyncConnection, org_id: str) -> datetime | None:
    """When the first of what stands on no invoice was used or fell due."""
    found = []
    for table in (charges, fees):
        query = select(func.min(table.c.at)).where(table.c.org_id == org_id, table.c.invoice_id.is_(None))
        found.append(await conn.scalar(query))
    return min((at for at in found if at is not None), default=None)


async def currencies(conn: AsyncConnection, org_id: str, before: datetime) -> list[str]:
    """Of what stands on no invoice."""
    found: set[str] = set()
    for table in (charges, fees):
        found.update(
            (await conn.execute(select(table.c.currency).distinct().where(_free(table, org_id, before)))).scalars()
        )
    return sorted(found)


async def claim(conn: AsyncConnection, org_id: str, currency: str, before: datetime, invoice_id: str) -> None:
    """Name the invoice on everything of before that time that stands on none."""
    t = charges.c
    here = and_(_free(charges, org_id, before), t.currency == currency)
    bounds = (await conn.execute(select(func.min(t.seq), func.max(t.seq)).where(here))).one()
    if bounds[0] is not None:
        for start in range(bounds[0], bounds[1] + 1, CLAIMED_AT_ONCE):
            within = and_(t.seq >= start, t.seq < start + CLAIMED_AT_ONCE)
            await conn.execute(update(charges).where(here, within).values(invoice_id=invoice_id))
    free = and_(_free(fees, org_id, before), fees.c.currency == currency)
    await conn.execute(update(fees).where(free).values(invoice_id=invoice_id))


async def bill_of(conn: AsyncConnection, org_id: str, invoice_id: str, currency: str) -> Bill:
    """What was claimed for an invoice."""
    return await _bill(conn, currency, charges.c.invoice_id == invoice_id, fees.c.invoice_id == invoice_id, org_id)


async def open_bill(conn: AsyncConnection, org_id: str, currency: str, before: datetime) -> Bill:
    """What would be claimed now."""
    of_currency = (charges.c.currency == currency, fees.c.currency == currency)
    return await _bill(
        conn,
        currency,
        and_(_free(charges, org_id, before), of_currency[0]),
        and_(_free(fees, org_id, before), of_currency[1]),
        org_id,
    )


async def open_amount(conn: AsyncConnection, org_id: str, currency: str, before: datetime) -> int:
    """What of it is to be paid, before credits and taxes."""
    here = and_(_free(charges, org_id, before), charges.c.currency == currency)
    return int(await conn.scalar(select(exact_sum(charges.c.amount)).where(here)) or 0)


async def hours_of(conn: AsyncConnection, org_id: str, invoice_id: str, start: datetime, end: datetime) -> Hours:
    here = and_(charges.c.org_id == org_id, charges.c.invoice_id == invoice_id)
    return await _hours(conn, here, start, end)


async def open_hours(conn: AsyncConnection, org_id: str, currency: str, start: datetime, end: datetime) -> Hours:
    here = and_(_free(charges, org_id, end), charges.c.currency == currency)
    return await _hours(conn, here, start, end)


def _free(table: Any, org_id: str, before: datetime) -> ColumnElement[bool]:
    return and_(table.c.org_id == org_id, table.c.invoice_id.is_(None), table.c.at < before)


async def anything_free(conn: AsyncConnection, org_id: str, before: datetime) -> bool:
    found = or_(exists().where(_free(charges, org_id, before)), exists().where(_free(fees, org_id, before)))
    return bool(await conn.scalar(select(found)))


async def _bill(
    conn: AsyncConnection, currency: str, charged: ColumnElement[bool], due: ColumnElement[bool], org_id: str
) -> Bill:
    t, g = charges.c, credit_grants.c
    sums = [func.sum(t[name]) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")]
    money = [exact_sum(t[name]) for name in ("list_amount", "discount_amount", "amount")]
    requests = func.sum(case((t.n == 0, 1), else_=0).cast(Integer))
    query = select(t.model, t.region, requests, *sums, *money).where(t.org_id == org_id, charged)
    usage = [
        UsageSum(row[0], row[1], *(int(value or 0) for value in row[2:]))
        for row in await conn.execute(query.group_by(t.model, t.region))
    ]
    owed = select(fees.c.id, fees.c.kind, fees.c.reference, fees.c.month, fees.c.description, fees.c.amount)
    found = [
        FeeSum(row[0], FeeKind(row[1]), *row[2:])
        for row in await conn.execute(owed.where(fees.c.org_id == org_id, due).order_by(fees.c.id))
    ]
    drawn = (
        select(g.id, g.credit_class, g.reason, exact_sum(credit_draws.c.amount))
        .join(credit_draws, credit_draws.c.grant_id == g.id)
        .join(charges, and_(t.org_id == credit_draws.c.org_id, t.seq == credit_draws.c.seq))
        .where(t.org_id == org_id, charged)
        .group_by(g.id, g.credit_class, g.reason)
    )
    draws = [
        DrawSum(row[0], CreditClass(row[1]), row[2], int(row[3])) for row in await conn.execute(drawn) if int(row[3])
    ]
    return Bill(currency, tuple(usage), tuple(found), tuple(draws))


async def _hours(conn: AsyncConnection, here: ColumnElement[bool], start: datetime, end: datetime) -> Hours:
    """By whole hours of UTC, the first of them perhaps begun before `start`."""
    t = charges.c
    if conn.dialect.name == "postgresql":
        hour: ColumnElement[str] = func.to_char(func.timezone("UTC", t.at), text("'YYYY-MM-DD HH24'"))
    else:
        hour = func.strftime("%Y-%m-%d %H", t.at)
    tokens = func.sum(t.prompt_tokens + t.completion_tokens)
    query = select(hour.label("hour"), exact_sum(t.amount), tokens).where(here).group_by(text("hour"))
    first = start.replace(minute=0, second=0, microsecond=0)
    count = max(0, -((first - end) // _HOUR))
    amounts, counted, earlier = [0] * count, [0] * count, 0
    for label, amount, used in await conn.execute(query):
        at = datetime.strptime(f"{label} +0000", "%Y-%m-%d %H %z")
        n = (at - first) // _HOUR
        if 0 <= n < count:
            amounts[n], counted[n] = int(amount), int(used)
        else:
            earlier += int(amount)
    return Hours(first, tuple(amounts), tuple(counted), earlier)
