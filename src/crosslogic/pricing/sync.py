"""Published prices for whoever prices: read from the database where they changed, or followed with the change feed."""

from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.pricing.published import Published
from crosslogic.pricing.sql import PriceShelf
from crosslogic.store.changes import Change
from crosslogic.store.engine import reading

PRICE_CHANGED, RATE_CHANGED = "price", "exchange_rate"  # in the change feed


class PublishedPrices:
    """Asked before each use: two small statements, and the versions again where some were published."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._shelf = PriceShelf()
        self._history: object = None
        self._published = Published()

    async def now(self) -> Published:
        """Raises `store.engine.DATABASE_ERRORS`."""
        async with reading(self._engine) as conn:
            history = await self._shelf.history(conn)
        if history is not self._history:
            self._history, self._published = history, Published(history)
        return self._published


class PriceSync:
    """Keeps a gateway's prices equal to the database. `store.changes.Following` drives it."""

    def __init__(self, engine: AsyncEngine, on_prices: Callable[[Published], None]) -> None:
        self._prices = PublishedPrices(engine)
        self._on_prices = on_prices

    async def load(self) -> None:
        self._on_prices(await self._prices.now())

    async def apply(self, changes: Sequence[Change]) -> None:
        if any(change.kind in (PRICE_CHANGED, RATE_CHANGED) for change in changes):
            await self.load()
