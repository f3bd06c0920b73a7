"""The durable journal, as the hot path sees it."""

import asyncio
from typing import Protocol

from crosslogic.metering.model import Intent, UsageRecord


class Journal(Protocol):
    def intend(self, intent: Intent) -> None:
        """Append before dispatch; it becomes durable with the next commit. Returns at once."""
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
