"""Rates what has come into the ledger: for each org in its order, one writer at a time.

Invariant: charges, draws and the cursor commit together, so a kill at any line leaves each row of the ledger charged
once or not yet; and all of it can be computed again from the ledger, to the last byte (`rebuild`).
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges import sql
from crosslogic.billing.charges.batch import rate_batch
from crosslogic.billing.charges.model import Charge
from crosslogic.billing.charges.own_terms import ConfiguredPlans, current_terms
from crosslogic.billing.charges.rows import canonical, to_charge
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.charges.terms import OrgTerms
from crosslogic.billing.credits.model import Draw
from crosslogic.billing.credits.rows import to_draw
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import LogStart
from crosslogic.pricing.book import PriceList
from crosslogic.pricing.sql import PriceShelf, hold_prices, version_columns
from crosslogic.pricing.terms import terms_of
from crosslogic.pricing.versions import USD, PriceVersion, VersionSource, VersionStatus
from crosslogic.store.engine import reading
from crosslogic.store.tables import charges, credit_draws, price_versions

BATCH_ROWS = 200  # some 10 ms of work: in the embedded cloud requests wait for it
_ORGS = 500

_log = logging.getLogger(__name__)


class Rebuilt(msgspec.Struct, frozen=True):
    """What came of rating an org again from the beginning. `wrong_seq` is the first charge that is not as it was."""

    org_id: str
    rows: int
    wrong_seq: int | None = None


class RatingService:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        *,
        configured_plans: ConfiguredPlans = tuple,
        free_tokens_per_month: int = 0,
        price_list: Callable[[], tuple[str, PriceList]] | None = None,
    ) -> None:
        """`price_list` is the configuration's, with the version by which the ledger names it."""
        self._engine = engine
        self._clock = clock
        self._configured_plans = configured_plans
        self._free_tokens_per_month = free_tokens_per_month
        self._price_list = price_list
        self._ledger = LedgerReader(engine)
        self._shelf = PriceShelf()
        self._kept: str | None = None  # the version of the configuration's list that is known to be in the database

    async def round(self) -> int:
        """Rate all that there is; returns how many rows were rated."""
        await self._keep_price_list()
        rated, after = 0, ""
        while True:
            heads = await self._ledger.heads(after_org=after, limit=_ORGS)
            if not heads:
                return rated
            after = heads[-1].org_id
            async with reading(self._engine) as conn:
                reached = await sql.cursors(conn, [head.org_id for head in heads])
            for head in heads:
                if head.seq > reached.get(head.org_id, 0):
                    rated += await self.rate_org(head.org_id)

    async def rate_org(self, org_id: str) -> int:
        """Rate what an org has used since it was rated last; returns how many rows that were."""
        await self._keep_price_list()  # whoever calls: what is rated without it would be rated otherwise ever after
        rated = 0
        while (done := await self._rate_batch(org_id)) > 0:
            reach("rating.committed")
            rated += done
            await asyncio.sleep(0)
        return rated

    async def _rate_batch(self, org_id: str) -> int:
        async with self._engine.begin() as conn:
            await sql.hold_org(conn, org_id)
            await hold_prices(conn, alone=False)
            reached, state = await sql.cursor(conn, org_id)
            found = await self._ledger.rows_after(org_id, reached, limit=BATCH_ROWS, conn=conn)
            rows = [sql.usage_of(row) for row in found]
            if not rows:
                return 0
            terms = await self._terms(conn, org_id, reached)
            rated = rate_batch(
                rows,
                await self._shelf.history(conn),
                terms,
                await sql.grants(conn, org_id),
                state,
                await sql.before(conn, org_id, rows),
            )
            reach("rating.held")
            await sql.add(conn, org_id, rows[-1].seq, rated, is_first=reached == 0)
            reach("rating.charges_added")
            return len(rows)

    async def rebuild(self, org_id: str) -> Rebuilt:
        """Rate an org again from the beginning of its log, and compare with what it was charged; writes nothing."""
        async with reading(self._engine) as conn:
            last, kept_state = await sql.cursor(conn, org_id)
            start = await self._ledger.start(org_id, conn=conn)
        rebuilt, state = await self.replay(start, last)
        if rebuilt.wrong_seq is None and canonical(state) != canonical(kept_state):
            return Rebuilt(org_id, rebuilt.rows, last)
        return rebuilt

    async def is_rated(self, org_id: str) -> bool:
        """Whether anything of an org ever was."""
        async with reading(self._engine) as conn:
            return (await sql.cursor(conn, org_id))[0] > 0

    async def replay(self, start: LogStart, until: int) -> tuple[Rebuilt, RatingState]:
        """Rate the rows from the beginning of a log up to a position again; also what rating remembers behind them."""
        org_id, seq = start.org_id, start.seq
        kept = start.rating_state
        state = RatingState() if kept is None else msgspec.json.decode(kept, type=RatingState)
        async with reading(self._engine) as conn:
            terms, granted = await sql.terms(conn, org_id), await sql.grants(conn, org_id)
            history = await self._shelf.history(conn)
        while seq < until:
            found = await self._ledger.rows_after(org_id, seq, limit=min(BATCH_ROWS, until - seq))
            rows = [sql.usage_of(row) for row in found]
            if not rows:
                return Rebuilt(org_id, seq, seq + 1), state  # the ledger ends before the charges do
            async with reading(self._engine) as conn:
                known = await sql.before(conn, org_id, rows)
                known = {
                    request_id: msgspec.structs.replace(
                        each,
                        charges=tuple(one for one in each.charges if one.seq <= seq),
                        draws=tuple(one for one in each.draws if one.seq <= seq),
                    )
                    for request_id, each in known.items()
                }
                rated = rate_batch(rows, history, terms, granted, state, known)
                wrong = await self._first_difference(conn, org_id, seq, rows[-1].seq, rated.charges, rated.draws)
            if wrong is not None:
                return Rebuilt(org_id, seq, wrong), state
            seq, state = rows[-1].seq, rated.state
            await asyncio.sleep(0)
        return Rebuilt(org_id, seq), state

    async def _first_difference(
        self,
        conn: AsyncConnection,
        org_id: str,
        after: int,
        until: int,
        made: list[Charge],
        drawn: list[Draw],
    ) -> int | None:
        """Where stored charges and draws with after < seq ≤ until differ from these."""
        by_seq: dict[int, list[str]] = {}
        for seq, text in [(one.seq, canonical(one)) for one in made] + [(one.seq, canonical(one)) for one in drawn]:
            by_seq.setdefault(seq, []).append(text)
        c, d = charges.c, credit_draws.c
        stored: dict[int, list[str]] = {}
        rows = await conn.execute(select(charges).where(c.org_id == org_id, c.seq > after, c.seq <= until))
        for row in rows.mappings():
            stored.setdefault(row["seq"], []).append(canonical(to_charge({**row, "invoice_id": None})))
        rows = await conn.execute(select(credit_draws).where(d.org_id == org_id, d.seq > after, d.seq <= until))
        for row in rows.mappings():
            stored.setdefault(row["seq"], []).append(canonical(to_draw(row)))
        seqs = sorted({*by_seq, *stored})
        return next((s for s in seqs if sorted(by_seq.get(s, [])) != sorted(stored.get(s, []))), None)

    async def _terms(self, conn: AsyncConnection, org_id: str, reached: int) -> list[tuple[int, OrgTerms]]:
        """Those that were noted down, and what has changed since."""
        terms = await sql.terms(conn, org_id)
        now = self._clock.now()
        own = await current_terms(conn, org_id, self._configured_plans, self._free_tokens_per_month, now)
        if not terms or canonical(terms[-1][1]) != canonical(own):
            await sql.add_terms(conn, org_id, reached, own)
            terms.append((reached, own))
        return terms

    async def _keep_price_list(self) -> None:
        """So that what the ledger priced by the configuration's list can be explained, whatever it says later."""
        if self._price_list is None:
            return
        version_id, price_list = self._price_list()
        if version_id == self._kept:
            return
        now = self._clock.now()
        kept = PriceVersion(
            id=version_id,
            org_id=None,
            status=VersionStatus.PUBLISHED,
            source=VersionSource.CONFIGURATION,
            currency=USD,
            terms=terms_of(price_list),
            note="the configuration's price list",
            created_at=now,
            published_at=now,
        )
        known = select(price_versions.c.id).where(price_versions.c.id == version_id)
        try:
            async with self._engine.begin() as conn:
                await hold_prices(conn, alone=True)
                if await conn.scalar(known) is None:
                    await conn.execute(insert(price_versions).values(version_columns(kept)))
        except IntegrityError:
            _log.debug("another process has kept %s", version_id)
        self._kept = version_id
