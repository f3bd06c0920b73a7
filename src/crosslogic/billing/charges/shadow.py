"""Shadow rating: what past usage would have cost by other prices. For whoever is about to publish them.

Each org's usage of the period is rated twice from the beginning of the period, by the prices that were in force and by
those and the draft before them; on the terms that the org was rated on, without credits. Invariant: nothing is written.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges import sql
from crosslogic.billing.charges.batch import terms_at
from crosslogic.billing.charges.model import Charge
from crosslogic.billing.charges.rate import rate
from crosslogic.billing.charges.rows import to_charge
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.charges.tariff import PLAN_VERSION, RatedUsage
from crosslogic.billing.charges.terms import OrgTerms
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.pricing.sql import PriceShelf
from crosslogic.pricing.versions import PriceHistory, PriceVersion, VersionStatus
from crosslogic.store.engine import reading
from crosslogic.store.tables import charges

MOST_REQUESTS = 20_000  # of one comparison
_PAGE = 200
_SHOWN = 20  # requests that change most


class Compared(msgspec.Struct):
    """Pico-units, before credits."""

    requests: int = 0
    before: int = 0
    after: int = 0

    def add(self, before: int, after: int) -> None:
        self.requests += 1
        self.before += before
        self.after += after


class RequestChange(msgspec.Struct, frozen=True):
    request_id: str
    org_id: str
    model: str
    currency: str
    before: int
    after: int


class Comparison(msgspec.Struct):
    """By currency, for sums of different ones mean nothing."""

    starts_at: datetime
    ends_at: datetime
    whole: bool = True  # False: there were more than `MOST_REQUESTS`; the rest is not in it
    changed: int = 0  # requests that would cost something else
    totals: dict[str, Compared] = {}
    by_org: dict[str, Compared] = {}
    by_model: dict[str, Compared] = {}
    largest: list[RequestChange] = []


class ShadowRating:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._shelf = PriceShelf()

    async def compare(
        self, draft: PriceVersion, starts_at: datetime, ends_at: datetime, *, org_id: str | None = None
    ) -> Comparison:
        """Usage with starts_at ≤ time < ends_at, of the orgs that the draft is for. Raises InvalidRequest."""
        if ends_at <= starts_at:
            raise InvalidRequest("the period ends before it begins", param="to")
        if draft.org_id is not None:
            org_id = draft.org_id
        async with reading(self._engine) as conn:
            history = await self._shelf.history(conn)
        holding = {"status": VersionStatus.PUBLISHED, "effective_from": starts_at, "retired_from": None}
        tried = history.with_version(msgspec.structs.replace(draft, **holding))
        result = Comparison(starts_at, ends_at)
        left = MOST_REQUESTS
        for one in await self._orgs(starts_at, ends_at, org_id):
            left -= await self._org(result, one, history, tried, left)
            if not result.whole:
                break
        result.largest = sorted(result.largest, key=_difference, reverse=True)[:_SHOWN]
        return result

    async def _orgs(self, starts_at: datetime, ends_at: datetime, org_id: str | None) -> list[str]:
        query = select(charges.c.org_id).distinct().where(charges.c.at >= starts_at, charges.c.at < ends_at)
        if org_id is not None:
            query = query.where(charges.c.org_id == org_id)
        async with reading(self._engine) as conn:
            return list((await conn.execute(query.order_by(charges.c.org_id))).scalars())

    async def _org(self, result: Comparison, org_id: str, history: PriceHistory, tried: PriceHistory, left: int) -> int:
        old, new, seen = RatingState(), RatingState(), 0
        async with reading(self._engine) as conn:
            terms = await sql.terms(conn, org_id)
            async for charge in self._net(conn, org_id, result.starts_at, result.ends_at):
                if seen == left:
                    result.whole = False
                    break
                seen += 1
                before = _rated(charge, history, terms, old)
                after = _rated(charge, tried, terms, new)
                _note(result, charge, before, after)
        return seen

    async def _net(
        self, conn: AsyncConnection, org_id: str, starts_at: datetime, ends_at: datetime
    ) -> AsyncIterator[Charge]:
        """The org's requests in order, each with its corrections added to it."""
        c, after = charges.c, 0
        while True:
            query = select(charges).where(c.org_id == org_id, c.seq > after, c.at >= starts_at, c.at < ends_at)
            page = [to_charge(row) for row in (await conn.execute(query.order_by(c.seq).limit(_PAGE))).mappings()]
            if not page:
                return
            after = page[-1].seq
            ids = [each.request_id for each in page if each.n == 0]
            query = select(charges).where(c.request_id.in_(ids), c.org_id == org_id, c.n > 0).order_by(c.n)
            corrections: dict[str, list[Charge]] = {}
            for row in (await conn.execute(query)).mappings():
                corrections.setdefault(row["request_id"], []).append(to_charge(row))
            for each in page:
                if each.n == 0:
                    yield _added([each, *corrections.get(each.request_id, ())])
            await asyncio.sleep(0)


def _added(parts: list[Charge]) -> Charge:
    return msgspec.structs.replace(
        parts[0],
        prompt_tokens=sum(each.prompt_tokens for each in parts),
        cached_tokens=sum(each.cached_tokens for each in parts),
        completion_tokens=sum(each.completion_tokens for each in parts),
        amount=sum(each.amount for each in parts),
    )


def _rated(charge: Charge, history: PriceHistory, terms: list[tuple[int, OrgTerms]], state: RatingState) -> int:
    if charge.price_version == PLAN_VERSION or charge.terms.note == "answered from the cache":
        return charge.amount  # no price list says what it costs
    usage = RatedUsage(
        org_id=charge.org_id,
        seq=charge.seq,
        request_id=charge.request_id,
        n=0,
        at=charge.at,
        env_id=charge.env_id,
        key_id=charge.key_id,
        endpoint=charge.endpoint,
        model=charge.model,
        region=charge.region,
        prompt_tokens=charge.prompt_tokens,
        cached_tokens=charge.cached_tokens,
        completion_tokens=charge.completion_tokens,
        price_version=charge.price_version,
    )
    return rate(usage, history, terms_at(terms, charge.seq), state).amount


def _note(result: Comparison, charge: Charge, before: int, after: int) -> None:
    currency = charge.currency
    for sums, name in (
        (result.totals, currency),
        (result.by_org, f"{charge.org_id} {currency}"),
        (result.by_model, f"{charge.model} {currency}"),
    ):
        sums.setdefault(name, Compared()).add(before, after)
    if before != after:
        result.changed += 1
        result.largest.append(RequestChange(charge.request_id, charge.org_id, charge.model, currency, before, after))
        if len(result.largest) > 50 * _SHOWN:
            result.largest = sorted(result.largest, key=_difference, reverse=True)[:_SHOWN]


def _difference(change: RequestChange) -> int:
    return abs(change.after - change.before)
