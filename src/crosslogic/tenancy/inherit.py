"""Which ceiling holds where: plan → org → environment → key, in each dimension the nearest that is set. Pure.

Each layer has counters of its own, so inheritance is asked for each layer apart:

    org layer           org.limits      → plan.limits                           → configuration
    environment layer   env.limits      → org.env_limits → plan.env_limits      → configuration
    key layer           key.limits      → env.key_limits → org.key_limits → plan.key_limits → configuration

A request must pass all layers. So an environment without a ceiling is still held by its org's: that is what
"unset means inherited" amounts to between layers.
"""

import msgspec

from crosslogic.limits.model import NO_LIMITS, Limits

_DEFAULTS = {name: getattr(NO_LIMITS, name) for name in Limits.__struct_fields__}


def nearest(*levels: Limits) -> Limits:
    """One set of ceilings from several, nearest first: each field from the first level that sets it.

    A field counts as unset where it has its default (None, and 1.0 for `burst_share`). 0 is set: it lets nothing
    through, whatever is farther away.
    """
    said = [level for level in levels if level is not NO_LIMITS and level != NO_LIMITS]
    if not said:
        return NO_LIMITS
    if len(said) == 1:
        return said[0]
    merged = msgspec.structs.asdict(said[-1])
    for level in said[-2::-1]:
        for name, default in _DEFAULTS.items():
            value = getattr(level, name)
            if value != default:
                merged[name] = value
    return Limits(**merged)
