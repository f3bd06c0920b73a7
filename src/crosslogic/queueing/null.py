"""No queue: `enable_queuing: false`. The scheduler alone says whether a node has room."""

from crosslogic.queueing.model import Standing, Turn, TurnAsk


class NullQueue:
    """Everybody has a turn at once, and nothing is remembered."""

    async def turn(self, ask: TurnAsk) -> Turn:
        """Always at once."""
        return Turn(ask, 0.0, 0.0)

    def done(self, turn: Turn, prompt_tokens: int, output_tokens: int) -> None:
        """Nothing was held."""

    def leave(self, request_id: str) -> None:
        """Nobody waits."""

    def standing(self, request_id: str) -> Standing | None:
        """Nobody waits."""
        return None

    def waiting(self) -> int:
        """Nobody waits."""
        return 0

    def places_changed(self) -> None:
        """Nobody waits."""

    async def close(self) -> None:
        """Nothing to stop."""
