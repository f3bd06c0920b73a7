"""What a price version says: prices, region multipliers, and what makes them lower. Values as operators write them.

Amounts are decimals of the currency's major unit: for a million tokens, and for a thousand requests. Order matters:
the first entry that matches a model, an endpoint and a plan is the one that counts, and so it is with regions.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec

from crosslogic.pricing.book import PriceList


class PricedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Names may hold `*` and `?`; case does not matter. An empty tuple restricts nothing."""

    model: str
    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)
    cached: Decimal | None = None  # None: cached prompt tokens cost what the others do
    request: Decimal = Decimal(0)  # for a thousand requests, beside their tokens: rerank and embeddings by the call
    endpoints: tuple[str, ...] = ()  # as the ledger names them: "chat/completions", "embeddings", "rerank"
    plans: tuple[str, ...] = ()  # ids of billing plans: the pricing tier
    regions: dict[str, Decimal] = {}  # multipliers of this entry, asked before those of the version


class Counted(StrEnum):
    """What moves an org up its volume discount."""

    TOKENS = "tokens"  # of one model and item (input, cached, output) in a month
    SPEND = "spend"  # what all its usage of a month costs before this discount


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From `above` on (tokens, or units of the currency), `percent` less. It counts for what lies above, not below."""

    above: Decimal
    percent: Decimal


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A graduated discount."""

    counts: Counted
    steps: tuple[Step, ...]


class PriceTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Discounts follow one another: that of the plan, of batch work, of a commitment, of volume."""

    prices: tuple[PricedModel, ...]
    regions: dict[str, Decimal] = {}  # multipliers; a region that matches none counts 1
    plan_percent: dict[str, Decimal] = {}  # by id of the billing plan
    batch_percent: Decimal = Decimal(0)  # for endpoints under `batch/`
    commitment_percent: Decimal = Decimal(0)  # for orgs with a commitment in force
    volume: Volume | None = None


def terms_of(price_list: PriceList) -> PriceTerms:
    """The configuration's price list as a version says it."""
    prices = tuple(
        PricedModel(entry.model, entry.input, entry.output, entry.cached, regions=entry.regions)
        for entry in price_list.prices
    )
    return PriceTerms(prices, price_list.regions)
