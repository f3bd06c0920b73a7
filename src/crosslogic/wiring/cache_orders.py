"""Has a worker's own cache obey what the management API of another process ordered, as it comes by the change feed."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.cache import orders
from crosslogic.cache.memory import MemoryCache
from crosslogic.cache.ports import ResponseCache
from crosslogic.store.changes import Change, ChangeFeed
from crosslogic.wiring.process import Background


async def obey_orders(cache: ResponseCache, engine: AsyncEngine, background: Background) -> None:
    """From now on. Only a cache in this process's memory needs to be told: Redis obeys for all workers.

    Raises what SQLAlchemy raises without a database.
    """
    if not isinstance(cache, MemoryCache):
        return
    feed = ChangeFeed(engine)
    await feed.start()

    async def apply(changes: Sequence[Change]) -> None:
        for change in changes:
            if change.kind == orders.CACHE_ORDERED:
                order = orders.read(change.entity_id)
                if order is None:
                    cache.forget_all()
                else:
                    await orders.obey(order, cache)

    async def missed() -> None:
        cache.forget_all()

    background.start("cache orders", feed.run(apply, on_gap=missed))
