"""Looks at spending, credits, payments and capacity, and raises what is to be told.

Invariant: killed at any line, or run by two processes at once, it raises each notice once: what a notice is about is
its name (`Notice.once`).
"""

from datetime import timedelta

from crosslogic.insight.alerts.budgets import Budgets
from crosslogic.insight.alerts.figures import Figures
from crosslogic.insight.alerts.rules import (
    budget_alerts,
    capacity_alerts,
    credit_alerts,
    payment_alerts,
    spike_alerts,
)
from crosslogic.insight.finops.sql import HOUR, hour_of
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.kernel.clock import Clock

_LATE = timedelta(minutes=5)  # an hour is judged once its last rows have come


class AlertsJob:
    """Run as a leased job."""

    def __init__(self, budgets: Budgets, figures: Figures, outbox: Outbox, clock: Clock) -> None:
        self._budgets = budgets
        self._figures = figures
        self._outbox = outbox
        self._clock = clock

    async def round(self) -> int:
        """How many notices were new."""
        now = self._clock.now()
        found = [
            *budget_alerts(await self._budgets.of_month(now), now),
            *spike_alerts(await self._figures.daily_spends(now), now),
            *credit_alerts(await self._figures.expiring_credits(now), now),
            *capacity_alerts(await self._figures.reserved_hours(hour_of(now - _LATE) - HOUR), now),
            *payment_alerts(await self._figures.failed_payments(now), now),
        ]
        return await self._outbox.raise_all(found)
