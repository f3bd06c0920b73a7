"""The response cache of one process: bounded bytes, least recently used goes first, time to live.

Invariants: the bytes of all answers together never exceed `most_bytes`, those of one org never `most_org_bytes` (one
org cannot push the others out entirely); an answer is never given after its time.
"""

from collections import OrderedDict

import msgspec

from crosslogic.cache.model import ENTRY_OVERHEAD_BYTES, CachedAnswer, CacheKey, Recording
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import OrgId


class _Kept(msgspec.Struct):
    recording: Recording
    cached_at_s: float
    until_s: float  # monotonic
    size_bytes: int
    hit_count: int = 0


class _Shelf:
    """The answers of one org, least recently used first."""

    __slots__ = ("kept", "size_bytes")

    def __init__(self) -> None:
        self.kept: OrderedDict[CacheKey, _Kept] = OrderedDict()
        self.size_bytes = 0


class MemoryCache:
    """A `ResponseCache` in this process's memory."""

    def __init__(self, clock: Clock, *, most_bytes: int = 256 * 1024 * 1024, most_org_bytes: int | None = None) -> None:
        """`most_org_bytes` is a quarter of everything unless given."""
        self._clock = clock
        self._most_bytes = most_bytes
        self._most_org_bytes = most_bytes // 4 if most_org_bytes is None else most_org_bytes
        self._shelves: dict[OrgId, _Shelf] = {}
        self._by_use: OrderedDict[CacheKey, None] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._by_use)

    async def get(self, key: CacheKey) -> CachedAnswer | None:
        """The answer kept under the key, counted as a hit."""
        shelf = self._shelves.get(key.org_id)
        kept = shelf.kept.get(key) if shelf is not None else None
        if shelf is None or kept is None:
            return None
        if self._clock.monotonic_s() >= kept.until_s:
            self._drop(key)
            return None
        kept.hit_count += 1
        shelf.kept.move_to_end(key)
        self._by_use.move_to_end(key)
        return CachedAnswer(kept.recording, kept.cached_at_s, kept.hit_count)

    def set(self, key: CacheKey, recording: Recording, ttl_s: float) -> None:
        """Keep an answer; one that is larger than the org's share is not."""
        self._drop(key)
        size_bytes = recording.size_bytes + ENTRY_OVERHEAD_BYTES
        if size_bytes > min(self._most_org_bytes, self._most_bytes):
            return
        shelf = self._shelves.get(key.org_id)
        while shelf is not None and shelf.kept and shelf.size_bytes + size_bytes > self._most_org_bytes:
            self._drop(next(iter(shelf.kept)))
        while self.size_bytes + size_bytes > self._most_bytes:
            self._drop(next(iter(self._by_use)))
        shelf = self._shelves.setdefault(key.org_id, _Shelf())
        shelf.kept[key] = _Kept(recording, self._clock.now().timestamp(), self._clock.monotonic_s() + ttl_s, size_bytes)
        shelf.size_bytes += size_bytes
        self.size_bytes += size_bytes
        self._by_use[key] = None

    async def delete(self, key: CacheKey) -> bool:
        """Forget one answer; whether there was one."""
        shelf = self._shelves.get(key.org_id)
        kept = shelf.kept.get(key) if shelf is not None else None
        self._drop(key)
        return kept is not None and self._clock.monotonic_s() < kept.until_s

    async def clear(self, org_id: OrgId) -> int:
        """Forget all answers of an org, those out of date included; how many there were."""
        shelf = self._shelves.pop(org_id, None)
        if shelf is None:
            return 0
        for key in shelf.kept:
            del self._by_use[key]
        self.size_bytes -= shelf.size_bytes
        return len(shelf.kept)

    async def close(self) -> None:
        """Nothing is under way here."""

    def _drop(self, key: CacheKey) -> None:
        shelf = self._shelves.get(key.org_id)
        kept = shelf.kept.pop(key, None) if shelf is not None else None
        if shelf is None or kept is None:
            return
        del self._by_use[key]
        shelf.size_bytes -= kept.size_bytes
        self.size_bytes -= kept.size_bytes
        if not shelf.kept:
            del self._shelves[key.org_id]
