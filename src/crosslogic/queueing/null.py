"""No queue: `enable_queuing: false`. The scheduler alone says whether a node has room."""

from crosslogic.queueing.board.model import Board
from crosslogic.queueing.model import Standing, Turn, TurnAsk


class NullQueue:
    """Everybody has a turn at once, and nothing is remembered."""

    async def turn(self, ask: TurnAsk) -> Turn:
        """Always at once."""
        return Turn(ask, 0.0, 0.0)

    def done(self, turn: Turn, prompt_tokens: int, output_tokens: int) -> None:
        """Nothing was held."""

    async def again(self, turn: Turn) -> Turn:
        """Nobody is ever put back."""
        return turn

    def leave(self, request_id: str) -> None:
        """Nobody waits."""

    def standing(self, request_id: str) -> Standing | None:
        """Nobody waits."""
        return None

    def remove(self, request_id: str) -> bool:
        """Nobody waits."""
        return False

    def board(self) -> Board:
        """Nobody waits, and who runs is not known here."""
        return Board()

    def waiting(self) -> int:
        """Nobody waits."""
        return 0

    def places_changed(self) -> None:
        """Nobody waits."""

    async def close(self) -> None:
        """Nothing to stop."""
