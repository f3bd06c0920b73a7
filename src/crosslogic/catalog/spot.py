"""How often clouds take spot machines back, by region and instance type: AWS's Spot Instance Advisor.

Invariant: as for models, the packaged data is read once and never changes in a process. What the advisor does not
know is None; a guess is the caller's.
"""

import csv
from functools import cache
from importlib import resources

import msgspec

AS_OF = "2025-06"
_MIDDLES = (0.025, 0.075, 0.125, 0.175, 0.25)  # of the advisor's classes; the last is open, "more than 20%"


class TakenBack(msgspec.Struct, frozen=True):
    """Of one instance type in one region, in a month."""

    share: float  # of the machines: the middle of the class
    label: str  # the class, as AWS writes it: 5-10%
    saved: float  # share of the on-demand price, on average


@cache
def _advisor() -> dict[tuple[str, str], TakenBack]:
    text = resources.files("crosslogic.catalog").joinpath("data/aws_spot_advisor.csv").read_text("utf-8")
    return {
        (row["region"], row["instance_type"]): TakenBack(
            _MIDDLES[int(row["interruption_bucket"])],
            row["interruption_label"],
            int(row["savings_over_on_demand_pct"]) / 100,
        )
        for row in csv.DictReader(text.splitlines())
    }


def taken_back(cloud: str, region: str, instance_type: str) -> TakenBack | None:
    """What the advisor says of these machines."""
    return _advisor().get((region, instance_type)) if cloud == "aws" else None
