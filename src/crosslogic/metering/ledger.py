"""The usage ledger: what each dispatched request used and what it costs, in one log for each org. Rows never change.

Invariants: inserting is idempotent by request id, so the same records may come any number of times, in any batches,
from any number of writers. What comes later and knows better is a row of its own, a correction. An org's rows have
the positions 1, 2, 3, … in the order in which they were committed, and each one's hash covers the one before.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.clock import Clock, SystemClock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.metering.ledger_row import LedgerHead, LedgerRow, append, is_before, microseconds
from crosslogic.metering.ledger_sql import (
    add_rows,
    known_outcomes,
    lock_heads,
    log_starts,
    make_heads,
    move_heads,
    rows_of_keys,
    rows_of_requests,
    set_aside,
)
from crosslogic.metering.model import Evidence, Usage, UsageRecord
from crosslogic.metering.once import BY_ITSELF, is_given_away, with_keys_settled
from crosslogic.metering.rated import correction, original, restated, supersedes
from crosslogic.pricing.book import Price, PriceBook
from crosslogic.pricing.sync import PublishedPrices

LATE = "a record came after the request was closed without one"

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Ledger:
    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock | None = None,
        on_added: Callable[[Sequence[LedgerRow]], None] | None = None,
        published: PublishedPrices | None = None,
    ) -> None:
        """`published` are versions that count before the price book; without it none does.

        `on_added` hears of rows once they are committed, for metrics; where the answer to a commit is lost, not.
        """
        self._on_added = on_added
        self._published = published
        self._engine = engine
        self._clock = clock or SystemClock()
        self._begun: set[str] = set()  # orgs whose logs have a head

    async def insert(self, records: Iterable[UsageRecord], prices: PriceBook) -> int:
        """Rate the records and add those whose request the ledger does not have yet; returns how many rows.

        A request that was closed without a record gets what is missing as a correction.
        All or nothing. Raises `store.engine.DATABASE_ERRORS`, after which the rows may be there or not: insert again.
        """
        records = list(records)
        if not records:
            return 0
        now_us = microseconds(self._clock.now())
        published = None if self._published is None else await self._published.now()
        drafts: dict[str, LedgerRow] = {}
        ttl_s: dict[str, int] = {}
        for record in records:
            row = original(record, prices, now_us, published)
            known = drafts.get(row.request_id)
            if known is None or supersedes(row, known.outcome):
                drafts[row.request_id] = row
                if record.once is not None:
                    ttl_s[row.request_id] = record.once.ttl_s
        return await self._in_whole(self._insert(list(drafts.values()), ttl_s))

    async def correct(
        self,
        org_id: str,
        request_id: str,
        n: int,
        truth: Usage,
        price: Price,
        *,
        evidence: Evidence,
        reason: str,
        actor: str,
    ) -> bool:
        """Add correction `n` (one more than the last), so that the request's rows add up to `truth` at `price`.

        False where they do already, or where this very correction is there: so it may be asked for again. Raises
        NotFound for a request that the org does not have, Conflict where another correction came first, or
        `store.engine.DATABASE_ERRORS`.
        """

        async def run() -> bool:
            async with self._engine.begin() as conn:
                heads = await lock_heads(conn, [org_id])
                rows = (await rows_of_requests(conn, [request_id])).get(request_id, [])
                if not heads or not rows or rows[0].org_id != org_id:
                    raise NotFound("there is no such request, or its rows were dropped")
                if any((row.n, row.reason, row.actor) == (n, reason, actor) for row in rows):
                    return False
                if is_given_away(rows):
                    charged = next(row.repeat_of for row in rows if row.repeat_of is not None)
                    raise Conflict(f"it costs nothing: {charged} is charged for its idempotency key; correct that one")
                if rows[-1].n + 1 != n:
                    raise Conflict(f"the request has {rows[-1].n} corrections by now; read it again")
                wanted = restated(rows[0], truth, price, evidence, microseconds(self._clock.now()))
                row = correction(rows, wanted, reason, actor)
                if row is None:
                    return False
                head, placed = append(heads[org_id], [row])
                await add_rows(conn, placed)
                await move_heads(conn, [head])
                return True

        return await self._in_whole(run())

    async def _insert(self, drafts: list[LedgerRow], ttl_s: dict[str, int]) -> int:
        org_ids = sorted({row.org_id for row in drafts})
        missing = [org_id for org_id in org_ids if org_id not in self._begun]
        if missing:
            # In a transaction of its own, so that nobody holds a head that others make while waiting for another.
            async with self._engine.begin() as conn:
                await make_heads(conn, missing)
            reach("ledger.heads_made")
            self._begun.update(missing)
        async with self._engine.begin() as conn:
            heads = await lock_heads(conn, org_ids)
            reach("ledger.heads_locked")
            if len(heads) < len(org_ids):  # another database than before, a restored one
                self._begun.clear()
                raise ConnectionResetError("the ledger lost the heads of its logs; try again")
            by_org: dict[str, list[LedgerRow]] = defaultdict(list)
            for row in await self._new_rows(conn, drafts, ttl_s):
                by_org[row.org_id].append(row)
            moved: list[LedgerHead] = []
            added: list[LedgerRow] = []
            for org_id in sorted(by_org):
                head, placed = append(heads[org_id], by_org[org_id])
                moved.append(head)
                added += placed
            await add_rows(conn, added)
            reach("ledger.rows_added")
            await move_heads(conn, moved)
            reach("ledger.before_commit")
        reach("ledger.committed")
        if self._on_added is not None:
            self._on_added(added)
        return len(added)

    async def _new_rows(self, conn: AsyncConnection, drafts: list[LedgerRow], ttl_s: dict[str, int]) -> list[LedgerRow]:
        """Those that the ledger does not have, and corrections of those that it has without knowing better."""
        known = await known_outcomes(conn, [row.request_id for row in drafts])
        late = [row for row in drafts if row.request_id in known and supersedes(row, known[row.request_id])]
        before = await rows_of_requests(conn, [row.request_id for row in late]) if late else {}
        new = [row for row in drafts if row.request_id not in known]
        new += [row for row in late if row.request_id not in before]
        rows = await self._in_time(conn, new)
        found = (
            correction(before[row.request_id], row, LATE, BY_ITSELF)
            for row in late
            if row.request_id in before and not is_given_away(before[row.request_id])
        )
        corrections = [row for row in found if row is not None]
        keyed = [row for row in rows if row.request_id in ttl_s]
        if not keyed:
            return rows + corrections
        return with_keys_settled(rows, corrections, await rows_of_keys(conn, keyed, max(ttl_s.values())), ttl_s)

    async def _in_time(self, conn: AsyncConnection, rows: list[LedgerRow]) -> list[LedgerRow]:
        """Without those of a time that was dropped: it may have had them, so they are set aside for people to judge.

        Asked after what is known: whoever removes rows has said so, in an earlier transaction.
        """
        starts = await log_starts(conn, sorted({row.org_id for row in rows}))
        if not starts:
            return rows
        too_late = [row for row in rows if row.org_id in starts and is_before(row, starts[row.org_id].cutoff)]
        if too_late:
            _log.warning("%d usage records are of a time whose rows were dropped; they are set aside", len(too_late))
            await set_aside(conn, too_late)
        gone = {row.request_id for row in too_late}
        return [row for row in rows if row.request_id not in gone]

    async def _in_whole(self, running: Coroutine[Any, Any, _T]) -> _T:
        if self._engine.dialect.name != "sqlite":
            return await running
        # Cancelled in the middle of a transaction, SQLite's driver keeps the write lock until the garbage collector
        # finds the statement. So the transaction, which is short, is ended first.
        task = asyncio.create_task(running)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.gather(task, return_exceptions=True)
            raise
