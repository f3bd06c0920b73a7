"""The interface document's names for settings, read as ours: its configurations of every phase keep working.

Invariant: a name of the documents and ours for the same thing never both count; setting both is refused.
"""

from typing import Any

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings.document import dotted

Path = tuple[str, ...]

# What a file written for the interface document calls it -> what we call it.
RENAMED: dict[Path, Path] = {
    ("server_port",): ("server", "port"),
    ("backends",): ("nodes",),
    ("auth", "enabled"): ("enable_auth",),
    ("rate_limit", "enabled"): ("enable_rate_limit",),
    ("rate_limit", "default_rpm"): ("limits", "key", "requests_per_minute"),
    ("rate_limit", "default_daily_limit"): ("limits", "key", "requests_per_day"),
    ("limits", "key_requests_per_day"): ("limits", "key", "requests_per_day"),
    ("cache", "enabled"): ("enable_caching",),
    ("cache", "default_ttl"): ("cache", "default_ttl_s"),
    ("queue", "enabled"): ("enable_queuing",),
    ("queue", "timeout"): ("queue", "timeout_s"),
    ("backend_pool", "health_check_interval"): ("fleet", "probe_interval_s"),
    ("backend_pool", "max_retries"): ("scheduling", "retries"),
    ("backend_pool", "load_balancing_strategy"): ("scheduling", "strategy"),
    ("multi_tenant", "enabled"): ("enable_multi_tenant",),
    ("scheduler", "policy"): ("scheduling", "policy"),
    ("scheduler", "preemption_enabled"): ("scheduling", "preemption_enabled"),
    ("cost_tracking", "enabled"): ("enable_cost_tracking",),
    ("cost_tracking", "aggregation_interval"): ("cost_tracking", "aggregation_interval_s"),
    ("billing", "enabled"): ("enable_billing",),
    ("billing", "billing_cycle"): ("billing", "cycle"),
    ("billing", "export_interval"): ("billing", "export_interval_s"),
    ("distributed", "enabled"): ("enable_distributed",),
    ("distributed", "heartbeat_interval"): ("fleet", "heartbeat_interval_s"),
    ("distributed", "rebalance_interval"): ("distributed", "rebalance_interval_s"),
    ("capacity_planning", "forecast_horizon"): ("capacity_planning", "forecast_horizon_s"),
}
_RENAMED_IN_NODES = {"timeout": "timeout_s"}

# A file that names these was written for the interface document, whose flags are off unless set. Of its
# flags these two change what a caller meets.
_MARKS = ("server_port", "backends")
_OFF_IN_DOCUMENT = ("enable_auth", "enable_rate_limit")


def translate(tree: dict[str, Any], file: str) -> tuple[dict[str, Any], dict[Path, Path]]:
    """`tree` in our names, and for each renamed path the one the user wrote. Raises ConfigurationError."""
    ours: dict[str, Any] = _copied(tree)
    written: dict[Path, Path] = {}
    for old, new in RENAMED.items():
        if not _has(ours, old):
            continue
        value = _take(ours, old)
        if _has(ours, new):
            raise ConfigurationError(
                f"{file}: {dotted(old)} and {dotted(new)} are the same setting; remove {dotted(old)}"
            )
        _put(ours, new, value)
        written[new] = old
    nodes = ours.get("nodes")
    for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
        for old_name, new_name in _RENAMED_IN_NODES.items():
            if isinstance(node, dict) and old_name in node and new_name not in node:
                node[new_name] = node.pop(old_name)
                base = written.get(("nodes",), ("nodes",))
                written["nodes", str(index), new_name] = (*base, str(index), old_name)
    if any(mark in tree for mark in _MARKS):
        for flag in _OFF_IN_DOCUMENT:
            ours.setdefault(flag, False)
    return ours, written


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _has(tree: Any, path: Path) -> bool:
    for name in path:
        if not isinstance(tree, dict) or name not in tree:
            return False
        tree = tree[name]
    return True


def _take(tree: dict[str, Any], path: Path) -> Any:
    """Remove and return; a section that is empty then goes too, so that the document's own names leave no trace."""
    if len(path) == 1:
        return tree.pop(path[0])
    value = _take(tree[path[0]], path[1:])
    if not tree[path[0]]:
        del tree[path[0]]
    return value


def _put(tree: dict[str, Any], path: Path, value: Any) -> None:
    for name in path[:-1]:
        section = tree.setdefault(name, {})
        if not isinstance(section, dict):
            return  # validation will say that this section is no mapping
        tree = section
    tree[path[-1]] = value
