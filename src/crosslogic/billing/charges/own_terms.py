"""On which terms an org buys at present: its account, its plan, its reservations, as the database has them."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import RowMapping, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.billing.charges.terms import Commitment, OrgTerms, ReservedCapacity
from crosslogic.pricing.versions import USD
from crosslogic.store.tables import billing_accounts, capacity_reservations, orgs, plans
from crosslogic.tenancy.model import Plan
from crosslogic.tenancy.plans import in_force

_LATE = timedelta(days=62)  # reservations that ended longer ago matter to no usage any more

ConfiguredPlans = Callable[[], Iterable[Plan]]


class Account(msgspec.Struct, frozen=True):
    """On which terms an org buys, where they are not everybody's."""

    org_id: str
    currency: str = USD
    prepaid: bool = False
    bill_overage: bool = True
    free_tokens_per_month: int | None = None
    commitment: Commitment | None = None


async def account(conn: AsyncConnection, org_id: str) -> Account:
    row = (await conn.execute(select(billing_accounts).where(billing_accounts.c.org_id == org_id))).mappings().first()
    return Account(org_id) if row is None else to_account(row)


def to_account(row: RowMapping) -> Account:
    commitment = row["commitment"]
    return Account(
        row["org_id"],
        row["currency"],
        row["prepaid"],
        row["bill_overage"],
        row["free_tokens_per_month"],
        None if commitment is None else msgspec.json.decode(commitment, type=Commitment),
    )


async def current_plan(conn: AsyncConnection, org_id: str, configured: ConfiguredPlans) -> Plan | None:
    plan_id = await conn.scalar(select(orgs.c.billing_plan).where(orgs.c.id == org_id))
    if plan_id is None:
        return None
    stored = (await conn.execute(select(plans.c.terms).where(plans.c.id == plan_id))).scalars().all()
    found = in_force((msgspec.convert(terms, Plan) for terms in stored), configured()).get(plan_id)
    return Plan(plan_id, plan_id) if found is None else found.plan


async def current_terms(
    conn: AsyncConnection, org_id: str, configured: ConfiguredPlans, free_tokens_per_month: int, now: datetime
) -> OrgTerms:
    """`free_tokens_per_month` is what those have whose plan and account say nothing."""
    own, plan = await account(conn, org_id), await current_plan(conn, org_id, configured)
    free = own.free_tokens_per_month
    if free is None:
        free = (plan.included_tokens_per_month if plan is not None else 0) or free_tokens_per_month
    return OrgTerms(
        currency=own.currency,
        plan=plan.id if plan is not None else "",
        free_tokens_per_month=free,
        bill_overage=own.bill_overage,
        reservations=await _reservations(conn, org_id, now),
        commitment=own.commitment,
    )


async def _reservations(conn: AsyncConnection, org_id: str, now: datetime) -> tuple[ReservedCapacity, ...]:
    columns, first = capacity_reservations.c, now - _LATE
    query = select(capacity_reservations).where(
        columns.org_id == org_id,
        columns.expires_at > first,
        or_(columns.cancelled_at.is_(None), columns.cancelled_at > first),
    )
    found = []
    for row in (await conn.execute(query.order_by(columns.id))).mappings():
        ends_at = row["expires_at"] if row["cancelled_at"] is None else min(row["expires_at"], row["cancelled_at"])
        if ends_at > row["starts_at"]:
            found.append(
                ReservedCapacity(row["id"], row["model"], row["region"], row["units"], row["starts_at"], ends_at)
            )
    return tuple(found)
