"""One day of spot losses, with regions failing, in virtual time: `python -m bench.spot`.

Three regions (India, Europe, the USA) ask a chat model on L4 machines all day. Zones of spot machines go away and
come back at measured rates; India fails as a whole from 9 to 10 and the USA from 19:00 to 19:30 UTC, in their busiest
hours. Prints which share of the requests was served and what the machines cost, for several ways of renting them.
"""

from __future__ import annotations

import argparse
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from bench.spot.fleet import Day, Fleet, Policy
from bench.spot.market import Zone, advised, changes, scarce
from bench.spot.traffic import DAY_S, PEAK_H, arrivals
from crosslogic.simulator.profile import Profile, find_profile

MODEL, GPU = "meta-llama/Llama-3.1-8B-Instruct", "L4"
OUTAGES = [("in", 9 * 3600.0, 10 * 3600.0), ("us", 19 * 3600.0, 19.5 * 3600.0)]
REQUESTS_PER_S = 0.8  # of each region, mean of the day
REPLICAS = 2


@dataclass(frozen=True)
class Scenario:
    name: str
    policy: Policy
    market: str = "scarce"
    regions_fail: bool = True


def _policies() -> list[Scenario]:
    mixed = Policy(REPLICAS, on_demand=True)
    return [
        Scenario("on demand only", Policy(REPLICAS, spot_zones=0, on_demand=True)),
        Scenario("spot, as AWS's advisor has it", Policy(REPLICAS), "advised"),
        Scenario("spot, one zone for each region", Policy(REPLICAS, spot_zones=1)),
        Scenario("spot, three zones", Policy(REPLICAS)),
        Scenario("spot, three zones, on demand when there is none", mixed),
        Scenario("the same, no region fails", mixed, regions_fail=False),
        Scenario("the same, no notice at all", Policy(REPLICAS, on_demand=True, notice_s=0.0)),
        Scenario("the same, `failover_share` 1", Policy(REPLICAS, on_demand=True, failover_share=1.0)),
        Scenario(
            "the same, `failover_share` 1, a third machine", Policy(REPLICAS + 1, on_demand=True, failover_share=1.0)
        ),
    ]


def play(scenario: Scenario, hours: float, seed: int) -> Day:
    """All scenarios of a seed meet the same market and the same requests."""
    until_s = hours * 3600.0
    zones: list[Zone] = scarce() if scenario.market == "scarce" else advised()
    start, changed = changes(zones, until_s, random.Random(seed))
    traffic = [arrivals(region, REQUESTS_PER_S, until_s, random.Random(f"{seed} {region}")) for region in PEAK_H]
    outages = [outage for outage in OUTAGES if outage[1] < until_s] if scenario.regions_fail else []
    fleet = Fleet(zones, scenario.policy, _profile(), seed)
    return fleet.run(start, changed, outages, traffic, until_s)


def _profile() -> Profile:
    return find_profile(MODEL, GPU)


def row(scenario: Scenario, day: Day) -> str:
    refused = ", ".join(f"{count:,} {why}" for why, count in day.refused.most_common() if count) or "–"
    share, elsewhere = (100 * count / max(1, day.arrived) for count in (day.served, day.served_elsewhere))
    return (
        f"| {scenario.name} | {share:.2f} % | {elsewhere:.1f} % | {refused} | {day.cut:,}, {day.broken:,} | {day.lost} "
        f"| {day.spot_h:.0f}, {day.on_demand_h:.0f} | {day.usd:.2f} | {1e6 * day.usd / max(1, day.tokens):.2f} |"
    )


HEAD = """| machines | served | of it elsewhere | refused | streams cut, lost | machines lost | hours on spot, on demand | USD | USD / M tokens |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""  # noqa: E501


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=DAY_S / 3600.0)
    parser.add_argument("--seed", type=int, default=1, help="of the market and of the requests")
    parser.add_argument("--only", type=int, action="append", help="number of a row; may be repeated")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    scenarios = _policies()
    chosen = [scenarios[number - 1] for number in given.only] if given.only else scenarios
    print(f"{MODEL} on {GPU}: {_profile().basis}\n\n{HEAD}", flush=True)
    with ProcessPoolExecutor(given.processes) as pool:
        days = [pool.submit(play, scenario, given.hours, given.seed) for scenario in chosen]
        for scenario, day in zip(chosen, days, strict=True):
            print(row(scenario, day.result()), flush=True)
            if day.result().closed != day.result().arrived:
                print(f"WRONG: {day.result()}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
