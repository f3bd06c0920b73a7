"""The price book: what one token costs, as an exact integer, for each model and region.

Invariant: a book that could be built holds no price that was rounded; every combination of a price and a region's
multiplier was checked. Two books with the same content have the same version, whatever process built them.
Order matters in a price list: the first pattern that matches a model (or a region) is the one that counts.
"""

import hashlib
import re
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, localcontext
from fnmatch import translate

import msgspec

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.money import PicoUsd, token_price_pusd

_NO_MULTIPLIER = Decimal(1)
# Decimal rounds silently at 28 digits unless told otherwise.
_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
_MEMORY = 10_000  # remembered answers: models and regions are few, but their names come from records


class PriceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """US dollars per million tokens. `model` may hold `*` and `?`; case does not matter."""

    model: str
    input: Decimal
    output: Decimal
    cached: Decimal | None = None  # None: cached prompt tokens cost what the others do
    regions: dict[str, Decimal] = {}  # multipliers of this model, asked before those of the list


class PriceList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the configuration holds. Regions may hold `*` and `?` too; a region that matches none counts 1."""

    prices: tuple[PriceEntry, ...] = ()
    regions: dict[str, Decimal] = {}


class Price(msgspec.Struct, frozen=True):
    """Pico-USD per token. `version` is None when no price is known: then all are zero, and nothing is charged."""

    input_pusd: PicoUsd
    output_pusd: PicoUsd
    cached_pusd: PicoUsd
    version: str | None

    @property
    def known(self) -> bool:
        return self.version is not None


NO_PRICE = Price(PicoUsd(0), PicoUsd(0), PicoUsd(0), None)


class PriceBook:
    """A price list, checked and ready to be asked. Immutable."""

    def __init__(self, price_list: PriceList) -> None:
        """Raises ConfigurationError for a price that is negative or no whole number of pico-USD a token."""
        self.version = "prices_" + hashlib.sha256(msgspec.json.encode(price_list, order="sorted")).hexdigest()[:16]
        self._default_regions = _multipliers(price_list.regions)
        self._entries: list[tuple[re.Pattern[str], PriceEntry, list[tuple[re.Pattern[str], Decimal]]]] = []
        for entry in price_list.prices:
            own_regions = _multipliers(entry.regions)
            self._entries.append((_pattern(entry.model), entry, own_regions))
            for multiplier in {_NO_MULTIPLIER, *entry.regions.values(), *price_list.regions.values()}:
                self._exact(entry, multiplier)
        self._answers: dict[tuple[str, str], Price] = {}

    def price(self, model: str, region: str) -> Price:
        """The price of `model` served in `region`; `NO_PRICE` when no entry matches."""
        answer = self._answers.get((model, region))
        if answer is None:
            answer = self._find(model, region)
            if len(self._answers) < _MEMORY:
                self._answers[model, region] = answer
        return answer

    def _find(self, model: str, region: str) -> Price:
        for pattern, entry, own_regions in self._entries:
            if pattern.match(model):
                for region_pattern, multiplier in (*own_regions, *self._default_regions):
                    if region_pattern.match(region):
                        return self._exact(entry, multiplier)
                return self._exact(entry, _NO_MULTIPLIER)
        return NO_PRICE

    def _exact(self, entry: PriceEntry, multiplier: Decimal) -> Price:
        cached = entry.input if entry.cached is None else entry.cached
        try:
            with localcontext(_EXACT):
                prices = [_token_price(usd * multiplier) for usd in (entry.input, entry.output, cached)]
        except (ConfigurationError, ArithmeticError) as error:
            raise ConfigurationError(f"price of {entry.model!r} at multiplier {multiplier}: {error}") from None
        return Price(prices[0], prices[1], prices[2], self.version)


def _token_price(usd_per_million_tokens: Decimal) -> PicoUsd:
    if not usd_per_million_tokens.is_finite() or usd_per_million_tokens < 0:
        raise ConfigurationError(f"{usd_per_million_tokens} is no price; write zero or more US dollars")
    return token_price_pusd(usd_per_million_tokens)


def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob), re.IGNORECASE)


def _multipliers(regions: dict[str, Decimal]) -> list[tuple[re.Pattern[str], Decimal]]:
    return [(_pattern(glob), multiplier) for glob, multiplier in regions.items()]
