"""The change feed: how every process learns within a second what another one changed in the database.

A writer appends a row to `changes` in the transaction of the change itself; readers poll for rows after the last
one they saw. Nothing is lost when a reader or the database is away for a while, unlike with notifications.

Invariants: a reader that has seen number n will never be given a smaller one later, and has missed none before it;
the row at a reader's position stays until newer ones exist, so that a hole is noticed (`on_gap`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.store.engine import reading
from crosslogic.store.tables import changes

RETENTION = timedelta(days=1)
PAGE = 1_000
POLL_TIMEOUT_S = 5.0
MAX_BACKOFF_S = 1.0
_COMMIT_ORDER_LOCK = 0x636C_736B_0002

_log = logging.getLogger(__name__)


class Change(msgspec.Struct, frozen=True):
    """`kind` names the table's entity ("org", "environment", "key", "node", …), `entity_id` its row."""

    seq: int
    kind: str
    entity_id: str


OnChanges = Callable[[Sequence[Change]], Awaitable[None]]
OnGap = Callable[[], Awaitable[None]]
OnRead = Callable[[float], None]
"""Told, in the event loop's time, when a reading began that left nothing undelivered."""


async def append_change(conn: AsyncConnection, kind: str, entity_id: str) -> None:
    """Announce a change, in the transaction that makes it; best as its last statement.

    PostgreSQL draws the number at INSERT but shows the row at COMMIT. Without the lock, number 8 could become
    visible before 7: a reader would step over 7 and never see it. The lock is held until the transaction ends, so
    that numbers become visible in their order. SQLite has one writer at a time anyway.
    """
    if conn.dialect.name == "postgresql":
        await conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _COMMIT_ORDER_LOCK})
    await conn.execute(insert(changes).values(kind=kind, entity_id=entity_id, at=datetime.now(UTC)))


async def prune(engine: AsyncEngine, *, before: datetime) -> int:
    """Delete changes older than `before`, never the newest one; returns how many."""
    async with engine.begin() as conn:
        newest = select(func.max(changes.c.seq)).scalar_subquery()
        done = await conn.execute(delete(changes).where(changes.c.at < before, changes.c.seq < newest))
        return done.rowcount


class ChangeFeed:
    """One reader's position in the feed.

    Use: `await feed.start()`, load everything, then `await feed.run(…)`: what changes during the load is then
    delivered again, never missed.
    """

    def __init__(self, engine: AsyncEngine, poll_interval_s: float = 0.25) -> None:
        self._engine = engine
        self._poll_interval_s = poll_interval_s
        self._position: int | None = None
        self._failing = False

    async def start(self) -> None:
        """Take the present end of the feed as position. Raises SQLAlchemyError or OSError when the database is away."""
        self._position = await self._end()

    async def poll(self, on_changes: OnChanges, on_gap: OnGap | None = None) -> int:
        """Deliver what is new, once; returns how many changes. The position moves only after the callback is done."""
        if self._position is None:
            await self.start()
        rows = await self._read()
        if not rows or rows[0].seq != self._position:
            # The row at our position is gone: pruned while we were away too long, or the database was restored
            # from a backup. The changes in between cannot be told, only all be read again.
            end = await self._end()
            if on_gap is not None:
                await on_gap()
            self._position = end
            return 0
        if rows[1:]:
            await on_changes(rows[1:])
            self._position = rows[-1].seq
        return len(rows) - 1

    async def run(self, on_changes: OnChanges, on_gap: OnGap | None = None, on_read: OnRead | None = None) -> None:
        """Deliver changes until cancelled, within `poll_interval_s` or so of their commit.

        `on_gap` must load everything anew; `on_read` hears of each reading up to the present end. While the database
        (or the callback, which mostly reads it) fails, the same changes are tried again, at most a second apart, and
        the log says so once.
        """
        wait_s = self._poll_interval_s
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            try:
                delivered = await self.poll(on_changes, on_gap)
            except Exception as error:  # this loop is what makes revocations take effect: it must not end
                self._tell_failure(error)
                wait_s = min(wait_s * 2, MAX_BACKOFF_S)
            else:
                self._tell_recovery()
                if on_read is not None and delivered < PAGE:
                    on_read(began_s)
                wait_s = 0.0 if delivered >= PAGE else self._poll_interval_s
            await asyncio.sleep(wait_s)

    async def _end(self) -> int:
        async with asyncio.timeout(POLL_TIMEOUT_S), reading(self._engine) as conn:
            return (await conn.execute(select(func.max(changes.c.seq)))).scalar() or 0

    async def _read(self) -> list[Change]:
        """The row at the position, and a page of those after it."""
        query = (
            select(changes.c.seq, changes.c.kind, changes.c.entity_id)
            .where(changes.c.seq >= self._position)
            .order_by(changes.c.seq)
            .limit(PAGE + 1)
        )
        async with asyncio.timeout(POLL_TIMEOUT_S), reading(self._engine) as conn:
            return [Change(row.seq, row.kind, row.entity_id) for row in await conn.execute(query)]

    def _tell_failure(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            # The text of a driver's error may quote connection parameters; its type says enough.
            _log.warning("the change feed cannot read the database (%s); trying on", type(error).__name__)

    def _tell_recovery(self) -> None:
        if self._failing:
            self._failing = False
            _log.info("the change feed reads the database again")


class Follower(Protocol):
    """A picture of some tables that a process keeps in memory."""

    async def load(self) -> None:
        """Read everything anew."""
        ...

    async def apply(self, changes: Sequence[Change]) -> None:
        """Read what is named of its own kinds; others are none of its business. May be told the same twice."""
        ...


class Following:
    """Keeps the followers of one process up to date, with one reader of the feed for all."""

    def __init__(self, engine: AsyncEngine, followers: Sequence[Follower], poll_interval_s: float = 0.25) -> None:
        self._feed = ChangeFeed(engine, poll_interval_s)
        self._followers = tuple(followers)

    async def start(self) -> None:
        """Load everything, one follower after the other. Raises what SQLAlchemy raises when the database is away."""
        await self._feed.start()
        await self._load()

    async def run(self, on_read: OnRead | None = None) -> None:
        """Follow the feed until cancelled."""
        await self._feed.run(self._apply, on_gap=self._load, on_read=on_read)

    async def poll(self) -> int:
        """Apply what is new now; returns how many changes there were."""
        return await self._feed.poll(self._apply, on_gap=self._load)

    async def _load(self) -> None:
        for follower in self._followers:
            await follower.load()

    async def _apply(self, changes: Sequence[Change]) -> None:
        for follower in self._followers:
            await follower.apply(changes)
