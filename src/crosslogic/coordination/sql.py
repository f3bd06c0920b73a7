"""Leases and processes in the product's own database: the default, which needs no further server.

All times are the database's own, so that the clocks of the processes do not matter. One statement takes or keeps a
lease, so two candidates cannot both see it free.
"""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Float, case, delete, literal_column, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store.engine import reading
from crosslogic.store.tables import leases, processes

_NOW_S = {
    "postgresql": "extract(epoch from clock_timestamp())",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}


class SqlLeases:
    """`ports.LeaseStore` over the tables of `store`. Does not close the engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._now_s = _now_s(engine)

    async def acquire(self, name: str, holder: str, ttl_s: float) -> int | None:
        new = _insert(self._engine)(leases).values(name=name, holder=holder, fence=1, expires_at_s=self._now_s + ttl_s)
        taken_over = case((leases.c.holder == holder, leases.c.fence), else_=leases.c.fence + 1)
        statement = new.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": holder, "fence": taken_over, "expires_at_s": self._now_s + ttl_s},
            where=(leases.c.holder == holder) | (leases.c.expires_at_s <= self._now_s),
        ).returning(leases.c.fence)
        async with self._engine.begin() as conn:
            fence: int | None = (await conn.execute(statement)).scalar_one_or_none()
            return fence

    async def release(self, name: str, holder: str) -> None:
        # The row stays: its fence must not begin anew.
        free = update(leases).where(leases.c.name == name, leases.c.holder == holder).values(expires_at_s=0.0)
        async with self._engine.begin() as conn:
            await conn.execute(free)

    async def holder(self, name: str) -> str | None:
        held = select(leases.c.holder).where(leases.c.name == name, leases.c.expires_at_s > self._now_s)
        async with reading(self._engine) as conn:
            found: str | None = (await conn.execute(held)).scalar_one_or_none()
            return found

    async def close(self) -> None:
        """Nothing of our own is open."""


class Process(msgspec.Struct, frozen=True):
    """One running process of the cloud. Seconds are counted by the database."""

    id: str
    role: str  # "control" or "gateway"
    version: str
    address: str  # host and port it listens on, as configured
    age_s: float
    silent_s: float


class SqlProcesses:
    """Which processes there are: each says now and then that it lives."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._now_s = _now_s(engine)

    async def beat(self, process_id: str, role: str, version: str, address: str) -> None:
        """It lives; the first beat is its birth."""
        new = _insert(self._engine)(processes).values(
            id=process_id, role=role, version=version, address=address, started_at_s=self._now_s, seen_at_s=self._now_s
        )
        statement = new.on_conflict_do_update(index_elements=["id"], set_={"seen_at_s": self._now_s})
        async with self._engine.begin() as conn:
            await conn.execute(statement)

    async def leave(self, process_id: str) -> None:
        async with self._engine.begin() as conn:
            await conn.execute(delete(processes).where(processes.c.id == process_id))

    async def alive(self, silence_s: float) -> list[Process]:
        """Those heard within `silence_s`, the oldest first."""
        age_s, silent_s = self._now_s - processes.c.started_at_s, self._now_s - processes.c.seen_at_s
        query = (
            select(processes.c.id, processes.c.role, processes.c.version, processes.c.address, age_s, silent_s)
            .where(silent_s <= silence_s)
            .order_by(processes.c.started_at_s, processes.c.id)
        )
        async with reading(self._engine) as conn:
            return [Process(*row) for row in await conn.execute(query)]

    async def forget(self, silence_s: float) -> int:
        """Delete those not heard of for so long; returns how many."""
        async with self._engine.begin() as conn:
            gone = await conn.execute(delete(processes).where(self._now_s - processes.c.seen_at_s > silence_s))
            return gone.rowcount


def _now_s(engine: AsyncEngine) -> ColumnElement[float]:
    return literal_column(_NOW_S[engine.dialect.name], Float(asdecimal=False))


def _insert(engine: AsyncEngine) -> Any:
    """INSERT … ON CONFLICT, which both databases have, under one name each."""
    return postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
