"""Slots of one process.

Invariants: answers together never exceed `most_bytes`, and slots never `most_slots`. The oldest answers go first, and
leave a slot that says `Spent`: a repeat is then refused, not run and billed a second time. Only beyond `most_slots`
is a done slot forgotten before its time; a running one never is.
"""

from collections import OrderedDict

import msgspec

from crosslogic.cache.idempotency import slot as machine
from crosslogic.cache.idempotency.ports import SlotKey
from crosslogic.cache.idempotency.slot import Decision, Run, Slot
from crosslogic.cache.model import ENTRY_OVERHEAD_BYTES, Recording
from crosslogic.kernel.clock import Clock

PURGE_AT_ONCE = 8


class MemorySlots:
    """`Slots` in this process's memory."""

    def __init__(
        self,
        clock: Clock,
        *,
        lease_s: float = 30.0,
        ttl_s: float = 86_400.0,
        most_bytes: int = 64 * 1024 * 1024,
        most_slots: int = 100_000,
    ) -> None:
        self._now_s = clock.monotonic_s
        self._lease_s = lease_s
        self._ttl_s = ttl_s
        self._most_bytes = most_bytes
        self._most_slots = most_slots
        # both oldest first, which is also who ends first: every lease is as long as any other, and so is every memory
        self._running: OrderedDict[SlotKey, Slot] = OrderedDict()
        self._done: OrderedDict[SlotKey, Slot] = OrderedDict()
        self._answers: OrderedDict[SlotKey, int] = OrderedDict()  # bytes of the answers in `_done`, oldest first
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._running) + len(self._done)

    async def begin(self, key: SlotKey, fingerprint: bytes, holder: str) -> Decision:
        """Take the slot, or learn who has it."""
        return self.decide(key, fingerprint, holder)

    def decide(self, key: SlotKey, fingerprint: bytes, holder: str) -> Decision:
        """`begin`, without waiting."""
        self._purge()
        decision, slot = machine.begin(self._slot(key), fingerprint, holder, self._now_s(), self._lease_s)
        if isinstance(decision, Run) and slot is not None:
            self._forget(key)
            self._running[key] = slot
        return decision

    def look(self, key: SlotKey, fingerprint: bytes) -> Decision | None:
        """What `begin` would answer to somebody new, if it were not `Run`."""
        slot = machine.live(self._slot(key), self._now_s())
        return None if slot is None else machine.begin(slot, fingerprint, "", self._now_s(), self._lease_s)[0]

    async def renew(self, key: SlotKey, holder: str) -> None:
        """Show that the holder lives."""
        self._put(key, machine.renew(self._slot(key), holder, self._now_s(), self._lease_s))

    async def complete(self, key: SlotKey, fingerprint: bytes, holder: str, recording: Recording | None) -> bool:
        """Put the answer into the slot; always delivered."""
        if recording is not None and recording.size_bytes + ENTRY_OVERHEAD_BYTES > self._most_bytes:
            recording = None
        now_s = self._now_s()
        self._put(key, machine.complete(self._slot(key), fingerprint, holder, recording, now_s, self._ttl_s))
        while self.size_bytes > self._most_bytes:
            self._spend(next(iter(self._answers)))
        while len(self._done) > 0 and len(self) > self._most_slots:
            self._forget(next(iter(self._done)))
        return True

    def release(self, key: SlotKey, holder: str) -> None:
        """Give the slot up."""
        self._put(key, machine.release(self._slot(key), holder, self._now_s()))

    def forget(self, key: SlotKey, holder: str) -> None:
        """Remember nothing of this holder's slot, done or not."""
        slot = self._slot(key)
        if slot is not None and slot.holder == holder:
            self._forget(key)

    def _slot(self, key: SlotKey) -> Slot | None:
        return self._running.get(key) or self._done.get(key)

    def _put(self, key: SlotKey, slot: Slot | None) -> None:
        if slot is not None and slot is self._slot(key):
            return
        self._forget(key)
        if slot is None:
            return
        if not slot.done:
            self._running[key] = slot
            return
        self._done[key] = slot
        if slot.recording is not None:
            size_bytes = slot.recording.size_bytes + ENTRY_OVERHEAD_BYTES
            self._answers[key] = size_bytes
            self.size_bytes += size_bytes

    def _spend(self, key: SlotKey) -> None:
        self.size_bytes -= self._answers.pop(key)
        self._done[key] = msgspec.structs.replace(self._done[key], recording=None)

    def _forget(self, key: SlotKey) -> None:
        self._running.pop(key, None)
        self._done.pop(key, None)
        self.size_bytes -= self._answers.pop(key, 0)

    def _purge(self) -> None:
        """Forget a few slots whose time is over."""
        now_s = self._now_s()
        for slots in (self._running, self._done):
            for _ in range(min(PURGE_AT_ONCE, len(slots))):
                oldest = next(iter(slots))
                if now_s < slots[oldest].until_s:
                    break
                self._forget(oldest)
