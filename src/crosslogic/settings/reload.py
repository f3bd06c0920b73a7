"""What may change while the program runs: rates, models, prices, keys on or off, fallback chains, what is foreseen
and looked for.

Invariant: whatever is not in `Reloadable` keeps its value until a restart, and a change of it is reported.
"""

import msgspec

from crosslogic.settings.commerce import (
    AnomalyDetectionSettings,
    CapacityPlanningSettings,
    ModelSettings,
    PriceSettings,
    TierSettings,
)
from crosslogic.settings.limits import LimitsSettings
from crosslogic.settings.model import Settings
from crosslogic.settings.sections import SchedulingSettings, TimeoutSettings

_RELOADABLE = (
    "enable_auth",
    "limits",
    "models",
    "prices",
    "tiers",
    "scheduling",
    "timeouts",
    "capacity_planning",
    "anomaly_detection",
)
# Of these, what is built into objects that live as long as the process.
_NOT_RELOADED = {
    "scheduling": ("max_requests_per_node",),
    "timeouts": ("connect_s",),
}


class Reloadable(msgspec.Struct, frozen=True):
    """The part of the settings that is handed out anew after a change."""

    enable_auth: bool
    limits: LimitsSettings
    models: tuple[ModelSettings, ...]
    prices: dict[str, PriceSettings]
    tiers: tuple[TierSettings, ...]
    scheduling: SchedulingSettings
    timeouts: TimeoutSettings
    capacity_planning: CapacityPlanningSettings
    anomaly_detection: AnomalyDetectionSettings


def reloadable(settings: Settings) -> Reloadable:
    return Reloadable(
        enable_auth=settings.enable_auth,
        limits=settings.limits,
        models=settings.models,
        prices=settings.prices,
        tiers=settings.tiers,
        scheduling=settings.scheduling,
        timeouts=settings.timeouts,
        capacity_planning=settings.capacity_planning,
        anomaly_detection=settings.anomaly_detection,
    )


class Changes(msgspec.Struct, frozen=True):
    """Names of settings that differ: of sections, or of single settings in one that is otherwise reloaded."""

    reloaded: tuple[str, ...]
    waiting_for_restart: tuple[str, ...]


def changes(old: Settings, new: Settings) -> Changes:
    reloaded, waiting = [], []
    for name in type(new).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if name not in _RELOADABLE:
            waiting.append(name)
            continue
        fixed = [one for one in _NOT_RELOADED.get(name, ()) if getattr(before, one) != getattr(after, one)]
        waiting += [f"{name}.{one}" for one in fixed]
        if not fixed or after.model_copy(update={one: getattr(before, one) for one in fixed}) != before:
            reloaded.append(name)
    return Changes(tuple(reloaded), tuple(waiting))
