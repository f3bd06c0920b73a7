"""The durable journal, as the hot path sees it."""

import asyncio
from typing import Protocol

from crosslogic.kernel.ids import RequestId
from crosslogic.metering.model import Checkpoint, Intent, UsageRecord


class Journal(Protocol):
    def intend(self, intent: Intent) -> "asyncio.Future[None]":
        """Append before dispatch, and return a future as `record` does: no node may be asked before it is done."""
        ...

    def mark(self, checkpoint: Checkpoint) -> None:
        """Append how far a request has come. Returns at once."""
        ...

    def withdraw(self, request_id: RequestId) -> None:
        """Append that what `intend` announced was given up and bills nothing. Returns at once."""
        ...

    def record(self, usage: UsageRecord) -> "asyncio.Future[None]":
        """Append and return a future that is done once the record is fsynced (group commit).

        The future fails with `Unavailable` when the disk refuses; the caller must then not be told
        that its answer is complete.
        """
        ...

    @property
    def healthy(self) -> bool:
        """False while the disk refuses: a request that is not yet dispatched should then be refused (503)."""
        ...

    async def close(self) -> None:
        """Commit what is pending and close the segment."""
        ...
