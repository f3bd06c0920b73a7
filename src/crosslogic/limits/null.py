"""No limits at all: `enable_rate_limit: false`."""

from collections.abc import Sequence

from crosslogic.limits.model import Admitted, Scope


class NullLimiter:
    """Admits everything and remembers nothing."""

    async def admit(self, scopes: Sequence[Scope], tokens: int) -> Admitted:
        """Always admitted, without headroom: there is no ceiling to speak of."""
        return Admitted((), tokens, None, None)

    def settle(self, admitted: Admitted, tokens: int) -> None:
        """Nothing was reserved, so there is nothing to give back."""

    def release(self, admitted: Admitted) -> None:
        """Nothing was reserved, so there is nothing to give back."""

    async def close(self) -> None:
        """Nothing is buffered here."""
