"""The caches in the memory of gateway workers, as the management API of another process has them.

They hear of orders by the change feed (`orders.py`), within a second; what they hold cannot be looked at from here.
"""

from typing import NoReturn

from crosslogic.cache.model import EVERYTHING, CacheKey, Selection
from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import OrgId


class CachesElsewhere:
    """`KeptAnswers` that nobody here can see; whoever orders something announces it."""

    async def entries(
        self, org_id: OrgId, of: Selection = EVERYTHING, *, cursor: str | None = None, limit: int = 100
    ) -> NoReturn:
        """Raises Conflict."""
        raise _invisible()

    async def entry(self, key: CacheKey) -> NoReturn:
        """Raises Conflict."""
        raise _invisible()

    async def key_of(self, org_id: OrgId, request_id: str) -> NoReturn:
        """Raises Conflict."""
        raise _invisible()

    async def delete(self, key: CacheKey) -> None:
        """Whether there is one cannot be known; each worker forgets its own."""
        return

    async def delete_of(self, org_id: OrgId, request_id: str) -> None:
        """As `delete`."""
        return

    async def clear(self, org_id: OrgId, of: Selection = EVERYTHING) -> None:
        """How many there are cannot be known; each worker forgets its own."""
        return


def _invisible() -> Conflict:
    return Conflict("each gateway worker keeps its own answers, which only it sees; set cache.backend: redis to look")
