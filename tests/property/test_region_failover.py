"""Region failover, for any fleet and history: residency holds, the share is exact, and all return home."""

import random
from datetime import UTC, datetime

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslogic.catalog.regions import Regions, load_regions
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.failover import FailoverThrottle
from crosslogic.scheduling.model import Ask, Candidate, Journey, NoNode, NoNodeReason
from crosslogic.scheduling.nearness import Nearness
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import STRATEGIES, new_strategy
from crosslogic.scheduling.scheduler import Scheduler

REGIONS = Regions(load_regions())
PLACES = ("in", "ap-south-1", "ap-south-2", "sg", "eu-central-1", "eu", "us-east-1", "rack-7")
ASKED = (None, "in", "india", "mumbai", "ap-south-1", "eu", "us", "sg", "rack-7", "mars")
ACME, OTHER = OrgId("org_acme"), OrgId("org_other")
THEN = datetime(2026, 1, 1, tzinfo=UTC)


def node(name: str, region: str, status: NodeStatus = NodeStatus.ACTIVE, org_id: OrgId | None = None) -> Node:
    return Node(NodeId(name), "http://node:8000", ("m",), status, THEN, region=region, org_id=org_id)


def house(*nodes: Node, share: float = 0.2, strategy: str = "least_loaded", home: str | None = None) -> Scheduler:
    pool = Pool(regions=REGIONS)
    pool.update(nodes)
    nearness = None if home is None else Nearness(REGIONS, home)
    return Scheduler(
        pool,
        new_strategy(strategy),
        random.Random(1),
        ManualClock(),
        failover=FailoverThrottle(share),
        nearness=nearness,
    )


def ask(region: str | None = "in", **changes: object) -> Ask:
    return msgspec.structs.replace(Ask("m", ACME, region, journey=Journey()), **changes)


fleets = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(list(NodeStatus)), st.sampled_from((None, None, ACME, OTHER))),
    max_size=8,
).map(lambda rows: [node(f"n{number}", *row) for number, row in enumerate(rows)])


@given(
    fleet=fleets,
    region=st.sampled_from(ASKED),
    allowed=st.none() | st.frozensets(st.sampled_from([name for name in ASKED if name]), min_size=1, max_size=2),
    fallbacks=st.lists(st.sampled_from(PLACES), max_size=2).map(tuple),
    strict=st.booleans(),
    reserved=st.booleans(),
    share=st.sampled_from((0.0, 0.2, 1.0)),
    failing=st.lists(st.integers(0, 7), max_size=12),
    strategy=st.sampled_from(sorted(STRATEGIES)),
)
@settings(max_examples=400, deadline=None)
def test_nothing_ever_leaves_its_residency_nor_what_its_key_allows(
    fleet: list[Node],
    region: str | None,
    allowed: frozenset[str] | None,
    fallbacks: tuple[str, ...],
    strict: bool,
    reserved: bool,
    share: float,
    failing: list[int],
    strategy: str,
) -> None:
    """Whatever fails: nodes are picked and fail in turn, as a request with many attempts would have it."""
    scheduler = house(*fleet, share=share, strategy=strategy)
    for number in failing:
        for candidate in scheduler.pool.candidates(ask(None), 0.0):
            if candidate.node_id == f"n{number}":
                scheduler.pool.failed(candidate, 0.0)
    wanted = ask(region, allowed_regions=allowed, region_fallbacks=fallbacks, region_strict=strict, reserved=reserved)
    for _ in range(len(fleet) + 1):
        picked = scheduler.pick(wanted)
        if isinstance(picked, NoNode):
            return
        place = picked.node.region
        assert picked.node.status is NodeStatus.ACTIVE
        assert picked.node.org_id in (None, ACME)
        if strict and region is not None:
            assert REGIONS.within(place, region)
        if allowed is not None:
            assert any(REGIONS.within(place, name) for name in allowed)
        assert wanted.journey is not None
        assert wanted.journey.failover is (region is not None and not REGIONS.within(place, region))
        wanted = msgspec.structs.replace(wanted, excluded=(*wanted.excluded, picked.node_id))


