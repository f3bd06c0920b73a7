"""What a request may cost at most before it runs, and what it did cost afterwards. Pure.

Invariant: as long as an answer has no more tokens than it was given, no request costs more than its estimate, in
whichever of the known regions and by whichever of its models it is served: the dearest of them counts. The real cost
is `rate`, which also rates the ledger; a plan with one price for every token takes the place of all others, a version
that was published that of the price book.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from crosslogic.kernel.money import PicoUsd
from crosslogic.pricing.book import Price, PriceBook
from crosslogic.pricing.published import Published
from crosslogic.pricing.rate import TokenCounts, rate

_MEMORY = 10_000  # models with their fallbacks are few, but the first name comes from callers


def flat_price(price_per_token_pusd: int) -> Price:
    """A plan's one price for all tokens, prompt or answer, cached or not."""
    each = PicoUsd(price_per_token_pusd)
    return Price(each, each, each, "plan")


class CostEstimates:
    """Prices as the request path asks them: each question answered once, then remembered until prices change."""

    def __init__(
        self,
        book: PriceBook,
        regions: Iterable[str] = (),
        published: Published | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._book = book
        self._regions = frozenset(regions)
        self._published = published or Published()
        self._now = now
        self._until = self._published.until(now())
        self._dearest: dict[tuple[str, ...], tuple[int, int]] = {}

    def reprice(self, book: PriceBook) -> None:
        """Another price book is in force."""
        self._book = book
        self._dearest = {}

    def publish(self, published: Published) -> None:
        """Versions were published or retired."""
        self._published = published
        self._until = published.until(self._now())
        self._dearest = {}

    def serve_in(self, regions: Iterable[str]) -> None:
        """The regions that have nodes now."""
        regions = frozenset(regions)
        if regions != self._regions:
            self._regions = regions
            self._dearest = {}

    def at_most(
        self,
        models: tuple[str, ...],
        prompt_tokens: int,
        output_tokens: int,
        price_per_token_pusd: int | None = None,
        *,
        org_id: str = "",
        endpoint: str = "",
    ) -> PicoUsd:
        """The cost of the longest answer to the longest prompt, by the dearest of these models (the one that is asked
        for, then its fallbacks) in the dearest region."""
        if price_per_token_pusd is not None:
            return PicoUsd((prompt_tokens + output_tokens) * price_per_token_pusd)
        question = models
        if not self._published.empty:
            if (now := self._now()) >= self._until:
                self._until = self._published.until(now)
                self._dearest = {}
            question = (org_id if self._published.asks_apart(org_id) else "", endpoint, *models)
        dearest = self._dearest.get(question)
        if dearest is None:
            dearest = self._find(models, org_id, endpoint)
            if len(self._dearest) < _MEMORY:
                self._dearest[question] = dearest
        return PicoUsd(prompt_tokens * dearest[0] + output_tokens * dearest[1])

    def of(
        self,
        usage: TokenCounts,
        model: str,
        region: str,
        price_per_token_pusd: int | None = None,
        *,
        org_id: str = "",
        endpoint: str = "",
        at: datetime | None = None,
    ) -> PicoUsd:
        """What a request has cost that arrived `at` (now if absent)."""
        if price_per_token_pusd is not None:
            return rate(usage, flat_price(price_per_token_pusd))
        price = self._published.price(org_id, model, region, endpoint, at or self._now())
        return rate(usage, price or self._book.price(model, region))

    def _find(self, models: tuple[str, ...], org_id: str, endpoint: str) -> tuple[int, int]:
        now = self._now()
        prices = [
            self._published.price(org_id, model, region, endpoint, now) or self._book.price(model, region)
            for model in models
            for region in self._regions or ("",)
        ]
        return (
            max(max(price.input_pusd, price.cached_pusd) for price in prices),
            max(price.output_pusd for price in prices),
        )
