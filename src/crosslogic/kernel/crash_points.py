"""Named places in the code at which a test may have the process end at once, as `kill -9` would.

Invariant: outside of such tests `reach` does nothing, and costs one call of an empty function. A process is armed by
`arm` alone, at most once, before it works.
"""

import os
from collections.abc import Callable
from typing import Final

from crosslogic.kernel.errors import ConfigurationError

KILLED = 137  # the exit code of a process that SIGKILL ended

METERING: Final = frozenset(
    {
        "journal.before_write",
        "journal.written",
        "journal.synced",
        "journal.told",
        "journal.segment_made",
        "journal.segment_finished",
        "flush.read",
        "flush.inserted",
        "flush.before_interrupt",
        "flush.interrupted",
        "flush.before_delete",
        "flush.deleted",
        "ledger.heads_made",
        "ledger.heads_locked",
        "ledger.rows_added",
        "ledger.before_commit",
        "ledger.committed",
        "rollup.locked",
        "rollup.hours_added",
        "rollup.days_added",
        "rollup.before_commit",
        "rollup.committed",
    }
)
MONEY: Final = frozenset(
    {
        "rating.held",
        "rating.charges_added",
        "rating.committed",
        "invoice.claimed",
        "invoice.drafted",
        "invoice.numbered",
        "invoice.issued",
        "payment.written",
        "payment.claimed",
        "payment.sent",
        "payment.recorded",
        "payment.applied",
        "refund.credited",
        "chargeback.followed",
        "webhook.claimed",
        "webhook.acted",
        "export.sealed",
        "export.claimed",
        "export.sent",
    }
)
RETENTION: Final = frozenset(
    {
        "retention.begun",
        "retention.before_commit",
        "retention.decided",
        "retention.detached",
        "retention.moved",
        "retention.month_dropped",
        "retention.page_deleted",
        "retention.removed",
    }
)
ANSWERS: Final = frozenset({"answer.recorded", "answer.kept"})
NAMES: Final = METERING | MONEY | RETENTION | ANSWERS


class _Armed:
    def __init__(self, name: str, hit: int) -> None:
        self._name = name
        self._left = hit

    def __call__(self, name: str) -> None:
        if name == self._name:
            self._left -= 1
            if self._left <= 0:
                os._exit(KILLED)


def _nothing(_name: str) -> None:
    """What `reach` is in production."""


_reached: Callable[[str], None] = _nothing


def reach(name: str) -> None:
    """The process is at this point now."""
    _reached(name)


def arm(wanted: str) -> None:
    """`name:hit`: end this process when it is at the point for the so-manieth time. Raises ConfigurationError."""
    global _reached
    name, _, hit = wanted.partition(":")
    if name not in NAMES or not hit.isdigit():
        raise ConfigurationError(
            f"there is no crash point {wanted!r}; write one of {', '.join(sorted(NAMES))} and :hit"
        )
    _reached = _Armed(name, int(hit))
