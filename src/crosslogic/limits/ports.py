"""The one port through which every request is admitted and settled."""

from collections.abc import Sequence
from typing import Protocol

from crosslogic.limits.model import Admitted, Rejected, Scope


class Limiter(Protocol):
    async def admit(self, scopes: Sequence[Scope], tokens: int) -> Admitted | Rejected:
        """Reserve one request, `tokens` and one concurrency slot in all scopes, or nothing in any.

        Never raises and never waits longer than its configured bound: when its store is gone it
        enforces this process's share (design §4.2; architecture document §14-15).
        """
        ...

    def settle(self, admitted: Admitted, tokens: int) -> None:
        """Replace the reserved tokens by those used and give back the slot. Returns at once."""
        ...

    def release(self, admitted: Admitted) -> None:
        """Give back everything: nothing ran. Returns at once."""
        ...

    async def close(self) -> None:
        """Send what is still to be settled, then stop."""
        ...
