"""A whole fleet in virtual time: our scheduler, failover split, placement and simulated engines, and a market that
takes machines away.

What decides is the product's own: `scheduling.Scheduler` picks, with regions and their fallbacks; `FailoverThrottle`
holds back; `orchestration.placement.assign` says where machines are rented; `simulator.Engine` computes. What acts is
here, as the gateway, the agent and control do it: another node before the first token, the rest elsewhere after it,
nothing new on a node with a notice, and a node that falls silent is found dead after 15 s.

Invariant: each request that arrived ends exactly once, as served, refused or broken (`Day.closed`).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import msgspec

from bench.spot.market import Change, Zone
from bench.spot.traffic import Request
from crosslogic.catalog.regions import Regions, load_regions
from crosslogic.fleet.lifecycle import DEAD_RETENTION_S
from crosslogic.fleet.model import BackendKind, Node, NodeStatus
from crosslogic.gateway.retry import COME_BACK_S, backoff_s
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.orchestration import placement
from crosslogic.orchestration.model import GpuSlot, Machine, Shortfall, Workload
from crosslogic.scheduling.failover import FailoverThrottle
from crosslogic.scheduling.model import Ask, Candidate, NoNodeReason
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.scheduling.strategies import LeastLoaded
from crosslogic.simulator.engine import Engine
from crosslogic.simulator.model import EngineConfig, Sequence, StepTime
from crosslogic.simulator.profile import Profile

UNIT = 16  # tokens that the engines count as one: a day of single tokens would take hours
MOST_PER_NODE = 32  # requests
RETRIES, BREAKS = 3, 3  # as scheduling.retries and scheduling.continuations are when nobody sets them
TABLE_S = 1.0  # until a gateway knows what control knows
DEAD_AFTER_S = 15.0
COLD_START_S = 240.0  # image and weights
LOOK_S = 15.0  # between two looks of who rents
STEADY_S = 600.0  # a zone is trusted to replace machines on demand after so long
MODEL, ORG = "m", OrgId("org_callers")


@dataclass(frozen=True)
class Policy:
    """How machines are rented. `spot_zones`: in each region the first so many are used."""

    replicas: int  # in each region
    spot_zones: int = 3
    on_demand: bool = False  # where no spot machine is to be had
    notice_s: float = 120.0
    failover_share: float = 0.2


@dataclass
class Rented:
    node_id: str
    zone: Zone
    spot: bool
    since_s: float
    engine: Engine
    running: dict[Sequence, tuple[Request, Candidate]] = field(default_factory=dict)
    status: NodeStatus = NodeStatus.STARTING
    alive: bool = True
    stepping: bool = False


@dataclass
class Day:
    """What came of it."""

    arrived: int = 0
    served: int = 0
    served_elsewhere: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    cut: int = 0  # streams that a loss cut
    retried: int = 0
    lost: int = 0  # machines that the market took
    died_with_work: int = 0
    tokens: int = 0
    usd: float = 0.0
    spot_h: float = 0.0
    on_demand_h: float = 0.0

    @property
    def closed(self) -> int:
        return self.served + self.broken + self.refused.total()


class Fleet:
    def __init__(self, zones: list[Zone], policy: Policy, profile: Profile, seed: int) -> None:
        self.day = Day()
        self.clock = ManualClock()
        self._policy = policy
        self._zones = {zone.name: zone for zone in zones}
        self._rng = random.Random(seed)
        self._step_time, self._config = _in_units(profile)
        self._regions = Regions(load_regions())
        self._pool = Pool(regions=self._regions)
        self._scheduler = Scheduler(
            self._pool,
            LeastLoaded(),
            self._rng,
            self.clock,
            max_requests_per_node=MOST_PER_NODE,
            failover=FailoverThrottle(policy.failover_share),
        )
        self._rented: dict[str, Rented] = {}
        self._known: dict[str, Node] = {}  # what the gateway's table says
        self._up_since: dict[str, float | None] = {}
        self._out: set[str] = set()  # regions that are dark
        self._numbers = itertools.count(1)
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def run(
        self,
        start: dict[str, bool],
        changes: list[Change],
        outages: list[tuple[str, float, float]],
        requests: list[Iterator[Request]],
        until_s: float,
    ) -> Day:
        """`start` and `changes` are the market's; of `outages` each is (place, from, until), in seconds."""
        self._up_since = {name: -math.inf if up else None for name, up in start.items()}
        for region in {zone.region for zone in self._zones.values()}:
            self._rent_in(region, cold_start_s=0.0)
        for change in changes:
            self._at(change.at_s, lambda change=change: self._changed(change))  # type: ignore[misc]
        for region, from_s, to_s in outages:
            self._at(from_s, lambda region=region: self._goes_dark(region))  # type: ignore[misc]
            self._at(to_s, lambda region=region: self._out.discard(region))  # type: ignore[misc]
        for stream in requests:
            self._next_arrival(stream)
        self._at(LOOK_S, lambda: self._look(until_s))
        while self._events:
            at_s, _, act = heapq.heappop(self._events)
            self.clock.advance(max(0.0, at_s - self._now_s))
            act()
        for machine in list(self._rented.values()):
            self._end(machine, min(until_s, self._now_s))
        return self.day

    @property
    def _now_s(self) -> float:
        return self.clock.monotonic_s()

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), act))

    # requests, as the gateway serves them

    def _next_arrival(self, stream: Iterator[Request]) -> None:
        request = next(stream, None)
        if request is None:
            return

        def arrives() -> None:
            self.day.arrived += 1
            self._dispatch(request)
            self._next_arrival(stream)

        self._at(request.arrived_s, arrives)

    def _dispatch(self, request: Request) -> None:
        left = request.output - request.made
        ask = Ask(
            MODEL,
            ORG,
            request.region,
            request.prompt + request.output,
            excluded=tuple(NodeId(name) for name in request.excluded),
            journey=request.journey,
            reserved=request.made > 0,  # what has begun is not held up by a node that is full
        )
        picked = self._scheduler.pick(ask)
        if not isinstance(picked, Candidate):
            self._none(request, picked.reason)
            return
        machine = self._rented.get(picked.node_id)
        self._scheduler.dispatched(picked, ask.tokens)
        sequence = Sequence(_units(request.prompt + request.made), _units(left))
        if machine is None or not machine.alive:
            self._failed(request, picked, ask.tokens, grave=True)
        elif machine.engine.submit(sequence, self._now_s) is not None:
            self._failed(request, picked, ask.tokens, grave=False)
        else:
            machine.running[sequence] = request, picked
            if not machine.stepping:
                machine.stepping = True
                self._step(machine)

    def _failed(self, request: Request, candidate: Candidate, tokens: int, *, grave: bool) -> None:
        """Nobody listens there, or it refuses: another one, after a pause."""
        self._scheduler.finished(candidate, tokens, ok=False, grave=grave)
        request.tries += 1
        request.excluded = (*request.excluded, candidate.node_id)
        if request.tries > RETRIES:
            self._close(request, "no node answered")
            return
        self.day.retried += 1
        self._at(self._now_s + backoff_s(0.05, request.tries, self._rng.random()), lambda: self._dispatch(request))

    def _none(self, request: Request, reason: NoNodeReason) -> None:
        if request.excluded and reason is NoNodeReason.NO_HEALTHY_NODE and request.tries <= RETRIES:
            request.tries += 1
            request.excluded = ()
            self._at(self._now_s + COME_BACK_S * request.tries, lambda: self._dispatch(request))
            return
        words = {NoNodeReason.REGION_DOWN: "region down", NoNodeReason.NO_CAPACITY: "full"}
        self._close(request, words.get(reason, "no node"))

    def _close(self, request: Request, why: str) -> None:
        if request.made:
            self.day.broken += 1
        else:
            self.day.refused[why] += 1

    def _step(self, machine: Rented) -> None:
        if not machine.alive:
            return
        if machine.engine.idle:
            machine.stepping = False
            return
        result = machine.engine.step(self._now_s)

        def ended() -> None:
            if not machine.alive:
                return  # what this step was to give died with its machine
            for sequence in result.finished:
                self._served(*machine.running.pop(sequence))
            self._step(machine)

        self._at(self._now_s + max(result.duration_s, 1e-6), ended)

    def _served(self, request: Request, candidate: Candidate) -> None:
        self._scheduler.finished(candidate, request.prompt + request.output, ok=True)
        self.day.served += 1
        self.day.served_elsewhere += request.journey.failover
        self.day.tokens += request.output

    # machines, as the market and control have them

    def _changed(self, change: Change) -> None:
        zone = self._zones[change.zone]
        self._up_since[zone.name] = self._now_s if change.up else None
        if change.up:
            return
        for machine in [m for m in self._rented.values() if m.zone is zone and m.spot]:
            self.day.lost += 1
            if self._policy.notice_s:
                self._drain(machine)
                self._at(self._now_s + self._policy.notice_s, lambda machine=machine: self._die(machine))  # type: ignore[misc]
            else:
                self._die(machine)

    def _goes_dark(self, place: str) -> None:
        """A region fails as a whole, without a word."""
        self._out.add(place)
        for machine in [m for m in self._rented.values() if self._regions.within(m.zone.region, place)]:
            self._die(machine)

    def _drain(self, machine: Rented) -> None:
        machine.status = NodeStatus.DRAINING
        self._at(self._now_s + TABLE_S, lambda: self._tell(machine))

    def _die(self, machine: Rented) -> None:
        if not machine.alive:
            return
        machine.alive = False
        self.day.died_with_work += bool(machine.running)
        self._end(machine, self._now_s)
        for sequence, (request, candidate) in machine.running.items():
            made = max(0, machine.engine.generated(sequence) - 1) * UNIT
            self._scheduler.finished(candidate, request.prompt + request.output, ok=False, grave=True)
            self._cut(request, made, machine.node_id)
        # Who left after a notice has said so; who fell silent is found out, and remembered for a while.
        if machine.status is NodeStatus.DRAINING:
            self._at(self._now_s + TABLE_S, lambda: self._forget(machine.node_id))
        else:
            self._at(self._now_s + DEAD_AFTER_S, lambda: self._found_dead(machine.node_id))

    def _cut(self, request: Request, made: int, node_id: str) -> None:
        """The rest is made elsewhere, at once."""
        self.day.cut += 1
        request.made = min(request.output - 1, request.made + made)
        request.breaks += 1
        request.excluded = (*request.excluded, node_id)
        if request.breaks > BREAKS:
            self._close(request, "cut too often")
            return
        self._at(self._now_s, lambda: self._dispatch(request))

    def _end(self, machine: Rented, at_s: float) -> None:
        """It is paid for no longer."""
        hours = max(0.0, at_s - machine.since_s) / 3600.0
        self.day.usd += hours * (machine.zone.spot_usd_per_h if machine.spot else machine.zone.on_demand_usd_per_h)
        if machine.spot:
            self.day.spot_h += hours
        else:
            self.day.on_demand_h += hours
        self._rented.pop(machine.node_id, None)

    def _look(self, until_s: float) -> None:
        """Rent what is missing, give back what is too much."""
        for region in {zone.region for zone in self._zones.values()}:
            if not any(self._regions.within(region, place) for place in self._out):
                self._rent_in(region)
                self._give_back(region)
        if self._now_s + LOOK_S < until_s:
            self._at(self._now_s + LOOK_S, lambda: self._look(until_s))

    def _rent_in(self, region: str, cold_start_s: float = COLD_START_S) -> None:
        here = [m for m in self._rented.values() if m.zone.region == region and m.status is not NodeStatus.DRAINING]
        on_demand = [machine for machine in here if not machine.spot]
        zones = self._all(region)
        trusted_s = STEADY_S if on_demand else 0.0
        open_ = [zone for zone in zones[: self._policy.spot_zones] if self._is_up_for(zone, trusted_s)]
        wanted = self._places(open_, here, self._policy.replicas - (len(here) - len(on_demand)), spot=True)
        for zone in wanted:
            self._rent(zone, spot=True, cold_start_s=cold_start_s)
        if self._policy.on_demand:
            missing = self._policy.replicas - len(here) - len(wanted)
            for zone in self._places(zones, here, missing, spot=False):
                self._rent(zone, spot=False, cold_start_s=cold_start_s)

    def _all(self, region: str) -> list[Zone]:
        return [zone for zone in self._zones.values() if zone.region == region]

    def _places(self, zones: list[Zone], here: list[Rented], missing: int, *, spot: bool) -> list[Zone]:
        """Where placement wants so many more: spread over zones first, then the cheapest."""
        if missing <= 0 or not zones:
            return []
        machines = []
        for zone in zones:
            held = sum(machine.zone is zone for machine in here)
            slots = tuple(GpuSlot(n, 1, held_by=MODEL if n < held else None) for n in range(held + missing))
            cost = zone.spot_usd_per_h if spot else zone.on_demand_usd_per_h
            machines.append(Machine(zone.name, zone.region, slots, spot=spot, cost=cost))
        found = placement.assign(Workload(MODEL, missing, 1, 1), machines)
        assert not isinstance(found, Shortfall), found
        return [self._zones[assignment.node_id] for assignment in found]

    def _is_up_for(self, zone: Zone, seconds: float) -> bool:
        since_s = self._up_since[zone.name]
        return since_s is not None and self._now_s - since_s >= seconds

    def _rent(self, zone: Zone, *, spot: bool, cold_start_s: float) -> None:
        engine = Engine(self._config, self._step_time, self._rng)
        machine = Rented(f"node{next(self._numbers)}", zone, spot, self._now_s, engine)
        self._rented[machine.node_id] = machine

        def ready() -> None:
            if machine.alive and machine.status is NodeStatus.STARTING:
                machine.status = NodeStatus.ACTIVE
                self._tell(machine)

        self._at(self._now_s + cold_start_s, ready)

    def _give_back(self, region: str) -> None:
        """Machines on demand that spot machines have taken the place of."""
        serving = [m for m in self._rented.values() if m.zone.region == region and m.status is NodeStatus.ACTIVE]
        too_many = len(serving) - self._policy.replicas
        for machine in [machine for machine in serving if not machine.spot][: max(0, too_many)]:
            self._drain(machine)
            self._at(self._now_s + 2 * TABLE_S, lambda machine=machine: self._leave_when_idle(machine))  # type: ignore[misc]

    def _leave_when_idle(self, machine: Rented) -> None:
        if machine.running:
            self._at(self._now_s + LOOK_S, lambda: self._leave_when_idle(machine))
        else:
            self._die(machine)

    def _tell(self, machine: Rented) -> None:
        """The gateway's table follows."""
        if not machine.alive:
            return
        self._known[machine.node_id] = Node(
            NodeId(machine.node_id),
            f"http://{machine.node_id}",
            (MODEL,),
            machine.status,
            self.clock.now(),
            backend=BackendKind.VLLM,
            region=machine.zone.region,
            spot=machine.spot,
        )
        self._pool.update(self._known.values())

    def _found_dead(self, node_id: str) -> None:
        known = self._known.get(node_id)
        if known is not None:
            self._known[node_id] = msgspec.structs.replace(known, status=NodeStatus.DEAD)
            self._pool.update(self._known.values())
            self._at(self._now_s + DEAD_RETENTION_S, lambda: self._forget(node_id))

    def _forget(self, node_id: str) -> None:
        if self._known.pop(node_id, None) is not None:
            self._pool.update(self._known.values())


def _units(tokens: int) -> int:
    return -(-tokens // UNIT)


def _in_units(profile: Profile) -> tuple[StepTime, EngineConfig]:
    """The same engine with tokens counted in units: a step makes one unit for each sequence, so it takes as long as so
    many steps did; a prompt is read once, whatever it is counted in."""
    step = profile.step_time
    scaled = StepTime(step.a_s * UNIT, step.b_s * UNIT, step.c_s * UNIT * UNIT, step.d_s * UNIT)
    config = EngineConfig(
        max_num_batched_tokens=512, kv_blocks=profile.kv_tokens // UNIT, block_tokens=1, noise_sigma=0.05
    )
    return scaled, config
