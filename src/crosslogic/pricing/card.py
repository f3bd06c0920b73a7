"""A price version, checked and ready to be asked: what a token of a model costs whom, and what makes it cheaper. Pure.

Invariants: a card that could be built holds no price that was rounded, whichever multiplier and discounts come
together; and nobody can lower a bill by using more, because discounts by tokens are refused where the prices that
they are counted over lie too far apart.
"""

import re
from collections.abc import Iterable, Iterator
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, localcontext
from fnmatch import translate
from fractions import Fraction
from itertools import pairwise
from math import lcm

import msgspec

from crosslogic.kernel.errors import ConfigurationError, InvalidRequest
from crosslogic.pricing.terms import Counted, PricedModel, PriceTerms

PICO = 10**12
_TOKENS, _REQUESTS = 10**6, 10**3
_WHOLE = 10_000  # basis points
_MOST_ENTRIES, _MOST_REGIONS, _MOST_STEPS = 1_000, 100, 20
_MOST = Decimal(10**9)
_MEMORY = 10_000  # remembered answers: their questions come from records
_EXACT = Context(prec=80, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
BATCH = "batch/"


class UnitPrices(msgspec.Struct, frozen=True):
    """Pico-units of the version's currency for one token or request, before discounts."""

    input: int
    cached: int
    output: int
    request: int
    pattern: str
    multiplier: Decimal


class VolumeStep(msgspec.Struct, frozen=True):
    above: int  # tokens, or pico-units
    basis_points: int


class _Entry(msgspec.Struct, frozen=True):
    priced: PricedModel
    model: re.Pattern[str]
    endpoints: tuple[re.Pattern[str], ...]
    regions: tuple[tuple[re.Pattern[str], Decimal], ...]


class PriceCard:
    """Immutable. `currency` is what its prices are in."""

    def __init__(self, terms: PriceTerms, currency: str, *, check: bool = True) -> None:
        """Raises InvalidRequest with a sentence for terms that cannot be published."""
        self.currency = currency
        self.terms = terms
        self._entries = [_compiled(entry, terms) for entry in terms.prices]
        self._plan_points = {plan: _points(percent, "plan_percent") for plan, percent in terms.plan_percent.items()}
        self._batch_points = _points(terms.batch_percent, "batch_percent")
        self._commitment_points = _points(terms.commitment_percent, "commitment_percent")
        self.counted, self.steps = _ladder(terms)
        self._answers: dict[tuple[str, str, str, str], UnitPrices | None] = {}
        if check:
            _check_sizes(terms)
            self._check()

    def price(self, model: str, region: str, endpoint: str, plan: str) -> UnitPrices | None:
        """None where no entry matches."""
        question = (model, region, endpoint, plan)
        if question in self._answers:
            return self._answers[question]
        answer = self._find(model, region, endpoint, plan)
        if len(self._answers) < _MEMORY:
            self._answers[question] = answer
        return answer

    def discounts(self, endpoint: str, plan: str, *, committed: bool) -> list[tuple[str, int]]:
        """What makes every price cheaper, in order: reason and basis points."""
        found = [("plan", self._plan_points.get(plan, 0))]
        found.append(("batch", self._batch_points if endpoint.startswith(BATCH) else 0))
        found.append(("commitment", self._commitment_points if committed else 0))
        return [(reason, points) for reason, points in found if points]

    @property
    def commitment_points(self) -> int:
        """What a commitment takes off, in basis points."""
        return self._commitment_points

    def units(self) -> Iterator[tuple[UnitPrices, str]]:
        """Every price that it can answer with, and what it is of, in words."""
        for entry in self._entries:
            for multiplier in {Decimal(1), *(each for _, each in entry.regions)}:
                shown = f"{entry.priced.model!r}" + ("" if multiplier == 1 else f" at region multiplier {multiplier}")
                yield _units(entry.priced, multiplier), shown

    def _find(self, model: str, region: str, endpoint: str, plan: str) -> UnitPrices | None:
        for entry in self._entries:
            priced = entry.priced
            if not entry.model.match(model) or (priced.plans and plan not in priced.plans):
                continue
            if entry.endpoints and not any(each.match(endpoint) for each in entry.endpoints):
                continue
            for pattern, multiplier in entry.regions:
                if pattern.match(region):
                    return _units(priced, multiplier)
            return _units(priced, Decimal(1))
        return None

    def _factors(self) -> Iterator[Fraction]:
        """What remains of a price after each run of discounts that can come together."""
        plans = {0, *self._plan_points.values()}
        steps = {0, *(step.basis_points for step in self.steps)} if self.counted is Counted.TOKENS else {0}
        for plan in plans:
            for batch in {0, self._batch_points}:
                for commitment in {0, self._commitment_points}:
                    left = Fraction(1)
                    for points in (plan, batch, commitment):
                        left *= Fraction(_WHOLE - points, _WHOLE)
                        yield left
                    yield from (left * Fraction(_WHOLE - points, _WHOLE) for points in steps)

    def _check(self) -> None:
        factors = set(self._factors())
        divisor = lcm(*(factor.denominator for factor in factors))
        for units, shown in self.units():
            for item, price in (("input", units.input), ("cached", units.cached), ("output", units.output)):
                _check_whole(price, divisor, factors, f"the {item} price of {shown}")
            _check_whole(units.request, divisor, factors, f"the request price of {shown}")
        if self.counted is Counted.TOKENS:
            for entry in self._entries:
                self._check_steady(entry, {factor for factor in factors if factor})

    def _check_steady(self, entry: _Entry, factors: set[Fraction]) -> None:
        """A token more moves at most one token over each step that lies above; what it pays must be no less."""
        own_discounts = {
            Fraction(_WHOLE - plan, _WHOLE) * Fraction(_WHOLE - batch, _WHOLE) * Fraction(_WHOLE - commitment, _WHOLE)
            for plan in {0, *self._plan_points.values()}
            for batch in {0, self._batch_points}
            for commitment in {0, self._commitment_points}
        }
        multipliers = [Fraction(1), *(Fraction(each) for _, each in entry.regions)]
        worths = [multiplier * factor for multiplier in multipliers for factor in own_discounts]
        least, most, last = min(worths), max(worths), self.steps[-1].basis_points if self.steps else 0
        for points in {0, *(step.basis_points for step in self.steps)}:
            if least * (_WHOLE - points) < most * (last - points):
                raise InvalidRequest(
                    f"a volume discount by tokens of up to {Decimal(last) / 100}% on {entry.priced.model!r}, whose "
                    "prices lie so far apart, would let more usage lower a bill; count spend instead",
                    param="volume",
                )


def volume_discount(steps: Iterable[VolumeStep], start: int, end: int) -> list[tuple[int, int]]:
    """The stretch from `start` to `end` cut at the steps: lengths and their basis points, in order."""
    bounds = [VolumeStep(0, 0), *steps]
    pieces = []
    for step, following in pairwise([*bounds, None]):
        assert step is not None
        low, high = max(start, step.above), end if following is None else min(end, following.above)
        if high > low:
            pieces.append((high - low, step.basis_points))
    return pieces


def discount_until(steps: Iterable[VolumeStep], position: int) -> int:
    """What a graduated discount by spend takes off the first `position` pico-units, as a whole number.

    The discount of a stretch is the difference of two of these: so it makes none whether it comes in one piece or two.
    """
    return sum(length * points for length, points in volume_discount(steps, 0, position)) // _WHOLE


def _compiled(entry: PricedModel, terms: PriceTerms) -> _Entry:
    regions = (*entry.regions.items(), *terms.regions.items())
    return _Entry(
        entry,
        _pattern(entry.model),
        tuple(map(_pattern, entry.endpoints)),
        tuple((_pattern(glob), multiplier) for glob, multiplier in regions),
    )


def _units(entry: PricedModel, multiplier: Decimal) -> UnitPrices:
    cached = entry.input if entry.cached is None else entry.cached
    shown = f"{entry.model!r} at region multiplier {multiplier}"
    return UnitPrices(
        _pico(entry.input, multiplier, _TOKENS, shown),
        _pico(cached, multiplier, _TOKENS, shown),
        _pico(entry.output, multiplier, _TOKENS, shown),
        _pico(entry.request, multiplier, _REQUESTS, shown),
        entry.model,
        multiplier,
    )


def _pico(price: Decimal, multiplier: Decimal, quantity: int, shown: str) -> int:
    for number, what in ((price, "a price"), (multiplier, "a region multiplier")):
        if not number.is_finite() or not 0 <= number <= _MOST:
            raise InvalidRequest(f"{number} is not {what}; write a number from 0 to {_MOST:,}", param="prices")
    try:
        with localcontext(_EXACT):
            exact = price * multiplier * PICO / quantity
    except ArithmeticError:
        exact = Decimal("0.1")
    if exact != exact.to_integral_value():
        raise InvalidRequest(
            f"the price {price:f} of {shown} is no whole number of 1e-12 units a piece; use fewer decimals",
            param="prices",
        )
    return int(exact)


def _check_whole(price: int, divisor: int, factors: set[Fraction], shown: str) -> None:
    if price % divisor == 0:
        return
    for factor in sorted(factors):
        if (price * factor).denominator != 1:
            raise InvalidRequest(
                f"{shown} is no whole number of 1e-12 units once {float(1 - factor) * 100:g}% is taken off; "
                "use fewer decimals in price, multiplier or discount",
                param="prices",
            )


def _points(percent: Decimal, param: str) -> int:
    if not percent.is_finite() or not 0 <= percent <= 100 or percent * 100 != int(percent * 100):
        raise InvalidRequest(f"{percent} is no discount; write 0 to 100 with at most 2 decimals", param=param)
    return int(percent * 100)


def _ladder(terms: PriceTerms) -> tuple[Counted | None, tuple[VolumeStep, ...]]:
    if terms.volume is None:
        return None, ()
    unit = 1 if terms.volume.counts is Counted.TOKENS else PICO
    steps = []
    for step in terms.volume.steps:
        if not step.above.is_finite() or not 0 <= step.above <= 10**18 or step.above * unit != int(step.above * unit):
            raise InvalidRequest(f"{step.above} is no place for a step of a volume discount", param="volume")
        steps.append(VolumeStep(int(step.above * unit), _points(step.percent, "volume")))
    for one, other in pairwise(steps):
        if other.above <= one.above or other.basis_points <= one.basis_points:
            raise InvalidRequest("steps of a volume discount rise, in `above` and in `percent`", param="volume")
    if not steps or len(steps) > _MOST_STEPS:
        raise InvalidRequest(f"a volume discount has 1 to {_MOST_STEPS} steps", param="volume")
    return terms.volume.counts, tuple(steps)


def _check_sizes(terms: PriceTerms) -> None:
    if not 0 < len(terms.prices) <= _MOST_ENTRIES:
        raise InvalidRequest(f"a price version has 1 to {_MOST_ENTRIES} prices", param="prices")
    if any(len(terms.regions) + len(entry.regions) > _MOST_REGIONS for entry in terms.prices):
        raise InvalidRequest(f"a price has at most {_MOST_REGIONS} region multipliers", param="regions")
    if len(terms.plan_percent) > _MOST_REGIONS:
        raise InvalidRequest(f"at most {_MOST_REGIONS} plans have a discount", param="plan_percent")


def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob), re.IGNORECASE)


def token_units(price: int, rate: Decimal) -> int:
    """A price in another currency: exact where the rate allows, else to the nearest 1e-12 of its unit, half to even."""
    with localcontext(Context(prec=80)):
        return int((price * rate).to_integral_value("ROUND_HALF_EVEN"))


def check_rate(rate: Decimal) -> Decimal:
    if not rate.is_finite() or not 0 < rate <= 10**6:
        raise ConfigurationError(f"{rate} is no exchange rate; write units of the currency for one US dollar")
    return rate
