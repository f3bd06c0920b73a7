"""The port of the response cache (`CacheManager` of the interface document).

What a request needs never raises and never waits longer than the adapter's bound: a cache that is away is a cache
without the answer. What an operator orders raises Unavailable instead, since "deleted" must be true.
"""

from typing import Protocol

from crosslogic.cache.model import CachedAnswer, CacheKey, Recording
from crosslogic.kernel.ids import OrgId


class ResponseCache(Protocol):
    async def get(self, key: CacheKey) -> CachedAnswer | None:
        """The answer kept under the key, counted as a hit; None when there is none, or none to be had in time."""
        ...

    def set(self, key: CacheKey, recording: Recording, ttl_s: float) -> None:
        """Keep an answer for `ttl_s` seconds in the place of an earlier one. Returns at once; may not succeed."""
        ...

    async def delete(self, key: CacheKey) -> bool:
        """Forget one answer; whether there was one. Raises Unavailable."""
        ...

    async def clear(self, org_id: OrgId) -> int:
        """Forget all answers of an org; how many there were. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Finish what is under way."""
        ...
