"""The response cache that all gateway workers share, in Redis.

Invariants: a look-up waits at most `wait_s`, and a Redis that is away is a miss; keeping an answer is never waited
for; the bytes of one org never exceed `most_org_bytes` (those that end first give way); every answer of an org is
found when the org is cleared. Long answers are packed and unpacked off the event loop.

Give it a connection of its own: replies come in order, so a long answer would hold up those of the limits.
"""

import asyncio
from importlib.resources import files

from crosslogic.cache import codec
from crosslogic.cache.model import ENTRY_OVERHEAD_BYTES, CachedAnswer, CacheKey, Recording
from crosslogic.cache.packing import OFF_LOOP_FROM_BYTES, packed, unpacked
from crosslogic.cache.scripts import Scripts
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import OrgId
from crosslogic.net.redis import RedisConnection

SCRIPT = files("crosslogic.cache").joinpath("answers.lua").read_text(encoding="utf-8")
MANAGEMENT_WAIT_S = 2.0
CLEAR_AT_ONCE = 500
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
        most_answer_bytes: int = 4 * 1024 * 1024,
    ) -> None:
        """`prefix` must not contain braces: the org's id is the hash tag."""
        self._scripts = Scripts(connection, clock, SCRIPT, wait_s=wait_s, away_s=away_s)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._prefix = prefix
        self._most_org_bytes = most_org_bytes
        self._most_answer_bytes = most_answer_bytes
        self._writing: set[asyncio.Task[None]] = set()
        self.unreadable = 0  # answers found, but written by another version or damaged

    @property
    def unanswered(self) -> int:
        """Calls that Redis did not answer in time so far."""
        return self._scripts.unanswered

    async def get(self, key: CacheKey) -> CachedAnswer | None:
        """The answer kept under the key, counted as a hit; None also when Redis does not answer in time."""
        try:
            reply = await self._scripts.run(self._keys(key), "get")
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
            self._send(key, codec.write(recording), ttl_s)
            return
        task = self._loop.create_task(self._pack_and_send(key, recording, ttl_s))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def delete(self, key: CacheKey) -> bool:
        """Forget one answer; whether there was one. Raises Unavailable."""
        digest = key.digest.hex()
        return bool(await self._scripts.run(self._keys(key), "delete", digest, wait_s=MANAGEMENT_WAIT_S))

    async def clear(self, org_id: OrgId) -> int:
        """Forget all answers of an org, a few hundred at a time; how many there were. Raises Unavailable."""
        keys, lived = self._keys(CacheKey(org_id, b"")), 0
        while True:
            reply = await self._scripts.run(
                keys, "clear", CLEAR_AT_ONCE, self._answer_prefix(org_id), wait_s=MANAGEMENT_WAIT_S
            )
            lived += int(reply[1])
            if reply[0] < CLEAR_AT_ONCE:
                return lived

    async def close(self) -> None:
        """Send what is being packed; waits at most a second."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=CLOSE_S)

    async def _pack_and_send(self, key: CacheKey, recording: Recording, ttl_s: float) -> None:
        self._send(key, await packed(recording), ttl_s)

    def _send(self, key: CacheKey, value: bytes, ttl_s: float) -> None:
        size_bytes = len(value) + ENTRY_OVERHEAD_BYTES
        if size_bytes > self._most_org_bytes:
            return
        self._scripts.tell(
            self._keys(key),
            "set",
            key.digest.hex(),
            value,
            repr(self._clock.now().timestamp()),
            max(1, int(ttl_s * 1000)),
            size_bytes,
            self._most_org_bytes,
            self._answer_prefix(key.org_id),
        )

    def _answer_prefix(self, org_id: OrgId) -> str:
        return f"{self._prefix}{{{org_id}}}:"

    def _keys(self, key: CacheKey) -> tuple[str, str, str]:
        start = self._answer_prefix(key.org_id)
        return f"{start}{key.digest.hex()}", f"{start}index", f"{start}sizes"
