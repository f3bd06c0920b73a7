"""The one port through which every request is admitted and settled."""

from collections.abc import Sequence
from typing import Protocol

from crosslogic.limits.model import Admitted, Demand, Layer, Rejected, Room, Scope


class Limiter(Protocol):
    async def admit(self, scopes: Sequence[Scope], demand: Demand) -> Admitted | Rejected:
        """Reserve one request, what it demands and one concurrency slot in all scopes, or nothing in any.

        Never raises and never waits longer than its configured bound: when its store is gone it
        enforces this process's share (design §4.2; architecture document §14-15).
        """
        ...

    async def look(self, scopes: Sequence[Scope]) -> Room:
        """What `admit` would tell of these scopes at present; takes nothing, and waits no longer than that does.

        For the headers of answers to requests that fail before they ask to pass.
        """
        ...

    def settle(self, admitted: Admitted, used: Demand) -> None:
        """Replace what was reserved by what was used and give back the slot. Returns at once."""
        ...

    def release(self, admitted: Admitted) -> None:
        """Give back everything: nothing ran. Returns at once."""
        ...

    def spent(self, layer: Layer, scope_id: str, month: int, cost_pusd: int) -> None:
        """The ledger has so much for a scope and a calendar month (`budget.month_number`); returns at once.

        From the next `admit` on the scope's month counts at least that, whatever the counters have lost.
        """
        ...

    async def close(self) -> None:
        """Send what is still to be settled, then stop."""
        ...
