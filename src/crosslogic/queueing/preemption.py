"""Whether a running request is put back for one that waits, and which.

Only what has sent nothing yet may be put back: its caller sees a longer wait and nothing else, and what the node has
computed for it is lost.
"""

from collections.abc import Iterable

from crosslogic.queueing.model import Turn, TurnAsk


def should_preempt(running: Turn, waiting: TurnAsk) -> bool:
    """The runner agreed to it, has sent nothing, and stands below the one that waits, by class, then by priority."""
    ask = running.ask
    return (
        running.open
        and not running.sent
        and ask.preemptible
        and (ask.traffic, ask.priority) < (waiting.traffic, waiting.priority)
    )


def victim(running: Iterable[Turn], waiting: TurnAsk) -> Turn | None:
    """Who is put back: of those that may be, the lowest, and of these the one that began last and loses least."""
    return min(
        (turn for turn in running if should_preempt(turn, waiting)),
        key=lambda turn: (turn.ask.traffic, turn.ask.priority, -turn.started_s),
        default=None,
    )
