"""What published versions ask for a token, in US dollars, for the request path and the ledger. Pure.

It is the list price of the version in force for the org, else of that for all, before what a plan, a commitment or a
volume takes off, and without prices of single plans and of requests: those are for rating, which says what is owed.
"""

from datetime import UTC, datetime

from crosslogic.kernel.money import PicoUsd
from crosslogic.pricing.book import Price
from crosslogic.pricing.card import UnitPrices, token_units
from crosslogic.pricing.versions import USD, InForce, PriceHistory

_NEVER = datetime(9000, 1, 1, tzinfo=UTC)


class Published:
    """The versions of one moment. Immutable."""

    def __init__(self, history: PriceHistory | None = None) -> None:
        self._history = history or PriceHistory((), ())
        self.empty = not self._history.owners()

    def price(self, org_id: str, model: str, region: str, endpoint: str, at: datetime) -> Price | None:
        """None where no version knows the model, or its currency has no rate: then the configuration's list counts."""
        if self.empty:
            return None
        for found in self._history.at(org_id, at):
            units = found.card.price(model, region, endpoint, "")
            if units is not None:
                return self._in_dollars(units, found, at)
        return None

    def asks_apart(self, org_id: str) -> bool:
        """Whether an org has versions of its own."""
        return org_id in self._history.owners()

    def until(self, now: datetime) -> datetime:
        """When the next version or exchange rate begins, or a version ends."""
        return min((each for each in self._history.turns() if each > now), default=_NEVER)

    def _in_dollars(self, units: UnitPrices, found: InForce, at: datetime) -> Price | None:
        base = found.version.currency
        prices = [units.input, units.output, units.cached]
        if base != USD:
            if not self._history.knows_currency(base):
                return None
            rate = self._history.rate(USD, at, base)
            prices = [token_units(each, rate) for each in prices]
        return Price(PicoUsd(prices[0]), PicoUsd(prices[1]), PicoUsd(prices[2]), found.version.id)
