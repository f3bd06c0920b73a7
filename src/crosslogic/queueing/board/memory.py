"""The board of the one process that has the queue: asked directly."""

from crosslogic.queueing.board.model import Board
from crosslogic.queueing.null import NullQueue
from crosslogic.queueing.ports import TurnQueue


class MemoryBoard:
    """A `QueueBoard`. Management may be built before the gateway is: until `show` nothing waits."""

    def __init__(self) -> None:
        self._queue: TurnQueue = NullQueue()

    def show(self, queue: TurnQueue) -> None:
        """From now on this queue is the one."""
        self._queue = queue

    async def board(self) -> Board:
        return self._queue.board()

    async def remove(self, request_id: str) -> bool:
        return self._queue.remove(request_id)
