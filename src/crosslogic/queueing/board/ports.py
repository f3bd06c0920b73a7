"""How management sees the queues of all workers, and takes a request out of them."""

from typing import Protocol

from crosslogic.queueing.board.model import Board


class QueueBoard(Protocol):
    async def board(self) -> Board:
        """What all workers hold, at most two seconds old. Raises Unavailable when that cannot be told."""
        ...

    async def remove(self, request_id: str) -> bool:
        """Have the request of this id of ours taken out, within a second; False when it is not known to wait.

        Its caller is told (`ShedReason.REMOVED`). Raises Unavailable.
        """
        ...
