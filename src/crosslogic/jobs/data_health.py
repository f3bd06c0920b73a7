"""Says in the log what is missing or wrong in the data that planning builds on: at the start, and when it changes.

All of it is at `/api/v1/data/health` and in `crosslogic doctor data`.
"""

import asyncio
import logging
from datetime import date

from crosslogic.catalog.cards import Cards
from crosslogic.catalog.health import DataHealth, Severity
from crosslogic.catalog.price_lists.packaged import packaged_prices
from crosslogic.catalog.price_lists.rows import PriceList
from crosslogic.catalog.store import CatalogStore
from crosslogic.compass.data_health import planner_health
from crosslogic.kernel.clock import Clock

_log = logging.getLogger(__name__)


class DataHealthJob:
    """Run by each process that plans."""

    def __init__(self, catalog: CatalogStore, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._told = ""

    async def round(self) -> str:
        """What is in the log now."""
        await asyncio.to_thread(packaged_prices)  # read once in a process, and not while others wait for the loop
        cards, prices = await self._catalog.cards(), await self._catalog.prices()
        found = await asyncio.to_thread(_health, cards, prices, self._clock.now().date())
        said = summary(found)
        if said != self._told:
            _log.info("%s", said)
            self._told = said
        return said


def summary(found: DataHealth) -> str:
    """One line: how much there is, and what makes plans less certain."""
    prices = f"{found.clean_prices} clean of {found.prices} prices"
    told = [f"planner data: {found.models} models, {found.gpus} GPUs, {prices}"]
    told += [issue.sentence for issue in found.issues if issue.severity is Severity.WARNING]
    return f"{'; '.join(told)} (more: crosslogic doctor data)"


def _health(cards: Cards, prices: PriceList, today: date) -> DataHealth:
    return planner_health(cards.by_id, prices, today)
