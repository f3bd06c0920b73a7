"""The day of spot losses: the market is the one that was measured, and every request of it ends once."""

import itertools
import random

import pytest
from bench.spot.__main__ import OUTAGES, Scenario, _profile, play
from bench.spot.fleet import COLD_START_S, Fleet, Policy
from bench.spot.market import HOUR_S, Change, Zone, advised, changes, scarce
from bench.spot.traffic import Request

HOURS = 2_000


def series(zones: list[Zone], hours: int, seed: int = 1) -> dict[str, list[bool]]:
    """Whether each zone is up, every quarter of an hour."""
    start, found = changes(zones, hours * HOUR_S, random.Random(seed))
    state, pending = dict(start), iter(found)
    change = next(pending, None)
    kept: dict[str, list[bool]] = {zone.name: [] for zone in zones}
    for quarter in range(hours * 4):
        while change is not None and change.at_s <= quarter * HOUR_S / 4:
            state[change.zone] = change.up
            change = next(pending, None)
        for name, up in state.items():
            kept[name].append(up)
    return kept


def correlation(one: list[bool], other: list[bool]) -> float:
    p, q = sum(one) / len(one), sum(other) / len(other)
    both = sum(a and b for a, b in zip(one, other, strict=True)) / len(one)
    return float((both - p * q) / (p * (1 - p) * q * (1 - q)) ** 0.5)


class TestMarket:
    def test_zones_are_up_and_lost_as_often_as_was_measured(self) -> None:
        zones = scarce()
        _, found = changes(zones, HOURS * HOUR_S, random.Random(1))
        kept = series(zones, HOURS)
        for zone in zones:
            up = sum(kept[zone.name]) / len(kept[zone.name])
            losses = sum(change.zone == zone.name and not change.up for change in found)
            assert up == pytest.approx(zone.available, abs=0.05)
            assert losses / (up * HOURS) == pytest.approx(zone.losses_per_h, rel=0.15)

    def test_zones_of_a_region_go_together_more_than_others(self) -> None:
        zones, kept = scarce(), series(scarce(), HOURS)
        pairs = list(itertools.combinations(zones, 2))
        same = [correlation(kept[a.name], kept[b.name]) for a, b in pairs if a.region == b.region]
        across = [correlation(kept[a.name], kept[b.name]) for a, b in pairs if a.region != b.region]
        assert sum(same) / len(same) == pytest.approx(0.43, abs=0.06)
        assert sum(across) / len(across) == pytest.approx(0.14, abs=0.05)

    def test_what_the_advisor_knows_is_calm(self) -> None:
        _, found = changes(advised(), 24 * HOUR_S, random.Random(1))
        assert len(found) < 10

    def test_a_change_is_one(self) -> None:
        start, found = changes(scarce(), 100 * HOUR_S, random.Random(2))
        state = dict(start)
        for change in found:
            assert state[change.zone] is not change.up
            state[change.zone] = change.up
        assert [change.at_s for change in found] == sorted(change.at_s for change in found)


def zone(name: str, region: str, spot: float = 0.4, listed: float = 1.0) -> Zone:
    return Zone(name, region, 0.9, 0.1, spot, listed)


def request(arrived_s: float, *, output: int = 200, region: str = "in") -> Request:
    return Request(arrived_s, region, 300, output)


INDIA, EUROPE = zone("ap-south-1a", "ap-south-1"), zone("eu-central-1a", "eu-central-1")
UP = {INDIA.name: True, EUROPE.name: True}


def fleet(policy: Policy, *zones: Zone) -> Fleet:
    return Fleet(list(zones or (INDIA, EUROPE)), policy, _profile(), seed=1)


class TestFleet:
    def test_a_quiet_day_serves_all_and_costs_what_was_rented(self) -> None:
        asked = [request(float(second), region=place) for second in range(60) for place in ("in", "eu")]
        day = fleet(Policy(2)).run(UP, [], [], [iter(asked)], HOUR_S)
        assert (day.arrived, day.served, day.served_elsewhere, day.cut) == (120, 120, 0, 0)
        assert day.tokens == 120 * 200
        assert day.on_demand_h == 0
        assert day.usd == pytest.approx(day.spot_h * 0.4)

    def test_a_notice_that_is_longer_than_answers_cuts_none_of_them(self) -> None:
        asked = [request(100.0 + n) for n in range(40)]
        lost = [Change(120.0, INDIA.name, up=False)]
        day = fleet(Policy(1)).run(UP, lost, [], [iter(asked)], HOUR_S)
        assert day.lost == 1
        assert (day.cut, day.broken, day.closed) == (0, 0, 40)

    def test_without_notice_what_was_cut_goes_on_elsewhere(self) -> None:
        asked = [request(110.0 + n) for n in range(10)]
        lost = [Change(120.0, INDIA.name, up=False)]
        day = fleet(Policy(1, notice_s=0.0)).run(UP, lost, [], [iter(asked)], HOUR_S)
        assert day.cut > 0
        assert (day.served, day.broken) == (10, 0)
        assert day.tokens == 10 * 200

    def test_of_a_region_that_is_down_no_more_than_its_share_goes_elsewhere(self) -> None:
        asked = [request(200.0 + n, output=8) for n in range(100)]
        day = fleet(Policy(2, failover_share=0.2)).run(UP, [], [("in", 100.0, 3_000.0)], [iter(asked)], HOUR_S)
        assert day.served_elsewhere <= 21 + 1
        assert day.refused["region down"] >= 75
        assert day.closed == 100

    def test_machines_on_demand_stand_in_and_are_given_back(self) -> None:
        asked = [request(float(60 * minute), output=8) for minute in range(240)]
        found = [Change(600.0, INDIA.name, up=False), Change(1_800.0, INDIA.name, up=True)]
        zones = {INDIA.name: True}
        day = fleet(Policy(2, on_demand=True), INDIA).run(zones, found, [], [iter(asked)], 4 * HOUR_S)
        # Two minutes lie between the end of the notice and the first machine that has started.
        assert day.served + day.refused["no node"] == 240
        assert day.refused["no node"] <= 5
        # Two machines from the notice until the zone was up for ten minutes and spot machines had started.
        assert 2 * 1_200 / HOUR_S < day.on_demand_h < 2 * (1_200 + 600 + 2 * COLD_START_S) / HOUR_S
        without = fleet(Policy(2), INDIA).run(zones, found, [], [iter(asked)], 4 * HOUR_S)
        assert without.served < day.served
        assert without.usd < day.usd

    def test_a_day_is_the_same_whenever_it_is_played(self) -> None:
        scenario = Scenario("any", Policy(1, on_demand=True, notice_s=0.0))
        assert play(scenario, 0.5, 3) == play(scenario, 0.5, 3)

    def test_regions_fail_in_their_busiest_hours(self) -> None:
        assert [(place, from_s / HOUR_S) for place, from_s, _ in OUTAGES] == [("in", 9.0), ("us", 19.0)]
