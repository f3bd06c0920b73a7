"""No response cache: `enable_caching: false`."""

from crosslogic.cache.model import CacheKey, Recording
from crosslogic.kernel.ids import OrgId


class NullCache:
    """Keeps nothing, so there is nothing to find or to forget."""

    async def get(self, key: CacheKey) -> None:
        """Never a hit."""
        return

    def set(self, key: CacheKey, recording: Recording, ttl_s: float) -> None:
        """The answer is not kept."""

    async def delete(self, key: CacheKey) -> bool:
        """There was none."""
        return False

    async def clear(self, org_id: OrgId) -> int:
        """There were none."""
        return 0

    async def close(self) -> None:
        """Nothing is under way here."""
