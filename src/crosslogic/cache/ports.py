"""The ports of the response cache (`CacheManager` of the interface document).

What a request needs never raises and never waits longer than the adapter's bound: a cache that is away is a cache
without the answer. What is ordered by people raises Unavailable instead, since "deleted" must be true.
"""

from typing import Protocol

from crosslogic.cache.model import EVERYTHING, CachedAnswer, CacheKey, Entry, EntryPage, Recording, Selection
from crosslogic.kernel.ids import OrgId


class KeptAnswers(Protocol):
    """What people see of a cache and order of it. All of it is about one org. Raises Unavailable, Conflict."""

    async def entries(
        self, org_id: OrgId, of: Selection = EVERYTHING, *, cursor: str | None = None, limit: int = 100
    ) -> EntryPage:
        """Some of an org's answers in order of their end. Raises InvalidRequest for a cursor that is none."""
        ...

    async def entry(self, key: CacheKey) -> Entry | None:
        """One answer, without counting it as a hit."""
        ...

    async def key_of(self, org_id: OrgId, request_id: str) -> CacheKey | None:
        """The answer that this request of the org got from a node, if it is kept."""
        ...

    async def delete(self, key: CacheKey) -> bool | None:
        """Forget one answer; whether there was one, None where that cannot be known."""
        ...

    async def delete_of(self, org_id: OrgId, request_id: str) -> bool | None:
        """Forget the answer that this request got from a node; as `delete`."""
        ...

    async def clear(self, org_id: OrgId, of: Selection = EVERYTHING) -> int | None:
        """Forget answers of an org; how many there were, None where that cannot be known.

        None of them is given any more from the first moment on, whatever their number; their space follows.
        """
        ...


class ResponseCache(KeptAnswers, Protocol):
    """What the request path asks, besides."""

    async def get(self, key: CacheKey) -> CachedAnswer | None:
        """The answer kept under the key, counted as a hit; None when there is none, or none to be had in time."""
        ...

    def set(self, key: CacheKey, recording: Recording, ttl_s: float) -> None:
        """Keep an answer for `ttl_s` seconds in the place of an earlier one. Returns at once; may not succeed."""
        ...

    async def close(self) -> None:
        """Finish what is under way."""
        ...


class CacheObserver(Protocol):
    """Who counts. Returns at once."""

    def cache_asked(self, model: str, result: str) -> None:
        """A request was for the cache: `hit`, `miss`, `refresh` or `bypass`."""
        ...

    def cache_stored(self, model: str, size_bytes: int) -> None: ...
    def cache_evicted(self, answers: int) -> None:
        """Answers gave way to others before their time."""
        ...

    def cache_held(self, size_bytes: int) -> None:
        """What this process's memory holds now."""
        ...

    def key_used(self, result: str) -> None:
        """What became of a request with an Idempotency-Key: `run`, `replayed`, `joined`, or the code of a refusal."""
        ...
