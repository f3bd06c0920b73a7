"""Durations as people write them."""

import re

SECONDS_PER = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")


def duration_s(text: str) -> float:
    """Seconds in `250ms`, `5m` or `1h30m`. Raises ValueError."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be a duration such as 250ms, 30s, 5m or 1h30m")
    return sum(float(number) * SECONDS_PER[unit] for number, unit in parts)
