"""Who may do what only one process should do: leases that name one holder at a time, kept by a store all can reach.

Invariants of every store (`tests/contract/test_coordination_leases.py`):
- At most one holder at any moment of the store's own clock.
- A fence rises with each change of holder, and never falls; what is written with an old fence can be refused.
- A holder that dies loses its lease `ttl_s` after it last kept it, and nobody has to clean up after it.
"""

from typing import Protocol


class LeaseStore(Protocol):
    async def acquire(self, name: str, holder: str, ttl_s: float) -> int | None:
        """Take the lease, or keep it: its fence, or None while somebody else holds it.

        `holder` is unique to one life of one process. Raises OSError, TimeoutError or the store's own error
        (see `UNREACHABLE` of each adapter) when the store is away: then nobody knows, and nobody may begin to lead.
        """
        ...

    async def release(self, name: str, holder: str) -> None:
        """Give it back, so that the next one need not wait; nothing happens if somebody else has it."""
        ...

    async def holder(self, name: str) -> str | None:
        """Who holds it now."""
        ...

    async def close(self) -> None: ...
