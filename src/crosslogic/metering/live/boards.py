"""How management sees what runs in all gateways: asked of the one process that has the journal, or over the database.

Each gateway lays its sums down once a second while something runs. Invariant: what a gateway that is dead laid down is
no longer seen after `KEPT_S`; all times are the database's own.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from sqlalchemy import ColumnElement, Float, delete, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.metering.live.model import LiveUsage, together
from crosslogic.store.engine import DATABASE_ERRORS, reading
from crosslogic.store.tables import usage_live

REPORT_EVERY_S = 1.0
KEPT_S = 5.0
_FORGOTTEN_S = 3600.0
_NOW_S = {
    "postgresql": "extract(epoch from clock_timestamp())",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}

Running = Callable[[], list[LiveUsage]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[LiveUsage]).decode


class LiveBoard(Protocol):
    async def live(self) -> list[LiveUsage]:
        """What runs now in all gateways, some two seconds old. Raises `store.engine.DATABASE_ERRORS`."""
        ...


class MemoryLive:
    """A `LiveBoard` of one process. Management may be built before the journal is opened: until `show` nothing runs."""

    def __init__(self) -> None:
        self._running: Running = list

    def show(self, running: Running) -> None:
        self._running = running

    async def live(self) -> list[LiveUsage]:
        return together([self._running()])


class SqlLive:
    """A `LiveBoard` of all gateways that report to this database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def live(self) -> list[LiveUsage]:
        fresh = select(usage_live.c.document).where(usage_live.c.at_s > _now_s(self._engine) - KEPT_S)
        async with reading(self._engine) as conn:
            return together(_decode(document) for document in (await conn.execute(fresh)).scalars())


class LiveReporter:
    """Lays down what runs in one gateway, once a second; when nothing does, once that nothing does."""

    def __init__(self, engine: AsyncEngine, session: str, running: Running) -> None:
        self._engine = engine
        self._session = session
        self._running = running
        self._empty = True  # as last told

    async def run(self) -> None:
        """For as long as the gateway lives; a database that is away costs the report alone."""
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            try:
                await self.report()
            except DATABASE_ERRORS:
                continue

    async def report(self) -> None:
        sums = self._running()
        if not sums and self._empty:
            return
        dialect: Any = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        put = dialect.insert(usage_live).values(
            session=self._session, at_s=_now_s(self._engine), document=_encode(sums)
        )
        changed = {"at_s": _now_s(self._engine), "document": put.excluded.document}
        async with self._engine.begin() as conn:
            if self._empty:
                await conn.execute(delete(usage_live).where(usage_live.c.at_s < _now_s(self._engine) - _FORGOTTEN_S))
            await conn.execute(put.on_conflict_do_update(index_elements=["session"], set_=changed))
        self._empty = not sums


def _now_s(engine: AsyncEngine) -> ColumnElement[float]:
    return literal_column(_NOW_S[engine.dialect.name], Float)
