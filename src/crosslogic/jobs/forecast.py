"""Tells operators when today's nodes will be too few.

Invariant: once a day for each model and region; killed at any line, it tells the same again under the same name.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from crosslogic.insight.forecast.model import Need
from crosslogic.insight.forecast.needs import peak
from crosslogic.insight.forecast.service import CapacityPlanner, Question
from crosslogic.insight.notices.model import Notice, NoticeKind, Severity
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import new_id

LEAST_HISTORY_HOURS = 72  # what is foreseen from less is nothing to wake people for
_SOON = timedelta(hours=24)


class ForecastJob:
    """Run as a leased job."""

    def __init__(self, planner: CapacityPlanner, outbox: Outbox, clock: Clock) -> None:
        self._planner = planner
        self._outbox = outbox
        self._clock = clock

    async def round(self) -> int:
        """How many notices were new."""
        found = await self._planner.predict_capacity(Question(days=3))
        return await self._outbox.raise_all(forecast_alerts(found.needs, self._clock.now()))


def forecast_alerts(needs: Iterable[Need], now: datetime) -> Iterator[Notice]:
    """Of models that nodes of ours serve: a warning where the upper bound passes them, an error where the mean does."""
    for need in needs:
        if need.exceeded_at is None or not need.supply.nodes or need.history_hours < LEAST_HISTORY_HOURS:
            continue
        surely = need.surely_exceeded_at is not None and need.surely_exceeded_at - now <= _SOON
        busiest = max(hour.requests.high for hour in need.hours)
        yield Notice(
            id=new_id("notice"),
            org_id=None,
            kind=NoticeKind.CAPACITY_FORECAST,
            severity=Severity.ERROR if surely else Severity.WARNING,
            once=f"forecast:{need.model}:{need.region}:{'surely' if surely else 'perhaps'}:{now:%Y-%m-%d}",
            title=f"The nodes of {need.model} in {need.region} will be too few",
            text=(
                f"From {need.exceeded_at:%Y-%m-%d %H:%M} UTC on up to {peak(busiest):.3g} requests/s are to be "
                f"expected; {need.supply.nodes:.3g} nodes carry {need.supply.nodes * need.supply.per_node:.3g}. "
                f"{need.nodes} nodes would be enough."
            ),
            facts={
                "model": need.model,
                "region": need.region,
                "exceeded_at": need.exceeded_at.isoformat(),
                "nodes": need.supply.nodes,
                "needed_nodes": need.nodes,
                "requests_per_s": round(peak(busiest), 3),
            },
            at=now,
        )
