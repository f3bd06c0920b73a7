"""Allocations in the database, for all processes of the cloud.

Invariant: whoever takes or reserves holds a lock on all shares until its transaction ends, so that what was decided
on is still true when it is done; what somebody does commits together with its entry in the audit log.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import RowMapping, delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.capacity.allocations import shares
from crosslogic.capacity.allocations.model import NOTHING, Allocation, Reserve, Resources, Standing, Totals
from crosslogic.capacity.allocations.shares import Shares, totals_of
from crosslogic.fleet.rows import to_node
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import AllocationId, OrgId, new_allocation_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import nodes
from crosslogic.store.tables import resource_allocations as taken
from crosslogic.store.tables import resource_reserves as reserved
from crosslogic.tenancy import rules
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.writing import Writer, check_ref, not_found

ALLOCATION = "allocation"
RESERVE = "reserve"

_SHARES_LOCK = 0x636C_736B_0021


class SqlAllocator:
    """A `ResourceAllocator`. What `configured` leaves open is what the registered nodes have."""

    def __init__(
        self,
        engine: AsyncEngine,
        hash_key: KeyHasher,
        clock: Clock,
        configured: Totals,
        most_per_node: int,
        actor: Actor = SYSTEM,
    ) -> None:
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._configured = configured
        self._most_per_node = most_per_node
        self._writer = Writer(engine, AuditTrail(actor, hash_key, clock))

    def acting_as(self, actor: Actor) -> "SqlAllocator":
        return SqlAllocator(self._engine, self._hash_key, self._clock, self._configured, self._most_per_node, actor)

    async def allocate(self, org_id: OrgId, wanted: Resources, *, lasts_s: float) -> Allocation:
        shares.check_duration(lasts_s)
        shares.checked(wanted)
        async with self._engine.begin() as conn:
            await _lock(conn)
            now = self._clock.now()
            (await self._shares(conn, now)).check_allocation(org_id, wanted)
            made = Allocation(new_allocation_id(), org_id, wanted, now, now + timedelta(seconds=lasts_s))
            row = _allocation_columns(made)
            await _insert(conn, taken, row)
            await self._writer.announce(conn, "allocation.create", ALLOCATION, before=None, after=row)
        return made

    async def release(self, allocation_id: AllocationId) -> Allocation:
        check_ref(allocation_id, ALLOCATION)
        async with self._engine.begin() as conn:
            await _lock(conn)
            here = (taken.c.id == allocation_id, taken.c.expires_at > self._clock.now())
            row = (await conn.execute(select(taken).where(*here))).mappings().first()
            if row is None:
                raise not_found(ALLOCATION)
            await conn.execute(delete(taken).where(taken.c.id == allocation_id))
            await self._writer.announce(conn, "allocation.release", ALLOCATION, before=dict(row), after=None)
        return _allocation(row)

    async def available(self, org_id: OrgId) -> Standing:
        async with reading(self._engine) as conn:
            return (await self._shares(conn, self._clock.now())).standing(org_id)

    async def reserve(self, org_id: OrgId, resources: Resources, *, expires_at: datetime | None = None) -> Reserve:
        shares.checked(resources)
        async with self._engine.begin() as conn:
            await _lock(conn)
            now = self._clock.now()
            if expires_at is not None and expires_at <= now:
                raise InvalidRequest("expires_at lies in the past", param="expires_at")
            (await self._shares(conn, now)).check_reserve(org_id, resources)
            reserve = Reserve(org_id, resources, expires_at)
            here = reserved.c.id == org_id
            before = (await conn.execute(select(reserved).where(here))).mappings().first()
            after = None if resources == NOTHING else _reserve_columns(reserve)
            if before is None and after is None:
                return reserve
            if after is None:
                await conn.execute(delete(reserved).where(here))
            elif before is None:
                await _insert(conn, reserved, after)
            else:
                await conn.execute(update(reserved).where(here).values(after))
            whose = {"org_id": org_id}
            await self._writer.announce(
                conn,
                "reserve.change",
                RESERVE,
                before=None if before is None else whose | dict(before),
                after=None if after is None else whose | after,
            )
        return reserve

    async def allocations(
        self, *, org_id: OrgId | None = None, after: str | None = None, limit: int = 100
    ) -> Sequence[Allocation]:
        query = select(taken).where(taken.c.expires_at > self._clock.now()).order_by(taken.c.id)
        if org_id is not None:
            query = query.where(taken.c.org_id == org_id)
        if after is not None:
            query = query.where(taken.c.id > after)
        async with reading(self._engine) as conn:
            rows = await conn.execute(query.limit(rules.page_limit(limit)))
            return [_allocation(row) for row in rows.mappings()]

    async def sweep(self) -> int:
        now = self._clock.now()
        async with self._engine.begin() as conn:
            over = await conn.execute(delete(taken).where(taken.c.expires_at <= now))
            past = await conn.execute(delete(reserved).where(reserved.c.expires_at <= now))
            return over.rowcount + past.rowcount

    async def _shares(self, conn: AsyncConnection, now: datetime) -> Shares:
        fleet = [to_node(row) for row in (await conn.execute(select(nodes))).mappings()]
        living = select(taken).where(taken.c.expires_at > now)
        allocations = [_allocation(row) for row in (await conn.execute(living)).mappings()]
        reserves = [_reserve(row) for row in (await conn.execute(select(reserved))).mappings()]
        return Shares(totals_of(fleet, self._configured, self._most_per_node), reserves, allocations, now)


async def _lock(conn: AsyncConnection) -> None:
    """One at a time; SQLite has one writer anyway."""
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SHARES_LOCK})


async def _insert(conn: AsyncConnection, table: Any, row: dict[str, Any]) -> None:
    try:
        await conn.execute(insert(table).values(row))
    except IntegrityError:
        raise InvalidRequest("there is no such org", param="org") from None


def _allocation_columns(allocation: Allocation) -> dict[str, Any]:
    return {
        "id": allocation.id,
        "org_id": allocation.org_id,
        **msgspec.structs.asdict(allocation.resources),
        "allocated_at": allocation.allocated_at,
        "expires_at": allocation.expires_at,
    }


def _reserve_columns(reserve: Reserve) -> dict[str, Any]:
    return {"id": reserve.org_id, **msgspec.structs.asdict(reserve.resources), "expires_at": reserve.expires_at}


def _allocation(row: RowMapping) -> Allocation:
    return Allocation(
        AllocationId(row["id"]), OrgId(row["org_id"]), _resources(row), row["allocated_at"], row["expires_at"]
    )


def _reserve(row: RowMapping) -> Reserve:
    return Reserve(OrgId(row["id"]), _resources(row), row["expires_at"])


def _resources(row: RowMapping) -> Resources:
    return Resources(row["gpu_memory_mb"], row["cpu_cores"], row["concurrency"])
