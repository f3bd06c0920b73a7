"""The planner in one call: what is said in, what is understood, specified and recommended out.

    plan("I need a chatbot for 1000 users, low latency is critical").recommendation.best

Invariant: pure but for the packaged data; nothing is sent anywhere, nothing is stored.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from crosslogic.catalog.price_lists.packaged import packaged_prices
from crosslogic.catalog.prices import GpuPrice
from crosslogic.compass.conversation.reply import Understanding, understand
from crosslogic.compass.intent.deterministic import extract
from crosslogic.compass.intent.ports import Role, Turn
from crosslogic.compass.ranking.model import Recommendation
from crosslogic.compass.ranking.planner import Planner, packaged_planner
from crosslogic.compass.specification.edit import edit
from crosslogic.compass.specification.model import Specification, TrafficProfile
from crosslogic.compass.specification.validate import Finding, Weight, validate

_UNFIT = frozenset(
    (
        "spot_above_on_demand",
        "far_below_elsewhere",
        "implausible_gpu_count",
        "other_variant",
        "implausible_price",
        "host_not_included",
    )
)


class Plan(msgspec.Struct, frozen=True):
    """`recommendation` is None where the specification contradicts itself: `findings` say how."""

    understanding: Understanding
    specification: Specification
    findings: tuple[Finding, ...]
    recommendation: Recommendation | None


def plan(
    *said: str,
    changes: Mapping[str, Any] | None = None,
    prices: Sequence[GpuPrice] | None = None,
    recommended: bool = True,
) -> Plan:
    """Plan what was said in one or more turns, with fields of the specification changed afterwards.

    Raises InvalidRequest for changes of what a specification does not have.
    """
    return plan_turns([Turn(Role.USER, each) for each in said], changes=changes, prices=prices, recommended=recommended)


def plan_turns(
    turns: Sequence[Turn],
    *,
    changes: Mapping[str, Any] | None = None,
    prices: Sequence[GpuPrice] | None = None,
    traffic: TrafficProfile | None = None,
    planner: Planner | None = None,
    recommended: bool = True,
) -> Plan:
    """`traffic`, as a log showed it, takes the place of what follows from users and use case."""
    understanding = understand(extract(turns))
    specification = understanding.specification
    if traffic is not None:
        specification = msgspec.structs.replace(specification, traffic=traffic)
    specification = edit(specification, changes or {})
    findings = tuple(validate(specification))
    recommendation = None
    if recommended and not any(finding.weight is Weight.ERROR for finding in findings):
        planner = planner or packaged_planner(fit_prices(packaged_prices().prices if prices is None else prices))
        recommendation = planner.recommend(specification)
    return Plan(understanding, specification, findings, recommendation)


def fit_prices(prices: Sequence[GpuPrice]) -> tuple[GpuPrice, ...]:
    """Those that may be planned with: old ones may, dubious ones may not."""
    return tuple(price for price in prices if not _UNFIT & set(price.doubts))
