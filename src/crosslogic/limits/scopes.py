"""Which counters a request is charged to: the layers of the architecture document §14, outermost first."""

from collections.abc import Sequence

import msgspec

from crosslogic.limits.model import NO_LIMITS, RATES, Dimension, Layer, Limits, Scope, Unit
from crosslogic.limits.plan import unit_and_capacity_s

GLOBAL_ID = "global"


def scopes_of(
    global_limits: Limits,
    *,
    region: str = "",
    region_limits: Limits = NO_LIMITS,
    org_id: str,
    org_limits: Limits,
    env_id: str,
    env_limits: Limits,
    key_id: str,
    key_limits: Limits,
) -> tuple[Scope, ...]:
    """The scopes of one key in the order global, region, org, environment, key; those without any ceiling are left out.

    Keep the result with the principal: limiters recognise the tuple by identity and compile it once.
    """
    layers = (
        Scope(Layer.GLOBAL, GLOBAL_ID, global_limits),
        Scope(Layer.REGION, region, region_limits),
        Scope(Layer.ORG, org_id, org_limits),
        Scope(Layer.ENV, env_id, env_limits),
        Scope(Layer.KEY, key_id, key_limits),
    )
    return tuple(scope for scope in layers if not scope.limits.unlimited)


def reservable_tokens(scopes: Sequence[Scope], unit: Unit = Unit.TOKENS) -> int | None:
    """The most tokens (of one kind) that a request may reserve under these scopes, None without such a ceiling.

    For requests that name no maximum: reserve at most this much, and settle the rest as debt. Scopes in shadow and
    guarantees refuse nobody, so they bound nothing.
    """
    most: list[int] = []
    for scope in scopes:
        if scope.limits.shadow or scope.guarantee:
            continue
        for rate in RATES:
            limit = scope.limits.units(rate)
            if rate.unit is unit and limit is not None:
                unit_s, capacity_s = unit_and_capacity_s(rate, limit, scope.limits.burst_share)
                most.append(int(capacity_s / unit_s + 1e-6))
    return min(most) if most else None


class Maxima(msgspec.Struct, frozen=True):
    """What one request may have at most, each with the layer that says so; None is no maximum."""

    input_tokens: tuple[int, Layer] | None = None
    output_tokens: tuple[int, Layer] | None = None
    total_tokens: tuple[int, Layer] | None = None


NO_MAXIMA = Maxima()


def request_maxima(scopes: Sequence[Scope]) -> Maxima:
    """The maxima of each request under these scopes: the least over all layers that are not in shadow."""
    binding = [scope for scope in scopes if not scope.limits.shadow]
    maxima = Maxima(
        _least(binding, Dimension.MAX_INPUT_TOKENS),
        _least(binding, Dimension.MAX_OUTPUT_TOKENS),
        _least(binding, Dimension.MAX_TOTAL_TOKENS),
    )
    return NO_MAXIMA if maxima == NO_MAXIMA else maxima


def _least(scopes: Sequence[Scope], dimension: Dimension) -> tuple[int, Layer] | None:
    said = [(most, scope.layer) for scope in scopes if (most := scope.limits.ceiling(dimension)) is not None]
    return min(said, key=lambda one: one[0]) if said else None
