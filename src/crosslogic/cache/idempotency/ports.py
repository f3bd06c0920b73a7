"""Where the slots of idempotency keys are kept."""

from typing import Protocol

import msgspec

from crosslogic.cache.idempotency.slot import Decision
from crosslogic.cache.model import Recording
from crosslogic.kernel.ids import OrgId


class SlotKey(msgspec.Struct, frozen=True):
    """One idempotency key of one org and endpoint (`key.slot_digest`)."""

    org_id: OrgId
    digest: bytes


class Slots(Protocol):
    """The operations of `slot.py`, each as one atomic step."""

    async def begin(self, key: SlotKey, fingerprint: bytes, holder: str) -> Decision:
        """Take the slot, or learn who has it. Raises Unavailable only where the adapter is told to be strict."""
        ...

    async def renew(self, key: SlotKey, holder: str) -> None:
        """Show that the holder lives; to be called several times within a lease. Never raises."""
        ...

    async def complete(self, key: SlotKey, fingerprint: bytes, holder: str, recording: Recording | None) -> bool:
        """Put the answer into the slot; None for one too large to keep. False: not delivered, try again."""
        ...

    def release(self, key: SlotKey, holder: str) -> None:
        """Give the slot up, so that a repeat runs. Returns at once."""
        ...
