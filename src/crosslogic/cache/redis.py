"""The response cache that all gateway workers share, in Redis.

Invariants: a look-up waits at most `wait_s`, and a Redis that is away is a miss; keeping an answer is never waited
for; the bytes of one org never exceed `most_org_bytes` and its answers `most_org_answers` (those that end first give
way); what is cleared is given by no worker any more, from that moment on (`answers.lua`). Long answers are packed
and unpacked off the event loop.

Give it a connection of its own: replies come in order, so a long answer would hold up those of the limits.
"""

import asyncio
from importlib.resources import files

from crosslogic.cache import codec
from crosslogic.cache.model import (
    ENTRY_OVERHEAD_BYTES,
    EVERYTHING,
    CachedAnswer,
    CacheKey,
    Entry,
    EntryPage,
    Recording,
    Selection,
)
from crosslogic.cache.null import Uncounted
from crosslogic.cache.packing import OFF_LOOP_FROM_BYTES, packed, unpacked
from crosslogic.cache.ports import CacheObserver
from crosslogic.cache.position import START, Position, position_at
from crosslogic.cache.scripts import Scripts
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import EnvId, OrgId, RequestId
from crosslogic.net.redis import Argument, RedisConnection, Reply

SCRIPT = files("crosslogic.cache").joinpath("answers.lua").read_text(encoding="utf-8")
MANAGEMENT_WAIT_S = 2.0
SLICES_OF_A_PAGE = 20  # of 500 answers that are looked at: a filter that little passes gets a short page
CLOSE_S = 1.0


