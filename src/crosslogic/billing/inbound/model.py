"""Values of inbound events."""

from datetime import datetime
from typing import Any

import msgspec


class InboundEvent(msgspec.Struct, frozen=True):
    """One event, as it was told. `payload` is what was signed, to the byte."""

    provider: str
    event_id: str
    type: str
    payload: str

    def content(self) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(self.payload)
        return decoded


class StoredEvent(msgspec.Struct, frozen=True):
    """An event as it lies in the table `inbound_events`."""

    provider: str
    event_id: str
    type: str
    payload: str
    received_at: datetime
    copies: int
    attempts: int
    next_attempt_at: datetime | None
    processed_at: datetime | None
    error: str | None
