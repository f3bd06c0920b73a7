"""What a call would cost, what one did cost and why, and what the month comes to; nothing here changes anything."""

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges import sql
from crosslogic.billing.charges.batch import rate_batch
from crosslogic.billing.charges.estimate import Advice, Estimate, advice, elsewhere_pusd, estimate
from crosslogic.billing.charges.fees import month_with
from crosslogic.billing.charges.model import Charge
from crosslogic.billing.charges.own_terms import ConfiguredPlans, current_terms
from crosslogic.billing.charges.rows import to_charge
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.charges.tariff import RatedUsage
from crosslogic.billing.charges.terms import OrgTerms
from crosslogic.billing.credits.draw import standing
from crosslogic.billing.credits.model import Draw, Grant
from crosslogic.billing.credits.rows import to_draw
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import InvalidRequest, NotFound
from crosslogic.kernel.ids import EnvId, KeyId, OrgId, RequestId
from crosslogic.pricing.book import PriceBook
from crosslogic.pricing.sql import PriceShelf
from crosslogic.pricing.versions import USD, PriceHistory
from crosslogic.store.engine import reading
from crosslogic.store.tables import charges, credit_draws
from crosslogic.tenancy.writing import check_ref


class Asked(msgspec.Struct, frozen=True):
    """A call that is not made yet."""

    model: str
    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0
    region: str = ""
    endpoint: str = "chat/completions"


class Quote(msgspec.Struct, frozen=True):
    """What a call would cost now: `due` is what credits do not pay."""

    charge: Charge
    due: int


class Receipt(msgspec.Struct, frozen=True):
    """A request with all that it was charged, corrections included, and what credits paid of it."""

    charges: tuple[Charge, ...]
    draws: tuple[Draw, ...]

    @property
    def amount(self) -> int:
        return sum(each.amount for each in self.charges)

    @property
    def drawn(self) -> int:
        return sum(each.amount for each in self.draws)


class MonthEstimate(msgspec.Struct, frozen=True):
    currency: str
    estimate: Estimate
    credits_left: int
    free_tokens_per_month: int
    free_tokens_used: int
    elsewhere: int | None  # by the reference price list, for the month to date; None where it does not know the models
    elsewhere_by: str | None  # which list that is
    advice: Advice | None
    rated_up_to: int  # position in the ledger


class _Snapshot(msgspec.Struct, frozen=True):
    seq: int
    state: RatingState
    terms: OrgTerms
    history: PriceHistory
    grants: list[Grant]


class Inquiries:
    """Raises NotFound, also for what is another org's, and InvalidRequest."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        *,
        configured_plans: ConfiguredPlans = tuple,
        free_tokens_per_month: int = 0,
        price_version: Callable[[], str | None] = lambda: None,
        reference: PriceBook | None = None,
        reference_name: str | None = None,
    ) -> None:
        """`price_version` is that of the configuration's price list, `reference` one to compare with."""
        self._engine = engine
        self._clock = clock
        self._configured_plans = configured_plans
        self._free_tokens_per_month = free_tokens_per_month
        self._price_version = price_version
        self._reference = reference
        self._reference_name = reference_name
        self._shelf = PriceShelf()

    async def quote(self, org_id: OrgId, asked: Asked) -> Quote:
        """By what is rated so far: calls that are under way may use up allowances before it."""
        if not 0 <= asked.cached_tokens <= asked.prompt_tokens:
            raise InvalidRequest("cached tokens are a part of the prompt tokens", param="cached_tokens")
        async with reading(self._engine) as conn:
            now = await self._snapshot(conn, org_id)
        usage = RatedUsage(
            org_id=org_id,
            seq=now.seq + 1,
            request_id=RequestId("quote"),
            n=0,
            at=self._clock.now(),
            env_id=EnvId(""),
            key_id=KeyId(""),
            endpoint=asked.endpoint,
            model=asked.model,
            region=asked.region,
            prompt_tokens=asked.prompt_tokens,
            cached_tokens=asked.cached_tokens,
            completion_tokens=asked.completion_tokens,
            price_version=self._price_version(),
        )
        rated = rate_batch([usage], now.history, [(0, now.terms)], now.grants, now.state)
        (charge,) = rated.charges
        return Quote(charge, charge.amount - sum(each.amount for each in rated.draws))

    async def receipt(self, org_id: OrgId, request_id: str) -> Receipt:
        check_ref(request_id, "request")
        query = select(charges).where(charges.c.request_id == request_id, charges.c.org_id == org_id)
        async with reading(self._engine) as conn:
            found = [to_charge(row) for row in (await conn.execute(query.order_by(charges.c.n))).mappings()]
            if not found:
                raise NotFound("there is no such request, or it is not rated yet")
            drawn = select(credit_draws).where(
                credit_draws.c.org_id == org_id, credit_draws.c.seq.in_([each.seq for each in found])
            )
            rows = (await conn.execute(drawn.order_by(credit_draws.c.seq, credit_draws.c.grant_id))).mappings()
            return Receipt(tuple(found), tuple(to_draw(row) for row in rows))

    async def estimate(self, org_id: OrgId) -> MonthEstimate:
        now = self._clock.now()
        async with reading(self._engine) as conn:
            found = await self._snapshot(conn, org_id)
        month, state = month_with(now).name, found.state
        spent = estimate(state.spent, now)
        left = [standing(each, state.drawn.get(each.id, 0), now) for each in found.grants]
        return MonthEstimate(
            currency=found.terms.currency,
            estimate=spent,
            credits_left=sum(each.remaining for each in left if each.grant.starts_at <= now),
            free_tokens_per_month=found.terms.free_tokens_per_month,
            free_tokens_used=state.free_used.get(month, 0),
            elsewhere=self._elsewhere(found, month, now),
            elsewhere_by=self._reference_name,
            advice=self._advice(org_id, found, spent, now),
            rated_up_to=found.seq,
        )

    def _elsewhere(self, found: _Snapshot, month: str, now: datetime) -> int | None:
        if self._reference is None:
            return None
        pusd = elsewhere_pusd(found.state.quantities.get(month, {}), self._reference)
        if pusd is None or found.terms.currency == USD:
            return pusd
        return int(pusd * found.history.rate(found.terms.currency, now))

    def _advice(self, org_id: str, found: _Snapshot, spent: Estimate, now: datetime) -> Advice | None:
        if found.terms.commitment is not None and found.terms.commitment.in_force(now):
            return None
        points = next(
            (each.card.commitment_points for each in found.history.at(org_id, now) if each.card.commitment_points), 0
        )
        months: Sequence[int] = [each for each in (spent.last_month, spent.projected_month) if each]
        return advice(list(months), points)

    async def _snapshot(self, conn: AsyncConnection, org_id: OrgId) -> _Snapshot:
        seq, state = await sql.cursor(conn, org_id)
        now = self._clock.now()
        terms = await current_terms(conn, org_id, self._configured_plans, self._free_tokens_per_month, now)
        return _Snapshot(seq, state, terms, await self._shelf.history(conn), await sql.grants(conn, org_id))
