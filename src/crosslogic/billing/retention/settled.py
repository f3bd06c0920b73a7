"""Up to which position an org's usage is through everything that is made of it. Reads only."""

from collections.abc import Mapping

import msgspec
from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.billing.exports.model import Mode
from crosslogic.billing.invoices.model import InvoiceStatus
from crosslogic.store.tables import (
    charge_cursors,
    charges,
    export_modes,
    invoices,
    orgs,
    usage_copies,
    usage_rollups,
)


class Wait(msgspec.Struct, frozen=True):
    """Why rows of an org may not go yet: only those up to `through` are done with."""

    org_id: str
    through: int
    why: str


async def waits_for(
    conn: AsyncConnection, org_id: str, until: int, *, billed: bool, copied: bool = False
) -> Wait | None:
    """What the rows up to `until` wait for first; None where they wait for nothing.

    `billed` says that usage is rated here, `copied` that another store has to have it. An org that was ever rated has
    to be rated on, whatever is switched off by now.
    """
    reached = await _reached(conn, org_id)
    if reached["roll-ups"] < until:
        return Wait(org_id, reached["roll-ups"], "it is not in the roll-ups")
    if copied and reached["copy"] < until:
        return Wait(org_id, reached["copy"], "it is not copied to the other store of usage")
    if not billed and not reached["charges"]:
        return None
    if reached["charges"] < until:
        return Wait(org_id, reached["charges"], "it is not rated")
    return await _of_money(conn, org_id, until)


async def _reached(conn: AsyncConnection, org_id: str) -> Mapping[str, int]:
    tables = {"roll-ups": usage_rollups, "charges": charge_cursors, "copy": usage_copies}
    found = {}
    for name, table in tables.items():
        found[name] = int(await conn.scalar(select(table.c.seq).where(table.c.org_id == org_id)) or 0)
    return found


async def _of_money(conn: AsyncConnection, org_id: str, until: int) -> Wait | None:
    c, i, m = charges.c, invoices.c, export_modes.c
    here = and_(c.org_id == org_id, c.seq <= until)
    if await conn.scalar(select(orgs.c.billing_enabled).where(orgs.c.id == org_id)):
        # Charges of nothing need no invoice: an org that stays within its free tokens may never get one.
        free = select(func.min(c.seq)).where(here, c.invoice_id.is_(None), c.amount != 0)
        first = await conn.scalar(free)
        if first is not None:
            return Wait(org_id, first - 1, "it is on no invoice")
        drafts = select(i.root_id).where(i.org_id == org_id, i.status == InvoiceStatus.DRAFT.value)
        first = await conn.scalar(select(func.min(c.seq)).where(here, c.invoice_id.in_(drafts)))
        if first is not None:
            return Wait(org_id, first - 1, "its invoice is a draft")
    mode = select(m.sealed_seq).where(m.org_id == org_id, m.mode == Mode.STRIPE_METER.value)
    sealed = await conn.scalar(mode)
    if sealed is not None and sealed < until:
        return Wait(org_id, int(sealed), "it is not exported")
    return None
