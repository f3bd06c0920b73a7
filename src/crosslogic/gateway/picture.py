"""How old this process's picture of tenants and nodes is, and from when on nobody is served by it. Decides alone.

Suspensions and revocations come through the database. A gateway that cannot read it serves on with what it knows, for
an outage of the database shall be none of callers; but not for ever, or a revoked key would work as long as a broken
network lasts.

Invariants: a picture is as old as the beginning of the reading that last confirmed it, never younger; `outdated` costs
a request one look at a flag, which `check` turns within the watchdog's interval and `confirmed` at once.
"""

import logging
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Picture:
    """Watched by a `Watchdog`; all times are the event loop's."""

    def __init__(self, stale_after_s: float, now_s: float, tell_age: Callable[[float], None]) -> None:
        """`stale_after_s` 0: it never gets too old. `tell_age` is told the age in seconds at each check."""
        self.outdated = False
        self._stale_after_s = stale_after_s
        self._as_of_s = now_s
        self._tell_age = tell_age

    def confirmed(self, as_of_s: float) -> None:
        """All that had changed until then is in the picture."""
        self._as_of_s = max(self._as_of_s, as_of_s)
        if self.outdated:
            self.outdated = False
            _log.warning("the database can be read again; requests are served again")

    def check(self, now_s: float) -> None:
        age_s = now_s - self._as_of_s
        self._tell_age(age_s)
        if not self.outdated and 0 < self._stale_after_s <= age_s:
            self.outdated = True
            _log.error(
                "the database could not be read for %.0f s (auth.stale_after_s): requests are refused until it can",
                age_s,
            )
