"""No limits at all: `enable_rate_limit: false`."""

from collections.abc import Sequence

from crosslogic.limits.model import NO_CEILING, Admitted, Demand, Layer, Room, Scope


class NullLimiter:
    """Admits everything and remembers nothing."""

    async def admit(self, scopes: Sequence[Scope], demand: Demand) -> Admitted:
        """Always admitted, without headroom: there is no ceiling to speak of."""
        return Admitted((), demand, None, None)

    async def look(self, scopes: Sequence[Scope]) -> Room:
        """There is no ceiling to speak of."""
        return NO_CEILING

    def settle(self, admitted: Admitted, used: Demand) -> None:
        """Nothing was reserved, so there is nothing to give back."""

    def release(self, admitted: Admitted) -> None:
        """Nothing was reserved, so there is nothing to give back."""

    def spent(self, layer: Layer, scope_id: str, month: int, cost_pusd: int) -> None:
        """No budget is enforced."""

    async def close(self) -> None:
        """Nothing is buffered here."""
