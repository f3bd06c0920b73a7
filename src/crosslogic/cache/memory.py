"""The response cache of one process: bounded bytes, least recently used goes first, time to live.

Invariants: the bytes of all answers together never exceed `most_bytes`, those of one org never `most_org_bytes` (one
org cannot push the others out entirely), and its answers are at most `most_org_answers`; an answer is never given
after its time, nor after it was cleared. Lists and clearing pass the event loop on every few hundred answers, so no
request waits for them.
"""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Iterable
from itertools import count

import msgspec

from crosslogic.cache.model import (
    ENTRY_OVERHEAD_BYTES,
    EVERYTHING,
    CachedAnswer,
    CacheKey,
    Entry,
    EntryPage,
    Recording,
    Selection,
    selections_of,
)
from crosslogic.cache.null import Uncounted
from crosslogic.cache.ports import CacheObserver
from crosslogic.cache.position import Position, position_at
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import OrgId

AT_ONCE = 500
MOST_CLEARINGS = 1000  # remembered apart for each org; beyond it all of the org's answers are cleared together


class _Kept(msgspec.Struct):
    recording: Recording
    cached_at_s: float
    until_s: float  # monotonic
    size_bytes: int
    generation: tuple[int, ...]
    hit_count: int = 0


class _Shelf:
    """The answers of one org, least recently used first, and when which of them were cleared last."""

    __slots__ = ("clearings", "kept", "size_bytes")

    def __init__(self) -> None:
        self.kept: OrderedDict[CacheKey, _Kept] = OrderedDict()
        self.clearings: dict[Selection, int] = {}
        self.size_bytes = 0

    def generation(self, recording: Recording) -> tuple[int, ...]:
        """Differs before and after a clearing that takes such a recording."""
        if not self.clearings:
            return ()
        return tuple(self.clearings.get(of, 0) for of in selections_of(recording.env_id, recording.model))

    def holds(self, kept: _Kept) -> bool:
        """Not cleared."""
        return not self.clearings or self.generation(kept.recording) == (kept.generation or (0, 0, 0, 0))

    def clear(self, of: Selection, number: int) -> None:
        if len(self.clearings) >= MOST_CLEARINGS:
            self.clearings.clear()
            of = EVERYTHING
        self.clearings[of] = number


