"""Changes single fields of a specification by their dotted names, as people edit what they are shown. Pure.

Invariant: the result is a specification again, or the reason why not; what follows from a field follows with it: a new
mean keeps the shape of its lengths, a new use case brings its lengths, targets and class.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from crosslogic.compass.specification.lengths import Lengths, scaled
from crosslogic.compass.specification.model import Specification
from crosslogic.compass.specification.templates import template
from crosslogic.compass.traffic.demand import Demand, traffic_of
from crosslogic.kernel.errors import InvalidRequest

_MOST_CHANGES = 100
_LENGTHS = ("traffic.prompt_tokens", "traffic.output_tokens")


def edit(specification: Specification, changes: Mapping[str, Any]) -> Specification:
    """With these fields changed: {"slo.ttft_p95_ms": 200, "priority": "cost"}. Raises InvalidRequest."""
    if len(changes) > _MOST_CHANGES:
        raise InvalidRequest(f"{len(changes)} changes at once are too many; {_MOST_CHANGES} are the most")
    for field, value in sorted(changes.items(), key=lambda change: change[0] != "use_case"):
        specification = _edited(specification, field, value)
    return specification


def fields_of(specification: Specification) -> dict[str, Any]:
    """All fields that can be edited, by their dotted names."""
    found: dict[str, Any] = {}
    _flatten("", msgspec.to_builtins(specification), found)
    return {name: value for name, value in found.items() if not name.endswith((".histogram", ".basis"))}


def _flatten(prefix: str, values: Mapping[str, Any], found: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _flatten(f"{prefix}{name}.", value, found)
        else:
            found[prefix + name] = value


def _edited(specification: Specification, field: str, value: Any) -> Specification:
    if field not in fields_of(specification):
        near = [name for name in fields_of(specification) if name.split(".")[-1] == field]
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InvalidRequest(f"a specification has no field {field[:80]!r}{hint}", param=field[:80])
    whole = msgspec.to_builtins(specification)
    at = whole
    *path, last = field.split(".")
    for name in path:
        at = at[name]
    at[last] = value
    try:
        changed = msgspec.convert(whole, type=Specification, strict=False)
    except msgspec.ValidationError as error:
        reason = str(error).split(" - at ")[0]
        raise InvalidRequest(f"{field} cannot be {str(value)[:80]!r}: {reason}", param=field) from None
    followed = _followed(specification, changed, field)
    if not all(_holds(number) for number in fields_of(followed).values()):
        raise InvalidRequest(f"{field} cannot be {str(value)[:80]!r}: that is no number to plan with", param=field)
    return followed


def _holds(value: Any) -> bool:
    """Whether a number can be stored: finite, and in 64 bits."""
    if isinstance(value, float):
        return isfinite(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _followed(before: Specification, changed: Specification, field: str) -> Specification:
    if field == "use_case" and changed.use_case is not before.use_case:
        return _of_use_case(changed)
    for name in _LENGTHS:
        if field.startswith(f"{name}."):
            side = name.split(".")[1]
            lengths = _lengths(getattr(before.traffic, side), getattr(changed.traffic, side), field.endswith(".mean"))
            traffic = msgspec.structs.replace(changed.traffic, **{side: lengths})
            return msgspec.structs.replace(changed, traffic=traffic)
    return changed


def _lengths(before: Lengths, changed: Lengths, of_mean: bool) -> Lengths:
    if not of_mean:
        return Lengths(changed.mean, changed.p95)
    usable = before.mean > 0 and 0 < changed.mean < float("inf")
    return scaled(before, changed.mean) if usable else Lengths(changed.mean, changed.p95)


def _of_use_case(changed: Specification) -> Specification:
    row = template(changed.use_case)
    traffic = traffic_of(row, Demand(mean_qps=changed.traffic.mean_qps, peak_qps=changed.traffic.peak_qps))
    return msgspec.structs.replace(changed, experience=row.experience, slo=row.slo, traffic=traffic)
