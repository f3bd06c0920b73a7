"""What is ordered of caches in other processes: written into the change feed by the management API, obeyed by workers.

Invariant: an order that is read is one that was written. What cannot be read (another version's) must be taken for an
order to forget everything: "cleared" must be true.
"""

import msgspec

from crosslogic.cache.model import EVERYTHING, CacheKey, Selection
from crosslogic.cache.ports import KeptAnswers
from crosslogic.kernel.ids import OrgId

CACHE_ORDERED = "cache"  # the kind of these changes in the change feed


class Order(msgspec.Struct, frozen=True, array_like=True):
    """Forget one answer, named by its key or its request; or else all that are selected."""

    org_id: OrgId
    selection: Selection = EVERYTHING
    digest: bytes | None = None
    request_id: str | None = None


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Order)


def written(order: Order) -> str:
    return _encode(order).decode()


def read(text: str) -> Order | None:
    try:
        return _decoder.decode(text)
    except msgspec.MsgspecError:
        return None


async def obey(order: Order, cache: KeptAnswers) -> int | None:
    """How many answers are forgotten; None where that cannot be known. Doing it twice does no harm."""
    if order.digest is not None:
        return await cache.delete(CacheKey(order.org_id, order.digest))
    if order.request_id is not None:
        return await cache.delete_of(order.org_id, order.request_id)
    return await cache.clear(order.org_id, order.selection)
