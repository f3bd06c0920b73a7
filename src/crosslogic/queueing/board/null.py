"""The board of a management process that no gateway reports to."""

from crosslogic.kernel.errors import Unavailable
from crosslogic.queueing.board.model import Board


class NullBoard:
    """A `QueueBoard`: with `why` nobody can tell what waits, without it nothing ever does."""

    def __init__(self, why: str | None = None) -> None:
        self._why = why

    async def board(self) -> Board:
        if self._why is not None:
            raise Unavailable(self._why)
        return Board()

    async def remove(self, request_id: str) -> bool:
        if self._why is not None:
            raise Unavailable(self._why)
        return False
