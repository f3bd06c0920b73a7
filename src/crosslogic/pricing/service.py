"""What operators may do with prices: draft, look at, change, publish, retire; and say what currencies are worth.

Invariants: what cannot be charged to the last pico-unit is refused when it is drafted; a version that is published
changes no more, and neither publishing nor retiring reaches back to usage that is rated; all of it stands in the audit
log.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec
from sqlalchemy import RowMapping, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import new_id
from crosslogic.pricing.card import PriceCard, check_rate
from crosslogic.pricing.sql import hold_prices, terms_text, to_rate, to_version, version_columns
from crosslogic.pricing.terms import PriceTerms
from crosslogic.pricing.versions import USD, ExchangeRate, PriceVersion, VersionSource, VersionStatus
from crosslogic.store.engine import reading
from crosslogic.store.tables import charges, exchange_rates, orgs, price_versions
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.writing import Writer, check_ref, locked

_WORD = "price"


class PricesService:
    """Raises InvalidRequest, NotFound and Conflict."""

    def __init__(self, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, actor: Actor = SYSTEM) -> None:
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._rows = Writer(engine, AuditTrail(actor, hash_key, clock))

    def acting_as(self, actor: Actor) -> "PricesService":
        """The same service; what it changes is written down as done by `actor`."""
        return PricesService(self._engine, self._hash_key, self._clock, actor)

    async def draft(
        self, terms: PriceTerms, *, currency: str = USD, org_id: str | None = None, note: str = ""
    ) -> PriceVersion:
        """Write down a version that holds for nobody yet. One in another currency is for an org."""
        check_currency(currency)
        if currency != USD and org_id is None:
            raise InvalidRequest("prices for all are in USD; name an org for another currency", param="currency")
        PriceCard(terms, currency)
        version = PriceVersion(
            id=new_id("price"),
            org_id=org_id,
            status=VersionStatus.DRAFT,
            source=VersionSource.OPERATOR,
            currency=currency,
            terms=terms,
            note=note,
            created_at=self._clock.now(),
        )
        async with self._engine.begin() as conn:
            if org_id is not None and await conn.scalar(select(orgs.c.id).where(orgs.c.id == org_id)) is None:
                raise NotFound("there is no such org")
            await self._rows.add_in(conn, price_versions, version_columns(version), _WORD)
        return version

    async def change(self, version_id: str, terms: PriceTerms, *, note: str | None = None) -> PriceVersion:
        """Of a draft. Raises Conflict for any other."""
        async with self._engine.begin() as conn:
            before = await self._locked_in(conn, version_id)
            version = to_version(before)
            if version.status is not VersionStatus.DRAFT:
                raise Conflict(f"this version is {version.status.value}, and stays as it is; draft another")
            PriceCard(terms, version.currency)
            values = {"terms": terms_text(terms), "note": version.note if note is None else note}
            return to_version(await self._rows.change_in(conn, price_versions, before, values, _WORD))

    async def publish(self, version_id: str, *, effective_from: datetime | None = None) -> PriceVersion:
        """Let it hold from now or a later time on; harmless to repeat with the same time."""
        async with self._engine.begin() as conn:
            await hold_prices(conn, alone=True)
            before = await self._locked_in(conn, version_id)
            version, now = to_version(before), self._clock.now()
            if version.status is not VersionStatus.DRAFT:
                if version.status is VersionStatus.PUBLISHED and effective_from in (None, version.effective_from):
                    return version
                raise Conflict(f"this version is {version.status.value} already; draft another")
            start = now if effective_from is None else effective_from
            if start < now:
                raise InvalidRequest("prices hold from now on or later: they never reach back", param="effective_from")
            PriceCard(version.terms, version.currency)
            await self._check_unrated(conn, version, start)
            values = {"status": VersionStatus.PUBLISHED.value, "published_at": now, "effective_from": start}
            return to_version(await self._rows.change_in(conn, price_versions, before, values, _WORD, "publish"))

    async def retire(self, version_id: str, *, retired_from: datetime | None = None) -> PriceVersion:
        """Let it hold no more from now or a later time on: what held before it was published holds again."""
        async with self._engine.begin() as conn:
            await hold_prices(conn, alone=True)
            before = await self._locked_in(conn, version_id)
            version, now = to_version(before), self._clock.now()
            if version.status is VersionStatus.RETIRED and retired_from in (None, version.retired_from):
                return version
            if version.status is not VersionStatus.PUBLISHED or version.effective_from is None:
                raise Conflict(f"this version is {version.status.value}: only a published one can be retired")
            end = max(now, version.effective_from) if retired_from is None else retired_from
            if end < now or end < version.effective_from:
                raise InvalidRequest("prices are retired from now on or later", param="retired_from")
            await self._check_unrated(conn, version, end)
            values = {"status": VersionStatus.RETIRED.value, "retired_from": end}
            return to_version(await self._rows.change_in(conn, price_versions, before, values, _WORD, "retire"))

    async def version(self, version_id: str) -> PriceVersion:
        check_ref(version_id, _WORD)
        return to_version(await self._rows.one(select(price_versions).where(price_versions.c.id == version_id), _WORD))

    async def versions(
        self,
        *,
        org_id: str | None = None,
        status: VersionStatus | None = None,
        holding_at: datetime | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[PriceVersion]:
        """In order of id, which is order of creation. Of `org_id`: its own and those for all."""
        columns = price_versions.c
        query = select(price_versions).where(columns.source == VersionSource.OPERATOR.value)
        if org_id is not None:
            query = query.where(or_(columns.org_id == org_id, columns.org_id.is_(None)))
        if status is not None:
            query = query.where(columns.status == status.value)
        if after is not None:
            query = query.where(columns.id > after)
        if holding_at is not None:
            ended = or_(columns.retired_from.is_(None), columns.retired_from > holding_at)
            query = query.where(columns.effective_from <= holding_at, ended)
        return [to_version(row) for row in await self._rows.all(query.order_by(columns.id).limit(limit))]

    async def set_rate(
        self, currency: str, rate: Decimal, *, effective_from: datetime | None = None, source: str = ""
    ) -> ExchangeRate:
        """Units of `currency` for one US dollar, from now or a later time on. Raises Conflict where one begins then."""
        check_currency(currency)
        if currency == USD:
            raise InvalidRequest("one US dollar is one US dollar", param="currency")
        now = self._clock.now()
        start = now if effective_from is None else effective_from
        if start < now:
            raise InvalidRequest("a rate holds from now on or later: it never reaches back", param="effective_from")
        made = ExchangeRate(currency, start, check_rate(rate), source, now)
        try:
            async with self._engine.begin() as conn:
                await hold_prices(conn, alone=True)
                rated = select(charges.c.seq).where(charges.c.currency == currency, charges.c.at >= start).limit(1)
                if await conn.scalar(rated) is not None:
                    raise Conflict("usage from then on is rated already; choose a later time")
                await conn.execute(insert(exchange_rates).values({**msgspec.structs.asdict(made), "rate": f"{rate:f}"}))
                after = {"id": currency, "effective_from": start, "rate": f"{rate:f}", "source": source}
                await self._rows.announce(conn, "exchange_rate.set", "exchange_rate", before=None, after=after)
        except IntegrityError:
            raise Conflict("a rate begins at that very time already") from None
        return made

    async def rates(
        self, currency: str | None = None, *, before: datetime | None = None, limit: int = 100
    ) -> Sequence[ExchangeRate]:
        """Newest first. Rates of several currencies that begin in one instant may be parted by the end of a page."""
        query = select(exchange_rates).order_by(exchange_rates.c.effective_from.desc(), exchange_rates.c.currency)
        if currency is not None:
            query = query.where(exchange_rates.c.currency == currency)
        if before is not None:
            query = query.where(exchange_rates.c.effective_from < before)
        async with reading(self._engine) as conn:
            return [to_rate(row) for row in (await conn.execute(query.limit(limit))).mappings()]

    async def _locked_in(self, conn: AsyncConnection, version_id: str) -> RowMapping:
        check_ref(version_id, _WORD)
        row = await locked(conn, price_versions, version_id, _WORD)
        if row["source"] != VersionSource.OPERATOR.value:
            raise Conflict("this is the configuration's price list: change it there")
        return row

    async def _check_unrated(self, conn: AsyncConnection, version: PriceVersion, start: datetime) -> None:
        """A clock that runs ahead may have brought usage of a time that has not come."""
        query = select(charges.c.seq).where(charges.c.at >= start).limit(1)
        if version.org_id is not None:
            query = query.where(charges.c.org_id == version.org_id)
        if await conn.scalar(query) is not None:
            raise Conflict("usage from then on is rated already; choose a later time")


def check_currency(currency: str) -> None:
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        raise InvalidRequest(f"{currency!r} is no currency; write three capital letters such as INR", param="currency")
