"""Which counters a request is charged to: the four layers of the architecture document §14, outermost first."""

from collections.abc import Sequence

from crosslogic.limits.model import RATES, Layer, Limits, Scope, Unit
from crosslogic.limits.plan import unit_and_capacity_s

GLOBAL_ID = "global"


def scopes_of(
    global_limits: Limits,
    *,
    org_id: str,
    org_limits: Limits,
    env_id: str,
    env_limits: Limits,
    key_id: str,
    key_limits: Limits,
) -> tuple[Scope, ...]:
    """The scopes of one key in the order global, org, environment, key; those without any ceiling are left out.

    Keep the result with the principal: limiters recognise the tuple by identity and compile it once.
    """
    layers = (
        Scope(Layer.GLOBAL, GLOBAL_ID, global_limits),
        Scope(Layer.ORG, org_id, org_limits),
        Scope(Layer.ENV, env_id, env_limits),
        Scope(Layer.KEY, key_id, key_limits),
    )
    return tuple(scope for scope in layers if not scope.limits.unlimited)


def reservable_tokens(scopes: Sequence[Scope]) -> int | None:
    """The most tokens that one request may reserve under these scopes, None without a token ceiling.

    For requests that name no maximum: reserve at most this much, and settle the rest as debt.
    """
    most: list[int] = []
    for scope in scopes:
        for rate in RATES:
            limit = scope.limits.ceiling(rate.dimension)
            if rate.unit is Unit.TOKENS and limit is not None:
                unit_s, capacity_s = unit_and_capacity_s(rate, limit, scope.limits.burst_share)
                most.append(int(capacity_s / unit_s + 1e-6))
    return min(most) if most else None
