"""What is accepted but changes nothing in this version, so that `crosslogic config check` can say so.

A room that begins to obey a setting removes it from here.
"""

from collections.abc import Mapping
from typing import Any

from crosslogic.settings.document import dotted
from crosslogic.settings.environment import unknown_variables
from crosslogic.settings.model import Settings

Path = tuple[str, ...]

_OFF_ONLY = ("enable_distributed",)
_ON_ONLY = ("enable_multi_tenant", "enable_cost_tracking", "enable_multi_model")
_UNUSED: tuple[Path, ...] = (("distributed", "rebalance_interval_s"),)


def warnings(settings: Settings) -> list[str]:
    """Sentences about what the user set and will not get, and about what is open to everybody."""
    found = []
    for flag in _OFF_ONLY:
        if getattr(settings, flag):
            found.append(f"{flag}: true has no effect in this version")
    for flag in _ON_ONLY:
        if not getattr(settings, flag):
            found.append(f"{flag}: false has no effect in this version: it is always on")
    if settings.enable_priority and not settings.enable_queuing:
        found.append("enable_priority: true has no effect without enable_queuing: true")
    found += _of_policy(settings)
    found += _of_payments(settings)
    written = settings.model_dump(exclude_unset=True, by_alias=True)
    found += [f"{dotted(path)} has no effect in this version" for path in _UNUSED if _is_set(written, path)]
    if settings.cost_tracking.storage_backend != "clickhouse":
        found += [
            f"{dotted(path)} has no effect without cost_tracking.storage_backend: clickhouse"
            for path in (("cost_tracking", "aggregation_interval_s"), ("cost_tracking", "clickhouse"))
            if _is_set(written, path)
        ]
    if any(node.timeout_s is not None for node in settings.nodes):
        found.append("nodes[].timeout_s has no effect in this version: `timeouts` hold for all nodes")
    if any(model.deployment is not None for model in settings.models):
        found.append("models[].deployment has no effect in this version: nodes say themselves what they serve")
    if not settings.enable_auth:
        found.append("enable_auth is false: whoever reaches the port may use it; set enable_auth: true to ask for keys")
    for name in unknown_variables(Settings, settings.source.environ):
        found.append(f"the environment variable {name} sets nothing")
    return found


def _of_payments(settings: Settings) -> list[str]:
    """What of the payments is set and not used."""
    if settings.enable_payments and settings.payments.provider == "none":
        return ["enable_payments: true has no effect with payments.provider: none; choose stripe or paypal"]
    if not settings.enable_payments and settings.payments.provider != "none":
        return [f"payments.provider: {settings.payments.provider} has no effect without enable_payments: true"]
    return []


def _of_policy(settings: Settings) -> list[str]:
    """What of the chosen order of waiting requests has nothing to act on."""
    scheduling, found = settings.scheduling, []
    counts = settings.enable_queuing and settings.enable_priority
    if scheduling.preemption_enabled and scheduling.policy not in ("priority", "preemptive"):
        found.append(f"scheduling.preemption_enabled has no effect with policy: {scheduling.policy}; use preemptive")
    if scheduling.policy in ("priority", "preemptive") and not counts:
        found.append(
            f"scheduling.policy: {scheduling.policy} has no effect without enable_queuing: true, enable_priority: true"
        )
    if not counts and any(tier.policy is not None for tier in settings.tiers):
        found.append("tiers[].policy has no effect without enable_queuing: true, enable_priority: true")
    return found


def _is_set(tree: Mapping[str, Any], path: Path) -> bool:
    value: Any = tree
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return value not in ({}, ())
