"""What may change while the program runs: rates, models, prices, keys on or off, fallback chains.

Invariant: whatever is not in `Reloadable` keeps its value until a restart, and a change of it is reported.
"""

import msgspec

from crosslogic.settings.commerce import ModelSettings, PriceSettings, TierSettings
from crosslogic.settings.model import Settings
from crosslogic.settings.sections import LimitsSettings, SchedulingSettings, TimeoutSettings

_RELOADABLE = ("enable_auth", "limits", "models", "prices", "tiers", "scheduling", "timeouts")


class Reloadable(msgspec.Struct, frozen=True):
    """The part of the settings that is handed out anew after a change."""

    enable_auth: bool
    limits: LimitsSettings
    models: tuple[ModelSettings, ...]
    prices: dict[str, PriceSettings]
    tiers: tuple[TierSettings, ...]
    scheduling: SchedulingSettings
    timeouts: TimeoutSettings


def reloadable(settings: Settings) -> Reloadable:
    return Reloadable(
        enable_auth=settings.enable_auth,
        limits=settings.limits,
        models=settings.models,
        prices=settings.prices,
        tiers=settings.tiers,
        scheduling=settings.scheduling,
        timeouts=settings.timeouts,
    )


class Changes(msgspec.Struct, frozen=True):
    """Names of top-level settings that differ."""

    reloaded: tuple[str, ...]
    waiting_for_restart: tuple[str, ...]


def changes(old: Settings, new: Settings) -> Changes:
    differing = [name for name in type(new).model_fields if getattr(old, name) != getattr(new, name)]
    return Changes(
        reloaded=tuple(name for name in differing if name in _RELOADABLE),
        waiting_for_restart=tuple(name for name in differing if name not in _RELOADABLE),
    )
