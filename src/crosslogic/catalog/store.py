"""What operators imported into the catalogue: prices and architectures, over those that come with the product.

Invariant: an import is whole or not at all; an imported price replaces the packaged ones of its cloud, since a list of
one's own is newer than one of unknown date; an imported model replaces the packaged one of its id.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import RowMapping, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.catalog.cards import Cards, ModelCard, with_imported
from crosslogic.catalog.price_lists.packaged import packaged_prices
from crosslogic.catalog.price_lists.rows import PriceList
from crosslogic.catalog.prices import GpuPrice, PriceMarket
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import InvalidRequest, NotFound
from crosslogic.store.engine import reading
from crosslogic.store.tables import changes
from crosslogic.store.tables.compass import catalog_models, catalog_prices

CATALOG_CHANGED = "catalog"  # in the change feed
_MOST_PRICES = 200_000
_CHUNK = 500
_KEY = ("cloud", "region", "zone", "instance_type", "gpu", "gpu_count", "market")


class CatalogStore:
    """The catalogue of this installation."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def prices(self) -> PriceList:
        async with reading(self._engine) as conn:
            rows = (await conn.execute(select(catalog_prices))).mappings().all()
        own = [_price(row) for row in rows]
        clouds = {price.cloud for price in own}
        packaged = packaged_prices()
        return PriceList((*own, *(each for each in packaged.prices if each.cloud not in clouds)), packaged.refused)

    async def cards(self) -> Cards:
        async with reading(self._engine) as conn:
            rows = (await conn.execute(select(catalog_models.c.card).order_by(catalog_models.c.id))).scalars().all()
        own = [msgspec.convert(card, type=ModelCard) for card in rows]
        return with_imported({card.id: card for card in own})

    async def version(self) -> int | None:
        """Another number after each import; None where none was of late."""
        query = select(func.max(changes.c.seq)).where(changes.c.kind == CATALOG_CHANGED)
        async with reading(self._engine) as conn:
            found: int | None = (await conn.execute(query)).scalar_one_or_none()
        return found

    async def import_prices_in(self, conn: AsyncConnection, prices: Sequence[GpuPrice]) -> None:
        """In place of what there was of the same instance, place and market."""
        if len(prices) > _MOST_PRICES:
            raise InvalidRequest(f"a price list has at most {_MOST_PRICES:,} prices of GPUs; take one region's")
        now = self._clock.now()
        for price in prices:
            key = _columns(price)
            await conn.execute(delete(catalog_prices).where(*(catalog_prices.c[name] == key[name] for name in _KEY)))
        rows = [{**_columns(price), "imported_at": now} for price in prices]
        for start in range(0, len(rows), _CHUNK):
            await conn.execute(insert(catalog_prices), rows[start : start + _CHUNK])

    async def remove_prices_in(self, conn: AsyncConnection, cloud: str) -> int:
        """The cloud's packaged prices count again."""
        return (await conn.execute(delete(catalog_prices).where(catalog_prices.c.cloud == cloud))).rowcount

    async def import_card_in(self, conn: AsyncConnection, card: ModelCard) -> None:
        await conn.execute(delete(catalog_models).where(catalog_models.c.id == card.id))
        row = {"id": card.id, "card": msgspec.to_builtins(card), "imported_at": self._clock.now()}
        await conn.execute(insert(catalog_models).values(row))

    async def remove_card_in(self, conn: AsyncConnection, model_id: str) -> None:
        """Raises NotFound for one that was not imported."""
        if (await conn.execute(delete(catalog_models).where(catalog_models.c.id == model_id))).rowcount == 0:
            raise NotFound("there is no such imported model")

    @property
    def engine(self) -> AsyncEngine:
        return self._engine


def _columns(price: GpuPrice) -> dict[str, object]:
    fields = msgspec.structs.asdict(price)
    return {**fields, "zone": price.zone or "", "market": price.market.value, "doubts": list(price.doubts)}


def _price(row: RowMapping) -> GpuPrice:
    return GpuPrice(
        cloud=row["cloud"],
        region=row["region"],
        zone=row["zone"] or None,
        instance_type=row["instance_type"],
        gpu=row["gpu"],
        gpu_count=row["gpu_count"],
        market=PriceMarket(row["market"]),
        per_hour_pusd=row["per_hour_pusd"],
        as_of=row["as_of"],
        source=row["source"],
        doubts=tuple(row["doubts"]),
    )
