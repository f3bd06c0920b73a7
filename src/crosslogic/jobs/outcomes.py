"""Holds what planned deployments do against what was forecast for them, window by window, and tells of drift.

Invariant: killed at any line, or run twice at once, it judges a window once and tells of a drift once: the window's
start is its name in the database, and the notice's name says what it is about.
"""

import logging
from datetime import datetime, timedelta

from crosslogic.compass.deployments.model import PlannedDeployment, Revision
from crosslogic.compass.deployments.sql import DeploymentsSql
from crosslogic.compass.outcomes.model import Judged
from crosslogic.compass.outcomes.service import OutcomeService
from crosslogic.insight.alerts.model import Drift
from crosslogic.insight.alerts.rules import drift_alerts
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import CrossLogicError

LATE = timedelta(seconds=60)  # until then rows of a window come into the ledger
LOOKED_BACK = timedelta(hours=1)  # after a start: what was before is nobody's news

_log = logging.getLogger(__name__)


class OutcomesJob:
    """Run as a leased job."""

    def __init__(
        self, outcomes: OutcomeService, deployments: DeploymentsSql, outbox: Outbox, clock: Clock, window_s: float
    ) -> None:
        self._outcomes = outcomes
        self._deployments = deployments
        self._outbox = outbox
        self._clock = clock
        self._window = timedelta(seconds=window_s)
        self._until: dict[str, datetime] = {}  # each deployment's windows were looked at up to here
        self._told: set[str] = set()  # whose failure is in the log

    async def round(self) -> int:
        """How many windows were judged."""
        now = self._clock.now()
        end = self._boundary(now - LATE)
        judged = 0
        running = await self._deployments.applied()
        for known, revision in running:
            try:
                judged += await self._look(known, revision, end)
            except CrossLogicError as error:
                if known.id not in self._told:
                    _log.warning("outcomes of the deployment %s cannot be observed: %s", known.id, error)
                self._told.add(known.id)
            else:
                self._told.discard(known.id)
        ids = {known.id for known, _ in running}
        self._until = {ref: until for ref, until in self._until.items() if ref in ids}
        return judged

    async def _look(self, known: PlannedDeployment, revision: Revision, end: datetime) -> int:
        """Window after window; one that fails is looked at again in the next round."""
        applied_at = revision.applied_at or known.updated_at
        start = self._until.get(known.id)
        if start is None:
            start = max(end - LOOKED_BACK, self._boundary(applied_at) + self._window)
        judged = 0
        while start + self._window <= end:
            found = await self._outcomes.observe_apart(revision, start, start + self._window)
            if found is not None:
                judged += 1
                await self._outbox.raise_all(drift_alerts(drifts(known, found), self._clock.now()))
            start += self._window
            self._until[known.id] = start
        return judged

    def _boundary(self, at: datetime) -> datetime:
        """The last window that ended by then ended here."""
        seconds = self._window.total_seconds()
        return datetime.fromtimestamp(at.timestamp() // seconds * seconds, tz=at.tzinfo)


def drifts(known: PlannedDeployment, judged: Judged) -> list[Drift]:
    found = []
    for figure in judged.drift:
        seen = getattr(judged.observation, f"{figure}_p95_ms")
        error = getattr(judged, f"{figure}_error")
        if seen is None or error is None:
            continue
        found.append(
            Drift(
                org_id=known.org_id,
                deployment_id=known.id,
                name=known.name,
                figure=figure,
                error=error,
                seen_ms=seen,
                forecast_ms=getattr(judged.forecast, f"{figure}_p95_ms").value,
                met=judged.met.get(figure),
                window_end=judged.observation.end,
            )
        )
    return found
