"""Looks at each ten minutes of service and each hour of usage for what is unusual, and tells operators once an episode.

Invariant: killed at any line, or run by two processes at once, it judges a window the same way, and an episode has the
window in which it began for its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.anomalies.episodes import go_on
from crosslogic.insight.anomalies.model import WINDOW, Finding, Watching
from crosslogic.insight.anomalies.rules import short_of_capacity, unusual, unusual_usage
from crosslogic.insight.anomalies.sql import AnomaliesSql
from crosslogic.insight.finops.sql import HOUR, hour_of
from crosslogic.insight.forecast.service import HISTORY, CapacityPlanner, Question
from crosslogic.insight.forecast.sql import series_of
from crosslogic.kernel.clock import Clock

LATE = timedelta(minutes=2)  # until then a window's rows come into the ledger; longer requests are in none
_MOST_WINDOWS = 6  # after a pause: what was before is nobody's news


class AnomaliesJob:
    """Run as a leased job. `watching` says how it is looked for now; None: not at all."""

    def __init__(
        self, engine: AsyncEngine, planner: CapacityPlanner, clock: Clock, watching: Callable[[], Watching | None]
    ) -> None:
        self._engine = engine
        self._anomalies = AnomaliesSql(engine)
        self._planner = planner
        self._clock = clock
        self._watching = watching
        self._until: datetime | None = None  # windows were looked at up to here, those without traffic too

    async def round(self) -> int:
        """How many episodes began."""
        watching = self._watching()
        if watching is None:
            return 0
        new = 0
        for at in await self._windows():
            new += await self._look(at, watching)
            self._until = at + WINDOW
        return new

    async def _windows(self) -> Sequence[datetime]:
        """Beginnings of those that are over and were not looked at."""
        latest = _window_of(self._clock.now() - LATE) - WINDOW
        known = self._until or await self._anomalies.judged_until()
        first = latest if known is None else max(known, latest - (_MOST_WINDOWS - 1) * WINDOW)
        return [first + step * WINDOW for step in range(int((latest - first) / WINDOW) + 1)]

    async def _look(self, at: datetime, watching: Watching) -> int:
        measured = await self._anomalies.measured(at)
        before = await self._anomalies.before(at) if measured else {}
        found = [
            finding
            for window in measured
            for finding in unusual(window, before.get((window.model, window.region), ()), watching.sensitivity)
        ]
        if at == hour_of(at):
            found += await self._of_hour(at - HOUR, watching)
        standing = await self._anomalies.standing()
        changed = go_on(standing, found, at, at + WINDOW)
        return await self._anomalies.write(measured, changed, self._clock.now(), watching.channels)

    async def _of_hour(self, hour: datetime, watching: Watching) -> list[Finding]:
        """The hour that ended when the window began."""
        known = await series_of(self._engine, hour + HOUR - HISTORY, hour + HOUR)
        found = [each for series in known for each in unusual_usage(series, hour, watching.sensitivity)]
        return found + list(short_of_capacity(await self._planner.recommend_scaling(Question(days=1))))


def _window_of(at: datetime) -> datetime:
    """The beginning of the window that `at` lies in."""
    into = timedelta(minutes=at.minute, seconds=at.second, microseconds=at.microsecond) % WINDOW
    return at - into
