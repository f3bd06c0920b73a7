"""Dropping the oldest months of the ledger: which rows they are, and how they go.

Invariants: of each org's log only a beginning goes, and where it begins from then on is written down first, with the
hash of the last row that goes and what all of them add up to. So what stays can be verified, the sums of the whole
still agree with the roll-ups, and a kill at any line leaves rows that are gone, or are about to go and are read by
nobody. Whether rows may go (rated, invoiced, rolled up) is for `billing.retention` to say.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Select, and_, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import Conflict
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import LedgerHead, LogStart, first_id, follow
from crosslogic.metering.removal import remove_rows
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_drops, usage_heads, usage_records, usage_starts, usage_too_late
from crosslogic.tenancy.audit_sql import AuditTrail

PAGE_ORGS = 500


class Drop(msgspec.Struct, frozen=True):
    """What went because it was older than `cutoff`."""

    cutoff: datetime
    row_count: int
    org_count: int
    decided_at: datetime
    removed_at: datetime | None = None  # None: rows of it may still lie there


class TooLate(msgspec.Struct, frozen=True):
    request_id: str
    org_id: str
    at: datetime
    document: str


class UsageRetention:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine, trail: AuditTrail) -> None:
        self._engine = engine
        self._trail = trail
        self._reader = LedgerReader(engine)

    async def older(
        self, cutoff: datetime, *, after_org: str = "", org_id: str | None = None
    ) -> tuple[list[LogStart], list[int], str | None]:
        """Logs with rows that arrived before `cutoff`: where each begins, up to where it may go, and the org to ask
        on from (None: that was all).

        A log goes up to its first row that arrived later: what comes behind that one waits until it goes as well.
        """
        heads, starts = usage_heads.c, usage_starts.c
        query = (
            select(heads.org_id, heads.seq)
            .outerjoin(usage_starts, starts.org_id == heads.org_id)
            .where(heads.org_id > after_org, or_(starts.cutoff.is_(None), starts.cutoff < cutoff))
            .order_by(heads.org_id)
            .limit(PAGE_ORGS)
        )
        if org_id is not None:
            query = query.where(heads.org_id == org_id)
        found: list[LogStart] = []
        through: list[int] = []
        async with reading(self._engine) as conn:
            page = (await conn.execute(query)).all()
            for one, last in page:
                start = await self._reader.start(one, conn=conn)
                first = await conn.scalar(_first_kept(one, start.seq, cutoff))
                until = last if first is None else first - 1
                if until > start.seq:
                    found.append(start)
                    through.append(until)
        return found, through, page[-1].org_id if len(page) == PAGE_ORGS else None

    async def proved(self, start: LogStart, through: int, cutoff: datetime) -> LogStart:
        """The new beginning behind `through`, after every row up to it was found to be as it was written.

        Raises Conflict where one is not: then nothing may go, for it is evidence.
        """
        head = LedgerHead(start.org_id, start.seq, start.hash)
        tokens, cost = start.total_tokens, start.cost_pusd
        while head.seq < through:
            page = [row for row in await self._reader.rows_after(start.org_id, head.seq) if row.seq <= through]
            head, wrong = follow(head, page)
            if wrong is not None or not page:
                raise Conflict(f"the log of {start.org_id} does not verify: {wrong.problem if wrong else 'rows miss'}")
            tokens += sum(row.total_tokens for row in page)
            cost += sum(row.cost_pusd for row in page)
        return LogStart(start.org_id, head.seq, head.hash, cutoff, tokens, cost, start.rating_state)

    async def decide(self, begin: Sequence[tuple[LogStart, LogStart]], cutoff: datetime, now: datetime) -> int:
        """Let these logs, each as it was and as it is to be, begin where they are to; returns how many rows that drops.

        All or nothing, with one entry in the audit log. A log that somebody else has moved is left out.
        """
        dialect = _dialect(self._engine)
        async with self._engine.begin() as conn:
            moved = [new for old, new in begin if await _moved(conn, old, new)]
            rows = sum(new.seq - old.seq for old, new in begin if new in moved)
            if not moved:
                return 0
            d = usage_drops.c
            values = {"cutoff": cutoff, "row_count": rows, "org_count": len(moved), "decided_at": now}
            added = dialect.insert(usage_drops).values(**values)
            changed = {
                "row_count": d.row_count + added.excluded.row_count,
                "org_count": d.org_count + added.excluded.org_count,
                "decided_at": added.excluded.decided_at,
                "removed_at": None,
            }
            await conn.execute(added.on_conflict_do_update(index_elements=["cutoff"], set_=changed))
            reach("retention.begun")
            after = {"before": cutoff.isoformat(), "rows": rows, "logs": len(moved)}
            await self._trail.append(conn, "usage.drop", f"{cutoff:%Y-%m}", org_id=None, before=None, after=after)
            reach("retention.before_commit")
        reach("retention.decided")
        return rows

    async def remove(self, now: datetime) -> bool:
        """Remove what lies before the beginnings of the logs; False where some of it has to stay for a while."""
        open_drops = select(usage_drops.c.cutoff).where(usage_drops.c.removed_at.is_(None))
        async with reading(self._engine) as conn:
            cutoffs = (await conn.execute(open_drops.order_by(usage_drops.c.cutoff))).scalars().all()
        if not cutoffs:
            return True
        whole = await remove_rows(self._engine, max(cutoffs))
        reach("retention.removed")
        if whole:
            async with self._engine.begin() as conn:
                done = update(usage_drops).where(usage_drops.c.cutoff.in_(cutoffs), usage_drops.c.removed_at.is_(None))
                await conn.execute(done.values(removed_at=now))
        return whole

    async def drops(self, *, before: datetime | None = None, limit: int = 100) -> list[Drop]:
        """The newest first."""
        query = select(usage_drops).order_by(usage_drops.c.cutoff.desc()).limit(limit)
        if before is not None:
            query = query.where(usage_drops.c.cutoff < before)
        async with reading(self._engine) as conn:
            return [Drop(**row) for row in (await conn.execute(query)).mappings()]

    async def too_late(self, *, org_id: str | None = None, after: str = "", limit: int = 100) -> list[TooLate]:
        """Records that were set aside, by request."""
        query = select(usage_too_late).where(usage_too_late.c.request_id > after)
        if org_id is not None:
            query = query.where(usage_too_late.c.org_id == org_id)
        query = query.order_by(usage_too_late.c.request_id).limit(limit)
        async with reading(self._engine) as conn:
            return [TooLate(**row) for row in (await conn.execute(query)).mappings()]


def _first_kept(org_id: str, after: int, cutoff: datetime) -> Select[Any]:
    t = usage_records.c
    later = and_(t.timestamp >= cutoff, t.request_id >= first_id(cutoff))
    return select(func.min(t.seq)).where(t.org_id == org_id, t.seq > after, later)


async def _moved(conn: AsyncConnection, old: LogStart, new: LogStart) -> bool:
    """False where the log does not begin where `old` says."""
    values = msgspec.structs.asdict(new)
    if old.seq == 0:
        add = _dialect(conn).insert(usage_starts).values(**values).on_conflict_do_nothing()
        return (await conn.execute(add)).rowcount == 1
    here = and_(usage_starts.c.org_id == old.org_id, usage_starts.c.seq == old.seq)
    return (await conn.execute(update(usage_starts).where(here).values(**values))).rowcount == 1


def _dialect(of: AsyncEngine | AsyncConnection) -> Any:
    return postgresql if of.dialect.name == "postgresql" else sqlite