@given(
    share=st.integers(0, 20).map(lambda n: n / 20),
    outages=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=5),
)
@settings(deadline=None)
def test_at_most_the_share_of_a_region_that_is_down_goes_elsewhere_exact_within_one_request(
    share: float, outages: list[tuple[int, int]]
) -> None:
    scheduler = house(share=share)
    up = [node("home", "ap-south-1"), node("next", "sg")]
    down = [node("home", "ap-south-1", NodeStatus.DEAD), node("next", "sg")]
    for before, during in outages:
        scheduler.pool.update(up)
        for _ in range(before):
            picked = scheduler.pick(ask())
            assert isinstance(picked, Candidate)
            assert picked.node_id == "home"  # it returns at once, with all of its traffic
        scheduler.pool.update(down)
        left = 0
        for asked in range(1, during + 1):
            wanted = ask()
            picked = scheduler.pick(wanted)
            again = scheduler.pick(wanted)  # a retry of the same request decides nothing anew
            if isinstance(picked, Candidate):
                assert isinstance(again, Candidate)
                assert picked.node_id == again.node_id == "next"
                assert wanted.journey is not None
                assert wanted.journey.failover
                left += 1
            else:
                assert picked.reason is NoNodeReason.REGION_DOWN
                assert isinstance(again, NoNode)
            assert left <= share * asked + 1
            assert left >= int(share * asked + 1e-9)


def test_the_chain_of_the_documents() -> None:
    """India, then Singapore, then Europe, then the USA."""
    places = ("in", "sg", "eu", "us")
    for lost in range(4):
        nodes = [
            node(place, place, NodeStatus.DEAD if number < lost else NodeStatus.ACTIVE)
            for number, place in enumerate(places)
        ]
        picked = house(*nodes, share=1.0).pick(ask("in"))
        assert isinstance(picked, Candidate)
        assert picked.node.region == places[lost]


def test_an_orgs_own_preferences_come_before_the_catalogue() -> None:
    nodes = (node("a", "in", NodeStatus.DEAD), node("b", "sg"), node("c", "us"))
    picked = house(*nodes, share=1.0).pick(ask("in", region_fallbacks=("us",)))
    assert isinstance(picked, Candidate)
    assert picked.node.region == "us"


def test_a_region_that_never_had_the_model_is_empty_and_not_down() -> None:
    scheduler = house(node("a", "sg"), share=0.0)
    for _ in range(3):
        wanted = ask("in")
        assert isinstance(scheduler.pick(wanted), Candidate)
        assert wanted.journey is not None
        assert wanted.journey.failover


def test_reserved_capacity_is_not_held_back() -> None:
    scheduler = house(node("a", "in", NodeStatus.DEAD), node("b", "sg"), share=0.0)
    assert isinstance(scheduler.pick(ask("in", reserved=True)), Candidate)
    assert isinstance(scheduler.pick(ask("in")), NoNode)


def test_nodes_that_rest_after_failures_are_tried_by_those_who_may_not_leave() -> None:
    """So the region is found well again by its own traffic, without a probe."""
    scheduler = house(node("a", "in"), node("b", "sg"), share=0.0)
    (home,) = scheduler.pool.at_home(ask("in"), 0.0)
    for _ in range(3):
        scheduler.pool.failed(home, 0.0)
    picked = scheduler.pick(ask("in"))
    assert isinstance(picked, Candidate)
    assert picked.node_id == "a"


def test_a_request_without_region_goes_to_the_gateways_own() -> None:
    nodes = (node("a", "in"), node("b", "sg"))
    for home in ("in", "sg"):
        wanted = ask(None)
        picked = house(*nodes, home=home).pick(wanted)
        assert isinstance(picked, Candidate)
        assert picked.node.region == home
        assert wanted.journey is not None
        assert (wanted.journey.region, wanted.journey.failover) == (home, False)


def test_a_strict_request_without_region_stays_in_the_gateways_own() -> None:
    scheduler = house(node("b", "sg"), home="in", share=1.0)
    assert isinstance(scheduler.pick(ask(None, region_strict=True)), NoNode)
