"""Health of all that the planner builds on: the catalogue, its prices, and what was measured."""

from collections.abc import Iterable, Mapping
from datetime import date

from crosslogic.catalog.cards import ModelCard
from crosslogic.catalog.gpus import load_gpus
from crosslogic.catalog.health import DataHealth, Measured, data_health
from crosslogic.catalog.price_lists.rows import PriceList
from crosslogic.simulator.profile import packaged_table


def planner_health(
    cards: Mapping[str, ModelCard], prices: PriceList, today: date, imported: Iterable[Measured] = ()
) -> DataHealth:
    """Of the packaged measurements, and of those that were imported."""
    packaged = (Measured(entry.model, entry.gpu) for entry in packaged_table().entries)
    found = dict.fromkeys((*packaged, *imported))
    return data_health(list(cards.values()), list(load_gpus().values()), prices, found, today)
