"""Tells operators when today's nodes will be too few, and asks for more or fewer where that is wished.

Invariant: once a day for each model and region; killed at any line, it tells the same again under the same name, and
asks for the same number of nodes.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

import msgspec

from crosslogic.compass.ranking.scaling import ScalingAction
from crosslogic.insight.forecast.model import Need, ScalingRecommendation
from crosslogic.insight.forecast.needs import peak, scaling_of
from crosslogic.insight.forecast.service import CapacityPlanner, Question
from crosslogic.insight.notices.model import Notice, NoticeKind, Severity
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict
from crosslogic.orchestration.model import WHOLE, Deployment, DeploymentStatus
from crosslogic.orchestration.registry import ModelRegistry

LEAST_HISTORY_HOURS = 72  # what is foreseen from less is nothing to wake people for
_SOON = timedelta(hours=24)


_SCALABLE = (DeploymentStatus.READY, DeploymentStatus.SCALING, DeploymentStatus.DEPLOYING)
_MOST_AT_ONCE = 2.0  # times what there is: an hour later there is another look

_log = logging.getLogger(__name__)


class Looking(msgspec.Struct, frozen=True):
    """How far ahead it looks, and whether it acts on what it sees."""

    days: int
    scale: bool


class ForecastJob:
    """Run as a leased job. `looking` says how it looks now; None: not at all."""

    def __init__(
        self,
        planner: CapacityPlanner,
        outbox: Outbox,
        clock: Clock,
        models: ModelRegistry,
        looking: Callable[[], Looking | None],
    ) -> None:
        self._planner = planner
        self._outbox = outbox
        self._clock = clock
        self._models = models
        self._looking = looking

    async def round(self) -> int:
        """How many notices were new."""
        looking = self._looking()
        if looking is None:
            return 0
        found = await self._planner.predict_capacity(Question(days=looking.days))
        now = self._clock.now()
        if looking.scale:
            await self._scale(found.needs)
        return await self._outbox.raise_all(forecast_alerts(found.needs, now))

    async def _scale(self, needs: Iterable[Need]) -> None:
        served = [need for need in needs if need.supply.nodes]
        unknown = {need.model for need in served if not _known_well(need)}
        advice = [scaling_of(need, self._clock.now()) for need in served if need.model not in unknown]
        for model in sorted({each.model for each in advice}):
            serving = await self._models.deployments(model_id=model, limit=100)
            wanted = replicas_for([each for each in advice if each.model == model], serving)
            if wanted is None:
                continue
            deployment, replicas = wanted
            try:
                await self._models.scale(deployment.id, replicas)
            except Conflict:
                continue  # it is ending
            _log.info("deployment %s of %s: %d replicas are wanted, for the forecast", deployment.id, model, replicas)


def replicas_for(
    advice: list[ScalingRecommendation], deployments: Iterable[Deployment]
) -> tuple[Deployment, int] | None:
    """The one deployment that has all requests of a model, and how many replicas it is to have; None: as it is.

    While two share a model, a rollout decides. Twice as many at most, or one fewer: a forecast may be wrong.
    """
    serving = [each for each in deployments if each.status in _SCALABLE]
    if all(each.action is ScalingAction.MAINTAIN for each in advice):
        return None  # nodes that are missing now are on their way, or somebody's to replace
    if len(serving) != 1 or serving[0].share != WHOLE:
        return None
    (only,) = serving
    target = sum(each.target_nodes for each in advice)
    wanted = max(1, only.replicas - 1, min(target, round(_MOST_AT_ONCE * only.replicas)))
    return None if wanted == only.replicas else (only, wanted)


def _known_well(need: Need) -> bool:
    return bool(need.supply.nodes) and need.history_hours >= LEAST_HISTORY_HOURS


def forecast_alerts(needs: Iterable[Need], now: datetime) -> Iterator[Notice]:
    """Of models that nodes of ours serve: a warning where the upper bound passes them, an error where the mean does."""
    for need in needs:
        if need.exceeded_at is None or not _known_well(need):
            continue
        surely = need.surely_exceeded_at is not None and need.surely_exceeded_at - now <= _SOON
        busiest = max(hour.requests.high for hour in need.hours)
        yield Notice(
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
