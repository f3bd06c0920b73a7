"""From a row of the ledger to what it costs, line by line. Pure but for `state`, which it moves on.

Tokens are placed in the order input, cached, output, and each takes the first place that has room: reserved capacity,
then the free tokens of the month, then the price list with its graduated discount. Invariants: exact integers all the
way; more usage never lowers what an org owes; a request costs the same in one piece or cut in two; and a correction
gives back what its request was charged, never more.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from crosslogic.billing.charges.model import Basis, Charge, ChargeLine, ChargeTerms, Item, Reduction
from crosslogic.billing.charges.returns import taken_back
from crosslogic.billing.charges.state import RatingState, hour_of, month_of
from crosslogic.billing.charges.tariff import RatedUsage, Tariff, tariff
from crosslogic.billing.charges.terms import OrgTerms
from crosslogic.pricing.card import VolumeStep, discount_until, token_units, volume_discount
from crosslogic.pricing.terms import Counted
from crosslogic.pricing.versions import PriceHistory

_WHOLE = 10_000
_HOUR_S = 3600
_TOKENS = (Item.INPUT, Item.CACHED, Item.OUTPUT)


def rate(
    usage: RatedUsage, history: PriceHistory, terms: OrgTerms, state: RatingState, earlier: Sequence[Charge] = ()
) -> Charge:
    """The charge of the row that comes next. `earlier` are those of the same request, where it is a correction."""
    if earlier:  # a correction counts where its original does, and by its prices
        first = earlier[0]
        usage = msgspec.structs.replace(usage, at=first.at, price_version=first.price_version or usage.price_version)
    state.enter(usage.at)
    before = next((line.unit_price for charge in earlier for line in charge.terms.lines), None)
    return _Rating(usage, tariff(usage, history, terms, before), terms, state, earlier).charge()


class _Rating:
    """One row while it is rated."""

    def __init__(
        self, usage: RatedUsage, prices: Tariff, terms: OrgTerms, state: RatingState, earlier: Sequence[Charge]
    ) -> None:
        self._usage = usage
        self._prices = prices
        self._terms = terms
        self._state = state
        self._earlier = earlier
        self._month = month_of(usage.at)
        committed = terms.commitment is not None and terms.commitment.in_force(usage.at)
        card = prices.card
        self._discounts = [] if card is None else card.discounts(usage.endpoint, terms.plan, committed=committed)
        self._counted = None if card is None else card.counted
        self._steps = () if card is None else card.steps
        if self._counted is Counted.SPEND:
            self._steps = self._placed_steps()

    def charge(self) -> Charge:
        usage, prices = self._usage, self._prices
        lines: list[ChargeLine] = []
        if usage.repeat_of is not None:
            lines += self._all_returned()
        elif not (prices.unpriced or usage.answered_from_cache):
            for item, quantity in self._quantities():
                lines += self._placed(item, quantity) if quantity > 0 else self._returned(item, -quantity)
        listed = sum(line.list_amount for line in lines)
        discounted = sum(line.discount_amount for line in lines)
        return Charge(
            org_id=usage.org_id,
            seq=usage.seq,
            request_id=usage.request_id,
            n=usage.n,
            at=usage.at,
            env_id=usage.env_id,
            key_id=usage.key_id,
            endpoint=usage.endpoint,
            model=usage.model,
            region=usage.region,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            currency=self._terms.currency,
            list_amount=listed,
            discount_amount=discounted,
            amount=listed - discounted,
            price_version=prices.version_id or None,
            terms=self._explained(tuple(lines)),
        )

    def _explained(self, lines: tuple[ChargeLine, ...]) -> ChargeTerms:
        prices, note = self._prices, None
        if self._usage.repeat_of is not None:
            note = f"{self._usage.repeat_of} is charged for its idempotency key"
        elif prices.unpriced:
            note = "no price is known for this model"
        elif self._usage.answered_from_cache:
            note = "answered from the cache"
        converted = prices.exchange_rate != 1
        return ChargeTerms(
            lines,
            price_pattern=prices.units.pattern or None,
            region_multiplier=None if prices.units.multiplier == 1 else str(prices.units.multiplier),
            exchange_rate=f"{prices.exchange_rate.normalize():f}" if converted else None,
            plan=self._terms.plan or None,
            note=note,
        )

    def _quantities(self) -> Iterable[tuple[Item, int]]:
        """What is paid for; below zero where a correction takes back."""
        usage = self._usage
        prompt, cached, output = usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
        if usage.n == 0:
            prompt, output = max(prompt, 0), max(output, 0)
            cached = min(max(cached, 0), prompt)
            if self._prices.units.request:
                yield Item.REQUEST, 1
        yield from ((item, each) for item, each in zip(_TOKENS, (prompt - cached, cached, output), strict=True) if each)

    def _unit(self, item: Item) -> int:
        units = self._prices.units
        return {
            Item.INPUT: units.input,
            Item.CACHED: units.cached,
            Item.OUTPUT: units.output,
            Item.REQUEST: units.request,
        }[item]

    def _placed(self, item: Item, quantity: int) -> Iterable[ChargeLine]:
        if item is not Item.REQUEST:
            for reservation_id, tokens in self._reserved(quantity):
                quantity -= tokens
                yield self._given(item, Basis.RESERVED, tokens, reservation_id)
            free = min(quantity, self._free_left())
            if free > 0:
                quantity -= free
                self._state.use_free(self._month, free)
                yield self._given(item, Basis.FREE, free)
        if quantity > 0:
            yield from self._paid(item, quantity)

    def _reserved(self, quantity: int) -> Iterable[tuple[str, int]]:
        """How much of it each reservation takes."""
        if not self._terms.reservations:
            return
        usage, hour = self._usage, hour_of(self._usage.at)
        covering = [each for each in self._terms.reservations if each.covers(usage.model, usage.region, usage.at)]
        for one in covering:
            used = self._state.reserved_used.get(hour, {}).get(one.id, 0)
            room = one.units * _seconds_within(one.starts_at, one.ends_at, usage.at) - used
            tokens = min(quantity, max(room, 0))
            if one is covering[-1] and not self._terms.bill_overage:
                tokens = quantity
            if tokens:
                quantity -= tokens
                self._state.use_reserved(hour, one.id, tokens)
                yield one.id, tokens

    def _free_left(self) -> int:
        if self._terms.has_reserved(self._usage.at):
            return 0
        return self._terms.free_tokens_per_month - self._state.free_used.get(self._month, 0)

    def _given(self, item: Item, basis: Basis, tokens: int, reservation_id: str | None = None) -> ChargeLine:
        unit = self._unit(item)
        worth = tokens * unit
        reductions = (Reduction(basis.value, worth, _WHOLE),) if worth else ()
        return ChargeLine(item, basis, tokens, unit, worth, worth, reductions, reservation_id)

    def _paid(self, item: Item, quantity: int) -> Iterable[ChargeLine]:
        if self._counted is Counted.TOKENS and item is not Item.REQUEST:
            counted = f"{item}:{self._usage.model}"
            start = self._state.position(self._month, counted)
            self._state.move(self._month, counted, quantity)
            for length, points in volume_discount(self._steps, start, start + quantity):
                yield self._line(item, length, volume_points=points)
        else:
            yield self._line(item, quantity)

    def _line(self, item: Item, quantity: int, volume_points: int = 0) -> ChargeLine:
        unit = self._unit(item)
        left, reductions = unit, []
        for reason, points in self._discounts:
            lower = _less(left, points)
            reductions.append(Reduction(reason, quantity * (left - lower), points))
            left = lower
        if volume_points:
            reductions.append(Reduction("volume", quantity * (left - _less(left, volume_points)), volume_points))
        elif self._counted is Counted.SPEND:
            reductions += self._by_spend(quantity * left)
        return ChargeLine(
            item,
            Basis.PAID,
            quantity,
            unit,
            quantity * unit,
            sum(each.amount for each in reductions),
            tuple(each for each in reductions if each.amount),
        )

    def _by_spend(self, amount: int) -> list[Reduction]:
        start = self._state.position(self._month, Counted.SPEND)
        self._state.move(self._month, Counted.SPEND, amount)
        off = discount_until(self._steps, start + amount) - discount_until(self._steps, start)
        pieces = volume_discount(self._steps, start, start + amount)
        return [Reduction("volume", off, pieces[0][1] if len(pieces) == 1 else None)] if off else []

    def _placed_steps(self) -> tuple[VolumeStep, ...]:
        """The steps in the org's currency, by the rate with which its month began: they do not move within one."""
        assert self._prices.card is not None
        placed = f"{self._month} {self._prices.card.currency}"
        rate = self._state.ladder_rates.setdefault(placed, str(self._prices.exchange_rate))
        if rate == "1":
            return self._steps
        return tuple(VolumeStep(token_units(step.above, Decimal(rate)), step.basis_points) for step in self._steps)

    def _returned(self, item: Item, quantity: int) -> Iterable[ChargeLine]:
        """What was charged last is given back first."""
        for line in taken_back(self._earlier, item, quantity):
            self._give_back(line)
            yield line

    def _all_returned(self) -> Iterable[ChargeLine]:
        """Of an original nothing, of a correction all that its request was charged, a price for the request too."""
        for item in Item:
            standing = sum(
                line.quantity for charge in self._earlier for line in charge.terms.lines if line.item is item
            )
            yield from self._returned(item, standing)

    def _give_back(self, line: ChargeLine) -> None:
        """Where the month or hour is still remembered, its allowances are there again."""
        state, month, hour = self._state, self._month, hour_of(self._usage.at)
        if line.basis is Basis.FREE and month in state.free_used:
            state.use_free(month, line.quantity)
        elif line.basis is Basis.RESERVED and line.reservation_id in state.reserved_used.get(hour, {}):
            state.use_reserved(hour, line.reservation_id, line.quantity)
        elif line.basis is Basis.PAID and month in state.positions:
            if self._counted is Counted.TOKENS:
                state.move(month, f"{line.item}:{self._usage.model}", line.quantity)
            elif self._counted is Counted.SPEND:
                volume = sum(each.amount for each in line.reductions if each.reason == "volume")
                state.move(month, Counted.SPEND, line.amount + volume)


def _less(unit: int, points: int) -> int:
    """A price with a discount: exact where the version was checked, else to the nearest, half to even."""
    whole, rest = divmod(unit * (_WHOLE - points), _WHOLE)
    return whole + (2 * rest > _WHOLE or (2 * rest == _WHOLE and whole % 2 == 1))


def _seconds_within(starts_at: datetime, ends_at: datetime, at: datetime) -> int:
    """Of the hour of `at`, the whole seconds between the two."""
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    length = min(ends_at, hour + timedelta(seconds=_HOUR_S)) - max(starts_at, hour)
    return int(length.total_seconds())