class RedisCache:
    """A `ResponseCache` in Redis."""

    def __init__(
        self,
        connection: RedisConnection,
        clock: Clock,
        *,
        prefix: str = "crosslogic:cache:",
        wait_s: float = 0.005,
        away_s: float = 1.0,
        most_org_bytes: int = 256 * 1024 * 1024,
        most_org_answers: int = 100_000,
        most_answer_bytes: int = 4 * 1024 * 1024,
        observer: CacheObserver | None = None,
    ) -> None:
        """`prefix` must not contain braces: the org's id is the hash tag."""
        self._scripts = Scripts(connection, clock, SCRIPT, wait_s=wait_s, away_s=away_s)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._prefix = prefix
        self._most_org_bytes = most_org_bytes
        self._most_answer_bytes = most_answer_bytes
        self._most_org_answers = most_org_answers
        self._observer = observer or Uncounted()
        self._writing: set[asyncio.Task[None]] = set()
        self.unreadable = 0  # answers found, but written by another version or damaged

    @property
    def unanswered(self) -> int:
        """Calls that Redis did not answer in time so far."""
        return self._scripts.unanswered

    async def get(self, key: CacheKey) -> CachedAnswer | None:
        """The answer kept under the key, counted as a hit; None also when Redis does not answer in time."""
        try:
            reply = await self._ask(key, "get")
        except Unavailable:
            return None
        if reply is None:
            return None
        value, hit_count, cached_at_s = reply
        recording = await unpacked(value, self._most_answer_bytes)
        if recording is None:
            self.unreadable += 1
            return None
        return CachedAnswer(recording, float(cached_at_s), hit_count)

    def set(self, key: CacheKey, recording: Recording, ttl_s: float) -> None:
        """Keep an answer; returns at once."""
        size_bytes = recording.size_bytes
        if size_bytes > self._most_answer_bytes or self._scripts.away:
            return
        if size_bytes < OFF_LOOP_FROM_BYTES:
            self._send(key, recording, codec.write(recording), ttl_s)
            return
        task = self._loop.create_task(self._pack_and_send(key, recording, ttl_s))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def entries(
        self, org_id: OrgId, of: Selection = EVERYTHING, *, cursor: str | None = None, limit: int = 100
    ) -> EntryPage:
        """Some of an org's answers in order of their end. Raises Unavailable, InvalidRequest."""
        after, found = position_at(cursor), list[Entry]()
        for _ in range(SLICES_OF_A_PAGE):
            reply = await self._manage(
                org_id, "list", after.end_ms, after.digest.hex(), limit - len(found), of.env_id or "", of.model or ""
            )
            after, at_end = _reached(reply)
            found += [_entry(org_id, row) for row in reply[3]]
            if at_end:
                return EntryPage(tuple(found))
            if len(found) >= limit:
                break
        return EntryPage(tuple(found), after.cursor())

    async def entry(self, key: CacheKey) -> Entry | None:
        """One answer, without counting it as a hit. Raises Unavailable."""
        reply = await self._manage(key.org_id, "entry", key.digest.hex())
        return None if reply is None else _entry(key.org_id, reply)

    async def key_of(self, org_id: OrgId, request_id: str) -> CacheKey | None:
        """The answer that this request of the org got from a node. Raises Unavailable."""
        reply = await self._manage(org_id, "key_of", request_id)
        return None if reply is None else CacheKey(org_id, bytes.fromhex(reply.decode()))

    async def delete(self, key: CacheKey) -> bool:
        """Forget one answer; whether there was one. Raises Unavailable."""
        digest = key.digest.hex()
        return bool(await self._ask(key, "delete", digest, wait_s=MANAGEMENT_WAIT_S))

    async def delete_of(self, org_id: OrgId, request_id: str) -> bool:
        """Forget the answer that this request got from a node; whether there was one."""
        key = await self.key_of(org_id, request_id)
        return key is not None and await self.delete(key)

    async def clear(self, org_id: OrgId, of: Selection = EVERYTHING) -> int:
        """Forget answers of an org, in one step; then give their space back, a few hundred at a time; how many there
        were. Raises Unavailable: after the first step nothing of it is given all the same."""
        lived, after, at_end = 0, START, False
        if not await self._manage(org_id, "clear", of.env_id or "", of.model or ""):
            return 0
        while not at_end:
            reply = await self._manage(org_id, "sweep", after.end_ms, after.digest.hex())
            after, at_end = _reached(reply)
            lived += int(reply[3])
        return lived

    async def close(self) -> None:
        """Send what is being packed; waits at most a second."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=CLOSE_S)

    async def _pack_and_send(self, key: CacheKey, recording: Recording, ttl_s: float) -> None:
        self._send(key, recording, await packed(recording), ttl_s)

    def _send(self, key: CacheKey, recording: Recording, value: bytes, ttl_s: float) -> None:
        size_bytes = len(value) + ENTRY_OVERHEAD_BYTES
        if size_bytes > self._most_org_bytes:
            return

        def done(reply: Reply) -> None:
            if isinstance(reply, int):
                self._observer.cache_stored(recording.model, size_bytes)
                if reply:
                    self._observer.cache_evicted(reply)

        self._scripts.tell(
            self._keys(key),
            "set",
            self._answer_prefix(key.org_id),
            key.digest.hex(),
            value,
            repr(self._clock.now().timestamp()),
            max(1, int(ttl_s * 1000)),
            size_bytes,
            self._most_org_bytes,
            self._most_org_answers,
            recording.request_id,
            recording.env_id,
            recording.model,
            recording.endpoint,
            int(recording.streamed),
            done=done,
        )

    async def _manage(self, org_id: OrgId, what: str, *arguments: Argument) -> Reply:
        return await self._ask(CacheKey(org_id, b""), what, *arguments, wait_s=MANAGEMENT_WAIT_S)

    async def _ask(self, key: CacheKey, what: str, *arguments: Argument, wait_s: float | None = None) -> Reply:
        prefix = self._answer_prefix(key.org_id)
        return await self._scripts.run(self._keys(key), what, prefix, *arguments, wait_s=wait_s)

    def _answer_prefix(self, org_id: OrgId) -> str:
        return f"{self._prefix}{{{org_id}}}:"

    def _keys(self, key: CacheKey) -> tuple[str, ...]:
        start = self._answer_prefix(key.org_id)
        return tuple(f"{start}{name}" for name in (key.digest.hex(), "index", "sizes", "requests", "clearings"))


def _reached(reply: Reply) -> tuple[Position, bool]:
    """The last answer that the script looked at, and whether it was the last of all."""
    return Position(int(reply[0]), bytes.fromhex(reply[1].decode())), bool(reply[2])


def _entry(org_id: OrgId, row: Reply) -> Entry:
    digest, ttl_ms, env_id, model, request_id, endpoint, streamed, size, hits, cached_at = row
    return Entry(
        CacheKey(org_id, bytes.fromhex(digest.decode())),
        RequestId(request_id.decode()),
        EnvId(env_id.decode()),
        endpoint.decode(),
        model.decode(),
        streamed == b"1",
        int(size),
        int(hits),
        float(cached_at),
        max(0.0, int(ttl_ms) / 1000),
    )
