"""The plans in force: those of the database before those of the configuration before the shipped ones.

The shipped plans (`data/plans.json`) are the tiers of the interface document (Free, Pro, Enterprise; concurrency,
priority and 60 requests a minute from its migration examples) and the price list of the product documentation
(Starter, Developer, Business). What neither document states is ours: queue depths, weights, Pro's requests,
Business's concurrency.
"""

from collections.abc import Iterable
from enum import StrEnum
from importlib import resources

import msgspec

from crosslogic.tenancy.model import Plan


class PlanSource(StrEnum):
    """Where a plan in force comes from, nearest first."""

    DATABASE = "database"
    CONFIGURATION = "configuration"
    SHIPPED = "shipped"


class PlanInForce(msgspec.Struct, frozen=True):
    plan: Plan
    source: PlanSource


def shipped_plans() -> tuple[Plan, ...]:
    data = resources.files("crosslogic.tenancy").joinpath("data/plans.json").read_bytes()
    return msgspec.json.decode(data, type=tuple[Plan, ...])


def in_force(
    stored: Iterable[Plan], configured: Iterable[Plan], shipped: Iterable[Plan] | None = None
) -> dict[str, PlanInForce]:
    """One plan for each id, in order of price, then name."""
    found: dict[str, PlanInForce] = {}
    for source, plans in (
        (PlanSource.DATABASE, stored),
        (PlanSource.CONFIGURATION, configured),
        (PlanSource.SHIPPED, shipped_plans() if shipped is None else shipped),
    ):
        for plan in plans:
            found.setdefault(plan.id, PlanInForce(plan, source))
    return dict(sorted(found.items(), key=lambda item: (item[1].plan.price_per_month_pusd, item[0])))
