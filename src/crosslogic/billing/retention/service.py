"""Drops the months of usage that are older than what is kept, log by log, as soon as nothing waits for them any more.

Invariants: what is not rated, invoiced, rolled up or copied stays, however old; before rows go they are followed once
more by their hashes, and rated once more to the charges that they became; a run that was killed is gone on with.
"""

import asyncio
import logging
from datetime import UTC, datetime

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.charges.rows import canonical
from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.retention.settled import Wait, waits_for
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict
from crosslogic.metering.ledger_row import LogStart
from crosslogic.metering.retention import Drop, TooLate, UsageRetention
from crosslogic.store.engine import reading
from crosslogic.tenancy.audit_sql import AuditTrail

_log = logging.getLogger(__name__)


class RetentionService:
    """`months` whole months before this one are kept; None keeps all. Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        trail: AuditTrail,
        rating: RatingService,
        *,
        months: int | None,
        billed: bool,
        copied: bool = False,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._rating = rating
        self._usage = UsageRetention(engine, trail)
        self.months = months
        self._billed = billed
        self._copied = copied

    def cutoff(self) -> datetime | None:
        """What arrived before it is to go."""
        if self.months is None:
            return None
        now = self._clock.now().astimezone(UTC)
        year, month = divmod(now.year * 12 + now.month - 1 - self.months, 12)
        return datetime(year, month + 1, 1, tzinfo=UTC)

    async def round(self) -> int:
        """Drop what may go; returns how many rows."""
        await self._usage.remove(self._clock.now())  # what a run before this one left
        cutoff = self.cutoff()
        if cutoff is None:
            return 0
        dropped, after = 0, ""
        while True:
            starts, through, more = await self._usage.older(cutoff, after_org=after)
            begin = []
            for start, until in zip(starts, through, strict=True):
                if (new := await self._ready(start, until, cutoff)) is not None:
                    begin.append((start, new))
            dropped += await self._usage.decide(begin, cutoff, self._clock.now()) if begin else 0
            if more is None:
                break
            after = more
        if dropped:
            _log.info("%d usage rows of before %s are dropped", dropped, cutoff.date())
        if not await self._usage.remove(self._clock.now()):
            _log.warning("usage rows of before %s stay where they are: too many of that time wait", cutoff.date())
        return dropped

    async def waiting(self, *, after_org: str = "", org_id: str | None = None, limit: int = 100) -> list[Wait]:
        """Orgs whose rows are old enough and may not go, and why; by org."""
        cutoff = self.cutoff()
        found: list[Wait] = []
        while cutoff is not None and len(found) < limit:
            starts, through, more = await self._usage.older(cutoff, after_org=after_org, org_id=org_id)
            for start, until in zip(starts, through, strict=True):
                if (wait := await self._waits(start.org_id, until)) is not None:
                    found.append(wait)
            if more is None:
                break
            after_org = more
        return found[:limit]

    async def drops(self, *, before: datetime | None = None, limit: int = 100) -> list[Drop]:
        return await self._usage.drops(before=before, limit=limit)

    async def too_late(self, *, org_id: str | None = None, after: str = "", limit: int = 100) -> list[TooLate]:
        return await self._usage.too_late(org_id=org_id, after=after, limit=limit)

    async def _waits(self, org_id: str, until: int) -> Wait | None:
        async with reading(self._engine) as conn:
            return await waits_for(conn, org_id, until, billed=self._billed, copied=self._copied)

    async def _ready(self, start: LogStart, until: int, cutoff: datetime) -> LogStart | None:
        """The log's new beginning; None where its rows have to stay."""
        if await self._waits(start.org_id, until) is not None:
            return None
        try:
            new = await self._usage.proved(start, until, cutoff)
        except Conflict as error:
            _log.error("usage rows of before %s stay: %s", cutoff.date(), error)
            return None
        if not await self._rating.is_rated(start.org_id):
            return new
        rebuilt, state = await self._rating.replay(start, until)
        await asyncio.sleep(0)
        if rebuilt.wrong_seq is not None:
            _log.error("usage rows of %s stay: row %d is charged otherwise", start.org_id, rebuilt.wrong_seq)
            return None
        return msgspec.structs.replace(new, rating_state=canonical(state))
