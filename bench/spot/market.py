"""When spot machines are to be had: zones that go away and come back as measured ones do. Pure, given
a source of chance.

Each zone is up with a probability of its own and lost so often for each hour up. What zones have in common is drawn
together: an event of the world or of a region draws one number for all its zones, and each is up where the number is
below its probability. Between two zones that gives exactly the correlation

    c / (v + w - c) x (min(p, q) - p q) / sqrt(p (1 - p) q (1 - q))

with p and q their probabilities, v and w their rates of events, and c that of the events that they share.

Measured (planner notes on Can't Be Late, NSDI'24: V100, nine zones of AWS in three regions, 45 days): up 17 to 91 % of
the time, 0.10 to 1.39 losses for an hour up, correlation 0.43 within a region and 0.14 across, one of the nine up
99.2 %.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DATA = Path(__file__).parent / "data" / "aws_spot_advisor.csv"
HOUR_S = 3600.0
WORLD_PER_H = 0.75  # events that all zones share
REGION_PER_H = 0.40  # that all zones of a region share, besides
INTERRUPTED = {"<5%": 0.025, "5-10%": 0.075, "10-15%": 0.125, "15-20%": 0.175, ">20%": 0.25}
MONTH_H = 730.0


class Chance(Protocol):
    """What is needed of `random.Random`."""

    def random(self) -> float: ...

    def expovariate(self, lambd: float) -> float: ...


@dataclass(frozen=True)
class Zone:
    """`losses_per_h`: how often a machine that runs here is taken away."""

    name: str
    region: str
    available: float
    losses_per_h: float
    spot_usd_per_h: float
    on_demand_usd_per_h: float

    @property
    def events_per_h(self) -> float:
        """A fresh draw loses the zone with 1 - available: so many draws give the losses."""
        return self.losses_per_h / (1.0 - self.available) if self.available < 1.0 else 0.0


@dataclass(frozen=True)
class Change:
    """A zone is lost, or back."""

    at_s: float
    zone: str
    up: bool


# The ends of each column are measured; the spread between them, and which region has which, are ours.
_MEASURED = {
    "ap-south-1": ((0.91, 0.10), (0.85, 0.20), (0.79, 0.30)),
    "us-east-1": ((0.72, 0.45), (0.65, 0.60), (0.55, 0.80)),
    "eu-central-1": ((0.45, 1.00), (0.30, 1.20), (0.17, 1.39)),
}


def scarce() -> list[Zone]:
    """Zones as the traces show them: GPUs are hard to get, and zones come and go by the hour."""
    return [
        Zone(f"{region}{letter}", region, available, losses, spot, listed)
        for region, _, spot, listed in _prices()
        for letter, (available, losses) in zip("abc", _MEASURED[region], strict=True)
    ]


def advised() -> list[Zone]:
    """Zones as AWS's advisor shows them: there is room, and a machine is taken away once in months.

    A zone that is lost comes back after some minutes.
    """
    found = []
    for region, label, spot, listed in _prices():
        losses = -math.log(1.0 - INTERRUPTED[label]) / MONTH_H
        back_h = 0.25
        available = (1 / losses) / (1 / losses + back_h)
        found += [Zone(f"{region}{letter}", region, available, losses, spot, listed) for letter in "abc"]
    return found


def changes(zones: Iterable[Zone], until_s: float, rng: Chance) -> tuple[dict[str, bool], list[Change]]:
    """Which zones are up at first, and all changes until then, in order."""
    zones = list(zones)
    first = rng.random()
    up = {zone.name: first < zone.available for zone in zones}
    start, found = dict(up), []
    for at_s, drawn in _draws(zones, until_s, rng):
        number = rng.random()
        for zone in drawn:
            now_up = number < zone.available
            if now_up != up[zone.name]:
                up[zone.name] = now_up
                found.append(Change(at_s, zone.name, now_up))
    return start, found


def _draws(zones: list[Zone], until_s: float, rng: Chance) -> Iterator[tuple[float, list[Zone]]]:
    """Times at which zones draw anew, in order, each with those that do."""
    world = min(WORLD_PER_H, *(zone.events_per_h for zone in zones))
    groups: list[tuple[float, list[Zone]]] = [(world, zones)]
    for region in sorted({zone.region for zone in zones}):
        members = [zone for zone in zones if zone.region == region]
        shared = min(REGION_PER_H, min(zone.events_per_h for zone in members) - world)
        groups.append((shared, members))
        groups += [(zone.events_per_h - world - shared, [zone]) for zone in members]
    drawn = []
    for rate_per_h, those in groups:
        at_s = 0.0
        while rate_per_h > 0 and (at_s := at_s + rng.expovariate(rate_per_h / HOUR_S)) < until_s:
            drawn.append((at_s, those))
    return iter(sorted(drawn, key=lambda draw: draw[0]))


def _prices() -> list[tuple[str, str, float, float]]:
    """(region, interruption label, spot, on demand), US dollars an hour."""
    with DATA.open() as file:
        rows = list(csv.DictReader(file))
    return [
        (
            row["region"],
            row["interruption_label"],
            float(row["on_demand_usd_per_hour"]) * (1 - int(row["savings_over_on_demand_pct"]) / 100),
            float(row["on_demand_usd_per_hour"]),
        )
        for row in rows
    ]
