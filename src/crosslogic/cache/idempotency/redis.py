"""Slots that all gateway workers share, in Redis, with this worker's own in front.

What this worker runs or has answered itself is decided from its memory, without a call. Everything else is one call
to Redis.

Invariants: nothing waits longer than `wait_s`; of repeats that reach one worker only one runs, whatever Redis does.
While Redis is away, a repeat that reaches *another* worker runs too and is billed too; where that must not be,
`strict` refuses requests with a key instead. Answers of one org kept within one time to live are at most
`most_org_bytes` (so at most twice that at any moment); beyond it a repeat is refused as `Spent`.
"""

from importlib.resources import files

from crosslogic.cache.idempotency.memory import MemorySlots
from crosslogic.cache.idempotency.ports import SlotKey
from crosslogic.cache.idempotency.slot import CONFLICT, JOIN, RUN, SPENT, Decision, Replay, Run, Spent
from crosslogic.cache.model import Recording
from crosslogic.cache.packing import packed, unpacked
from crosslogic.cache.scripts import Scripts
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Unavailable
from crosslogic.net.redis import RedisConnection, Reply

SCRIPT = files("crosslogic.cache.idempotency").joinpath("slot.lua").read_text(encoding="utf-8")

_DECISIONS: dict[bytes, Decision] = {b"run": RUN, b"join": JOIN, b"spent": SPENT, b"conflict": CONFLICT}


class RedisSlots:
    """`Slots` in Redis."""

    def __init__(
        self,
        connection: RedisConnection,
        clock: Clock,
        *,
        prefix: str = "crosslogic:idempotency:",
        wait_s: float = 0.05,
        away_s: float = 1.0,
        lease_s: float = 30.0,
        ttl_s: float = 86_400.0,
        most_answer_bytes: int = 4 * 1024 * 1024,
        most_org_bytes: int = 256 * 1024 * 1024,
        strict: bool = False,
    ) -> None:
        """`prefix` must not contain braces: the org's id is the hash tag."""
        self._scripts = Scripts(connection, clock, SCRIPT, wait_s=wait_s, away_s=away_s)
        self._own = MemorySlots(clock, lease_s=lease_s, ttl_s=ttl_s)
        self._prefix = prefix
        self._lease_ms = int(lease_s * 1000)
        self._ttl_ms = int(ttl_s * 1000)
        self._most_answer_bytes = most_answer_bytes
        self._most_org_bytes = most_org_bytes
        self._strict = strict
        self.decided_alone = 0  # requests with a key that were let through without Redis

    async def begin(self, key: SlotKey, fingerprint: bytes, holder: str) -> Decision:
        """Take the slot, or learn who has it. Raises Unavailable when `strict` and Redis does not answer in time."""
        own = self._own.look(key, fingerprint)
        if own is not None and not isinstance(own, Spent):
            return own
        try:
            reply = await self._ask(key, "begin", fingerprint, holder, self._lease_ms)
        except Unavailable:
            if self._strict:
                raise
            self.decided_alone += 1
            return self._own.decide(key, fingerprint, holder)
        return await self._read(key, fingerprint, holder, reply)

    async def renew(self, key: SlotKey, holder: str) -> None:
        """Show that the holder lives."""
        await self._own.renew(key, holder)
        self._tell(key, "renew", b"", holder, self._lease_ms)

    async def complete(self, key: SlotKey, fingerprint: bytes, holder: str, recording: Recording | None) -> bool:
        """Put the answer into the slot; False when Redis did not take it in time."""
        answer = b""
        if recording is not None and recording.size_bytes <= self._most_answer_bytes:
            answer = await packed(recording)
        try:
            reply = await self._ask(key, "complete", fingerprint, holder, self._ttl_ms, answer)
        except Unavailable:
            await self._own.complete(key, fingerprint, holder, recording)
            return False
        if reply[0] == b"kept":  # another worker has begun since, or finished: its word counts
            self._own.forget(key, holder)
        else:
            await self._own.complete(key, fingerprint, holder, recording)
        return True

    def release(self, key: SlotKey, holder: str) -> None:
        """Give the slot up."""
        self._own.release(key, holder)
        self._tell(key, "release", b"", holder, 0)

    async def _read(self, key: SlotKey, fingerprint: bytes, holder: str, reply: Reply) -> Decision:
        if reply[0] == b"replay":
            recording = await unpacked(reply[1], self._most_answer_bytes)
            return SPENT if recording is None else Replay(recording)
        decision = _DECISIONS[reply[0]]
        if isinstance(decision, Run):
            own = self._own.decide(key, fingerprint, holder)
            if not isinstance(own, Run):  # somebody here began meanwhile, while Redis did not answer
                self._tell(key, "release", b"", holder, 0)
                return own
        return decision

    async def _ask(
        self, key: SlotKey, what: str, fingerprint: bytes, holder: str, ttl_ms: int, answer: bytes = b""
    ) -> Reply:
        keys = self._keys(key)
        return await self._scripts.run(keys, what, fingerprint, holder, ttl_ms, answer, self._most_org_bytes)

    def _tell(self, key: SlotKey, what: str, fingerprint: bytes, holder: str, ttl_ms: int) -> None:
        self._scripts.tell(self._keys(key), what, fingerprint, holder, ttl_ms, b"", self._most_org_bytes)

    def _keys(self, key: SlotKey) -> tuple[str, str]:
        start = f"{self._prefix}{{{key.org_id}}}:"
        return f"{start}{key.digest.hex()}", f"{start}bytes"
