"""What the gateway asks the queue, and what the queue asks about the fleet.

answer = await queue.turn(ask)            # at once while there are places, else when it is its turn
if isinstance(answer, Shed): refuse
try:
    pick, dispatch, relay                  # no await between `turn` and the dispatch that takes the place
finally:
    # (where `ask.on_preempt` was called and what ran was given up: answer = await queue.again(answer), and once more)
    queue.done(answer, prompt_tokens, output_tokens)   # after the place is free again
"""

from typing import Protocol

from crosslogic.queueing.board.model import Board
from crosslogic.queueing.model import Shed, Standing, Turn, TurnAsk


class Capacity(Protocol):
    """Places on nodes, as the scheduler counts them. Called for each request: must be quick, and change nothing."""

    def free(self, line: str) -> int:
        """Requests that could be dispatched to the line's nodes now: sum of (most running - in flight)."""
        ...

    def total(self, line: str) -> int:
        """All places of the line, taken or not; 0 when no node could serve it at present."""
        ...


class TurnQueue(Protocol):
    """Between `limits.admit` and `scheduling.pick`."""

    async def turn(self, ask: TurnAsk) -> Turn | Shed:
        """A turn, at once or after waiting; or why there is none, by the ask's deadline at the latest.

        Cancelling it takes the request out of the queue. A turn is `done` exactly once, whatever becomes of it.
        Where no node could serve the line at all, the turn is given at once: the scheduler knows what to say.
        """
        ...

    def done(self, turn: Turn, prompt_tokens: int, output_tokens: int) -> None:
        """The request has left its node, and used so many tokens (0 when nothing ran). A second call does nothing."""
        ...

    async def again(self, turn: Turn) -> Turn | Shed:
        """Give this turn back, of a request that was interrupted before it sent anything, and wait for another one.

        It keeps its old place, its time of waiting goes on where it stood, and no bound refuses it. The given turn
        is `done` by this.
        """
        ...

    def leave(self, request_id: str) -> None:
        """The caller of a waiting request is gone: its `turn` answers `Shed(LEFT)`. Nothing happens to others."""
        ...

    def standing(self, request_id: str) -> Standing | None:
        """Position and estimated wait of a waiting request; None when it does not wait here."""
        ...

    def remove(self, request_id: str) -> bool:
        """Take a waiting request out for somebody else than its caller; False when it does not wait here."""
        ...

    def board(self) -> Board:
        """What waits and runs in this process, for those who look at it."""
        ...

    def waiting(self) -> int:
        """Requests that wait in this process."""
        ...

    def places_changed(self) -> None:
        """The fleet has changed in another way than by `done`: a node came, recovered, or grew."""
        ...

    async def close(self) -> None:
        """Refuse all that wait, and stop."""
        ...
