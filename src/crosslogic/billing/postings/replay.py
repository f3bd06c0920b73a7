"""What the accounts should hold, computed from invoices, payments, credit notes and grants. Reads only.

Of cash and losses nothing stands elsewhere to be compared with; as all accounts sum to zero, an error in one of them
shows in another.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import and_, case, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.credits.model import CreditClass
from crosslogic.billing.credits.returns import outstanding
from crosslogic.billing.invoices.currency import pico_per_minor
from crosslogic.billing.postings.model import Account
from crosslogic.store.engine import reading
from crosslogic.store.tables import chargebacks, credit_draws, credit_grants, credit_notes, invoices
from crosslogic.store.types import exact_sum

REPLAYED = (Account.RECEIVABLE, Account.TAX, Account.ROUNDING, Account.CREDITS, Account.DISPUTES)
Sums = Mapping[str, Mapping[str, int]]


async def expected(engine: AsyncEngine, org_id: str) -> dict[str, dict[Account, int]]:
    """By currency, then by account, of those that are `REPLAYED`; in 1e-12 of the currency."""
    found: dict[str, dict[Account, int]] = {}

    def add(currency: str, account: Account, amount: int) -> None:
        mine = found.setdefault(currency.upper(), dict.fromkeys(REPLAYED, 0))
        mine[account] += amount

    async with reading(engine) as conn:
        for row in await conn.execute(_invoices(org_id)):
            unit = pico_per_minor(row.currency)
            add(row.currency, Account.RECEIVABLE, (int(row.billed) - int(row.paid) - int(row.credited)) * unit)
            add(row.currency, Account.TAX, -int(row.tax) * unit)
            add(row.currency, Account.CREDITS, int(row.prepaid) * unit)
            add(row.currency, Account.ROUNDING, -int(row.rounding or 0))
        note = credit_notes.c
        taxes = select(note.currency, func.sum(note.tax_minor)).where(note.org_id == org_id).group_by(note.currency)
        for currency, tax in await conn.execute(taxes):
            add(currency, Account.TAX, int(tax) * pico_per_minor(currency))
        for currency, amount in await conn.execute(_bought(org_id)):
            add(currency, Account.CREDITS, -int(amount or 0))
        for currency, drawn in await conn.execute(_drawn_of_void(org_id)):
            add(currency, Account.CREDITS, -int(drawn or 0))
        cases = (await conn.execute(select(chargebacks).where(chargebacks.c.org_id == org_id))).mappings().all()
        for case_ in cases:
            unit = pico_per_minor(case_["currency"].upper())
            withdrawn, lost = case_["withdrawn_minor"] * unit, case_["lost_minor"] * unit
            if case_["invoice_id"] is None:  # what was taken back of its credits sets off against it
                taken = await outstanding(conn, case_["id"])
                withdrawn, lost = withdrawn - taken, max(0, lost - taken)
            add(case_["currency"], Account.DISPUTES, withdrawn - lost)
    return found


def _invoices(org_id: str) -> Any:
    """A void invoice owes nothing; what is paid for one all the same is owed to the org."""
    i = invoices.c
    stands = and_(i.status != "void", i.status != "draft")

    def sum_of(column: Any, name: str) -> Any:
        return func.coalesce(func.sum(case((stands, column), else_=0)), 0).label(name)

    rounding = exact_sum(case((stands, i.rounding_amount), else_=None)).label("rounding")
    return (
        select(
            i.currency,
            sum_of(i.total_minor - i.prepaid_minor, "billed"),
            sum_of(i.tax_minor, "tax"),
            sum_of(i.prepaid_minor, "prepaid"),
            func.sum(i.paid_minor).label("paid"),
            func.sum(i.credited_minor).label("credited"),
            rounding,
        )
        .where(i.org_id == org_id, i.status != "draft")
        .group_by(i.currency)
    )


def _bought(org_id: str) -> Any:
    g = credit_grants.c
    mine = and_(g.org_id == org_id, g.credit_class == CreditClass.PAID.value, g.voided_at.is_(None))
    return select(g.currency, exact_sum(g.amount)).where(mine).group_by(g.currency)


def _drawn_of_void(org_id: str) -> Any:
    """Of what was voided only that is left which was used, until it is billed."""
    g = credit_grants.c
    mine = and_(g.org_id == org_id, g.credit_class == CreditClass.PAID.value, g.voided_at.is_not(None))
    query = select(g.currency, exact_sum(credit_draws.c.amount)).join(credit_draws, credit_draws.c.grant_id == g.id)
    return query.where(mine).group_by(g.currency)
