"""No response cache (`enable_caching: false`), and nobody who counts."""

from crosslogic.cache.model import EVERYTHING, CacheKey, EntryPage, Recording, Selection
from crosslogic.kernel.ids import OrgId


class NullCache:
    """Keeps nothing, so there is nothing to find or to forget."""

    async def get(self, key: CacheKey) -> None:
        """Never a hit."""
        return

    def set(self, key: CacheKey, recording: Recording, ttl_s: float) -> None:
        """The answer is not kept."""

    async def entries(
        self, org_id: OrgId, of: Selection = EVERYTHING, *, cursor: str | None = None, limit: int = 100
    ) -> EntryPage:
        """An empty page."""
        return EntryPage(())

    async def entry(self, key: CacheKey) -> None:
        """There is none."""
        return

    async def key_of(self, org_id: OrgId, request_id: str) -> None:
        """There is none."""
        return

    async def delete(self, key: CacheKey) -> bool:
        """There was none."""
        return False

    async def delete_of(self, org_id: OrgId, request_id: str) -> bool:
        """There was none."""
        return False

    async def clear(self, org_id: OrgId, of: Selection = EVERYTHING) -> int:
        """There were none."""
        return 0

    async def close(self) -> None:
        """Nothing is under way here."""


class Uncounted:
    """A `CacheObserver` that does not look."""

    def cache_asked(self, model: str, result: str) -> None: ...
    def cache_stored(self, model: str, size_bytes: int) -> None: ...
    def cache_evicted(self, answers: int) -> None: ...
    def cache_held(self, size_bytes: int) -> None: ...
    def key_used(self, result: str) -> None: ...
