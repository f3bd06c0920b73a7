"""Reservations in the database.

Invariants: every change commits together with its rows in the audit log and the change feed, or not at all; whoever
promises or changes capacity holds a lock on all promises until the end of the transaction, so that two promises made
at once are not both made of the same room.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.capacity.model import Reservation, ReservationState
from crosslogic.capacity.rows import reservation_columns, to_reservation
from crosslogic.fleet.model import Node
from crosslogic.fleet.rows import to_node
from crosslogic.kernel.ids import OrgId, ReservationId
from crosslogic.store.engine import reading
from crosslogic.store.tables import capacity_reservations as table
from crosslogic.store.tables import nodes
from crosslogic.tenancy.writing import Writer, check_ref, locked

RESERVATION_CHANGED = "reservation"

_PROMISES_LOCK = 0x636C_736B_0020


async def lock_promises(conn: AsyncConnection) -> None:
    """One promise at a time; SQLite has one writer anyway."""
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _PROMISES_LOCK})


async def overlapping(conn: AsyncConnection, wanted: Reservation) -> list[Reservation]:
    """Those of anybody that are in force at some time at which `wanted` is, itself left out."""
    query = select(table).where(
        table.c.id != wanted.id,
        table.c.cancelled_at.is_(None),
        table.c.starts_at < wanted.expires_at,
        table.c.expires_at > wanted.starts_at,
    )
    return [to_reservation(row) for row in (await conn.execute(query)).mappings()]


async def made_under(conn: AsyncConnection, ref: str) -> Reservation | None:
    """The reservation that was made under this Idempotency-Key."""
    row = (await conn.execute(select(table).where(table.c.creation_ref == ref))).mappings().first()
    return None if row is None else to_reservation(row)


async def fleet(conn: AsyncConnection) -> list[Node]:
    return [to_node(row) for row in (await conn.execute(select(nodes))).mappings()]


async def in_question(engine: AsyncEngine, now: datetime, ids: Sequence[str] | None = None) -> list[Reservation]:
    """Those that are in force or will be, of these ids or of all."""
    query = select(table).where(table.c.cancelled_at.is_(None), table.c.expires_at > now)
    if ids is not None:
        query = query.where(table.c.id.in_(ids))
    async with reading(engine) as conn:
        return [to_reservation(row) for row in (await conn.execute(query.order_by(table.c.id))).mappings()]


class ReservationsSql:
    """Raises NotFound, also for a reservation of another org."""

    def __init__(self, writer: Writer) -> None:
        self._rows = writer
        self.engine = writer.engine

    async def add_in(self, conn: AsyncConnection, reservation: Reservation) -> None:
        await self._rows.add_in(conn, table, reservation_columns(reservation), RESERVATION_CHANGED)

    async def locked_in(self, conn: AsyncConnection, reservation_id: str) -> Reservation:
        check_ref(reservation_id, RESERVATION_CHANGED)
        return to_reservation(await locked(conn, table, reservation_id, RESERVATION_CHANGED))

    async def change_in(self, conn: AsyncConnection, before: Reservation, after: Reservation, verb: str) -> Reservation:
        old, new = reservation_columns(before), reservation_columns(after)
        values = {name: value for name, value in new.items() if value != old[name]}
        if not values:
            return before
        row = await locked(conn, table, before.id, RESERVATION_CHANGED)
        return to_reservation(await self._rows.change_in(conn, table, row, values, RESERVATION_CHANGED, verb))

    async def reservation(self, reservation_id: ReservationId, org_id: OrgId | None = None) -> Reservation:
        check_ref(reservation_id, RESERVATION_CHANGED)
        query = select(table).where(table.c.id == reservation_id)
        if org_id is not None:
            query = query.where(table.c.org_id == org_id)
        return to_reservation(await self._rows.one(query, RESERVATION_CHANGED))

    async def reservations(
        self,
        now: datetime,
        *,
        org_id: OrgId | None,
        model: str | None,
        region: str | None,
        state: ReservationState | None,
        after: str | None,
        limit: int,
    ) -> list[Reservation]:
        """In order of id, which is order of creation; `after` is the last id of the page before."""
        query = select(table).order_by(table.c.id).limit(limit)
        wanted: dict[ColumnElement[Any], Any] = {table.c.org_id: org_id, table.c.model: model, table.c.region: region}
        for column, value in wanted.items():
            if value is not None:
                query = query.where(column == value)
        if state is not None:
            query = query.where(_in_state(state, now))
        if after is not None:
            query = query.where(table.c.id > after)
        return [to_reservation(row) for row in await self._rows.all(query)]


def _in_state(state: ReservationState, now: datetime) -> ColumnElement[bool]:
    """`Reservation.state`, said in SQL."""
    standing = table.c.cancelled_at.is_(None)
    return {
        ReservationState.CANCELLED: table.c.cancelled_at.is_not(None),
        ReservationState.EXPIRED: and_(standing, table.c.expires_at <= now),
        ReservationState.SCHEDULED: and_(standing, table.c.starts_at > now, table.c.expires_at > now),
        ReservationState.ACTIVE: and_(standing, table.c.starts_at <= now, table.c.expires_at > now),
    }[state]
