"""What the pieces of one request cost before allowances and volume, in the org's currency. Pure.

The first that knows a price counts: a plan with one price for every token, as the ledger noted it down; a version of
the org's own; the version for all; the configuration's price list that the ledger noted down. What none of them knows
costs what the ledger says, token by token.
"""

from datetime import datetime
from decimal import Decimal

import msgspec

from crosslogic.billing.charges.terms import OrgTerms
from crosslogic.kernel.ids import EnvId, KeyId, OrgId, RequestId
from crosslogic.pricing.card import PriceCard, UnitPrices, token_units
from crosslogic.pricing.versions import USD, InForce, PriceHistory

PLAN_VERSION = "plan"  # how the ledger names a plan's own price of a token


class RatedUsage(msgspec.Struct, frozen=True):
    """A row of the ledger, as far as it is paid for. Of a correction the numbers are differences."""

    org_id: OrgId
    seq: int
    request_id: RequestId
    n: int
    at: datetime
    env_id: EnvId
    key_id: KeyId
    endpoint: str
    model: str
    region: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_pusd: int = 0  # what the ledger noted down
    price_version: str | None = None  # by which price; None: none was known
    answered_from_cache: bool = False  # nothing ran: it costs nothing
    repeat_of: str | None = None  # the request that is charged for the same idempotency key: this one costs nothing


class Tariff(msgspec.Struct, frozen=True):
    """Prices of one request. `card` has what makes them lower; None where nothing does."""

    units: UnitPrices
    version_id: str
    exchange_rate: Decimal
    card: PriceCard | None = None
    unpriced: bool = False  # no price was known


_NOTHING = UnitPrices(0, 0, 0, 0, "", Decimal(1))


def tariff(usage: RatedUsage, history: PriceHistory, terms: OrgTerms, charged_before: int | None = None) -> Tariff:
    """`charged_before` is what a token of the same request was charged at, where this is a correction of it."""
    if usage.price_version == PLAN_VERSION:
        if charged_before is not None:
            return Tariff(_flat(charged_before), PLAN_VERSION, Decimal(1))
        return _as_recorded(usage, history, terms)
    for found in history.at(usage.org_id, usage.at):
        units = found.card.price(usage.model, usage.region, usage.endpoint, terms.plan)
        if units is not None:
            return _converted(units, found, history, usage.at, terms)
    recorded = history.recorded(usage.price_version)
    if recorded is not None:
        units = recorded.card.price(usage.model, usage.region, usage.endpoint, terms.plan)
        if units is not None:
            return _converted(units, recorded, history, usage.at, terms)
    if usage.price_version is None:
        return Tariff(_NOTHING, "", Decimal(1), unpriced=True)
    return _as_recorded(usage, history, terms)


def _converted(units: UnitPrices, found: InForce, history: PriceHistory, at: datetime, terms: OrgTerms) -> Tariff:
    base = found.version.currency
    if base == terms.currency:
        return Tariff(units, found.version.id, Decimal(1), found.card)
    rate = history.rate(terms.currency, at, base)
    return Tariff(_times(units, rate), found.version.id, rate, found.card)


def _as_recorded(usage: RatedUsage, history: PriceHistory, terms: OrgTerms) -> Tariff:
    """One price for every token, which makes up what the ledger says."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    each = usage.cost_pusd // tokens if tokens and usage.cost_pusd % tokens == 0 else 0
    rate = Decimal(1) if terms.currency == USD else history.rate(terms.currency, usage.at)
    version = usage.price_version or ""
    if each == 0 and usage.cost_pusd:  # priced by the item: it stands as one sum on the request
        whole = UnitPrices(0, 0, 0, abs(usage.cost_pusd), "", Decimal(1))
        return Tariff(_times(whole, rate), version, rate)
    return Tariff(_times(_flat(each), rate), version, rate)


def _flat(each: int) -> UnitPrices:
    return UnitPrices(each, each, each, 0, "", Decimal(1))


def _times(units: UnitPrices, rate: Decimal) -> UnitPrices:
    if rate == 1:
        return units
    return UnitPrices(
        token_units(units.input, rate),
        token_units(units.cached, rate),
        token_units(units.output, rate),
        token_units(units.request, rate),
        units.pattern,
        units.multiplier,
    )