class MemoryCache:
    """A `ResponseCache` in this process's memory."""

    def __init__(
        self,
        clock: Clock,
        *,
        most_bytes: int = 256 * 1024 * 1024,
        most_org_bytes: int | None = None,
        most_org_answers: int = 100_000,
        observer: CacheObserver | None = None,
    ) -> None:
        """`most_org_bytes` is a quarter of everything unless given."""
        self._clock = clock
        self._most_bytes = most_bytes
        self._most_org_bytes = most_bytes // 4 if most_org_bytes is None else most_org_bytes
        self._most_org_answers = most_org_answers
        self._observer = observer or Uncounted()
        self._clearing_numbers = count(1)
        self.forget_all()

    def __len__(self) -> int:
        return len(self._by_use)

    async def get(self, key: CacheKey) -> CachedAnswer | None:
        """The answer kept under the key, counted as a hit."""
        shelf, kept = self._find(key)
        if shelf is None or kept is None:
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
        shelf, evicted = self._shelves.get(key.org_id), 0
        while shelf is not None and shelf.kept and self._is_full(shelf, size_bytes):
            self._drop(next(iter(shelf.kept)))
            evicted += 1
        while self.size_bytes + size_bytes > self._most_bytes:
            self._drop(next(iter(self._by_use)))
            evicted += 1
        shelf = self._shelves.setdefault(key.org_id, _Shelf())
        now_s, until_s = self._clock.now().timestamp(), self._clock.monotonic_s() + ttl_s
        shelf.kept[key] = _Kept(recording, now_s, until_s, size_bytes, shelf.generation(recording))
        shelf.size_bytes += size_bytes
        self.size_bytes += size_bytes
        self._by_use[key] = None
        self._observer.cache_stored(recording.model, size_bytes)
        self._observer.cache_held(self.size_bytes)
        if evicted:
            self._observer.cache_evicted(evicted)

    async def entries(
        self, org_id: OrgId, of: Selection = EVERYTHING, *, cursor: str | None = None, limit: int = 100
    ) -> EntryPage:
        """Some of an org's answers in order of their end."""
        after = position_at(cursor)
        shelf = self._shelves.get(org_id)
        found: list[tuple[Position, CacheKey]] = []
        for keys in _slices(() if shelf is None else shelf.kept):
            for key in keys:
                kept = self._find(key)[1]
                if kept is not None and of.includes(kept.recording.env_id, kept.recording.model):
                    position = _position(key, kept)
                    if position > after:
                        found.append((position, key))
            found = heapq.nsmallest(limit + 1, found)
            await asyncio.sleep(0)
        page = [entry for _, key in found[:limit] if (entry := await self.entry(key)) is not None]
        return EntryPage(tuple(page), found[limit - 1][0].cursor() if len(found) > limit else None)

    async def entry(self, key: CacheKey) -> Entry | None:
        """One answer, without counting it as a hit."""
        kept = self._find(key)[1]
        if kept is None:
            return None
        recording = kept.recording
        return Entry(
            key,
            recording.request_id,
            recording.env_id,
            recording.endpoint,
            recording.model,
            recording.streamed,
            kept.size_bytes,
            kept.hit_count,
            kept.cached_at_s,
            kept.until_s - self._clock.monotonic_s(),
        )

    async def key_of(self, org_id: OrgId, request_id: str) -> CacheKey | None:
        """The answer that this request of the org got from a node."""
        shelf = self._shelves.get(org_id)
        for keys in _slices(() if shelf is None else shelf.kept):
            for key in keys:
                kept = self._find(key)[1]
                if kept is not None and kept.recording.request_id == request_id:
                    return key
            await asyncio.sleep(0)
        return None

    async def delete(self, key: CacheKey) -> bool:
        """Forget one answer; whether there was one."""
        found = self._find(key)[1] is not None
        self._drop(key)
        self._observer.cache_held(self.size_bytes)
        return found

    async def delete_of(self, org_id: OrgId, request_id: str) -> bool:
        """Forget the answer that this request got from a node; whether there was one."""
        key = await self.key_of(org_id, request_id)
        return key is not None and await self.delete(key)

    async def clear(self, org_id: OrgId, of: Selection = EVERYTHING) -> int:
        """Forget answers of an org; how many there were. From the first moment on none of them is given."""
        shelf = self._shelves.get(org_id)
        if shelf is None:
            return 0
        lived = 0
        now_s = self._clock.monotonic_s()
        shelf.clear(of, next(self._clearing_numbers))
        for keys in _slices(shelf.kept):
            for key in keys:
                kept = shelf.kept.get(key)
                if kept is not None and not shelf.holds(kept):
                    lived += now_s < kept.until_s
                    self._drop(key)
            self._observer.cache_held(self.size_bytes)
            await asyncio.sleep(0)
        return lived

    def forget_all(self) -> None:
        """Forget all answers of everybody, at once."""
        self._shelves: dict[OrgId, _Shelf] = {}
        self._by_use: OrderedDict[CacheKey, None] = OrderedDict()
        self.size_bytes = 0
        self._observer.cache_held(0)

    async def close(self) -> None:
        """Nothing is under way here."""

    def _is_full(self, shelf: _Shelf, size_bytes: int) -> bool:
        """Whether an answer of this size has no place beside those that are there."""
        return shelf.size_bytes + size_bytes > self._most_org_bytes or len(shelf.kept) >= self._most_org_answers

    def _find(self, key: CacheKey) -> tuple[_Shelf | None, _Kept | None]:
        shelf = self._shelves.get(key.org_id)
        kept = shelf.kept.get(key) if shelf is not None else None
        if shelf is None or kept is None:
            return shelf, None
        if self._clock.monotonic_s() >= kept.until_s or not shelf.holds(kept):
            self._drop(key)
            return shelf, None
        return shelf, kept

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


def _position(key: CacheKey, kept: _Kept) -> Position:
    return Position(int(kept.until_s * 1000), key.digest)


def _slices(keys: Iterable[CacheKey]) -> Iterable[list[CacheKey]]:
    """The keys that are there now, a few hundred at a time."""
    present = list(keys)
    return (present[start : start + AT_ONCE] for start in range(0, len(present), AT_ONCE))
