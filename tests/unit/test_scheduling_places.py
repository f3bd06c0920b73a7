"""What the queue is told of places on nodes."""

import random
from datetime import UTC, datetime

from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.model import Ask, Candidate, NoNode, NoNodeReason
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import new_strategy
from crosslogic.scheduling.scheduler import Scheduler

ORG = OrgId("org_a")
OTHER = OrgId("org_b")


def node(name: str, *, owner: OrgId | None = None, status: NodeStatus = NodeStatus.ACTIVE) -> Node:
    return Node(NodeId(name), f"http://{name}:1", ("m",), status, datetime(2026, 1, 1, tzinfo=UTC), org_id=owner)


def scheduler(*nodes: Node) -> Scheduler:
    pool = Pool()
    pool.update(nodes)
    return Scheduler(pool, new_strategy("least_loaded"), random.Random(1), ManualClock(), max_requests_per_node=2)


def dispatch(house: Scheduler, org: OrgId = OTHER) -> Candidate:
    picked = house.pick(Ask("m", org))
    assert isinstance(picked, Candidate)
    house.dispatched(picked, 10)
    return picked


def test_places_are_taken_by_dispatch_and_come_back() -> None:
    house = scheduler(node("n1"), node("n2"))
    line = house.places.line("m", OTHER)
    taken = [dispatch(house) for _ in range(4)]
    assert (house.places.total(line), house.places.free(line)) == (4, 0)
    for candidate in taken:
        house.finished(candidate, 10, ok=True)
    assert house.places.free(line) == 4


def test_only_nodes_that_take_requests_have_places() -> None:
    house = scheduler(node("n1"), node("n2", status=NodeStatus.DRAINING), node("n3", status=NodeStatus.DEAD))
    assert house.places.total("m") == 2
    assert house.places.total("unknown") == 0


def test_an_org_with_nodes_of_its_own_waits_for_those_and_nobody_else_does() -> None:
    house = scheduler(node("n1"), node("own", owner=ORG))
    assert house.places.line("m", OTHER) != house.places.line("m", ORG)
    dispatch(house, ORG)
    assert house.places.free(house.places.line("m", ORG)) == 1
    assert house.places.free(house.places.line("m", OTHER)) == 2


def test_a_node_that_rests_after_failures_offers_no_place_while_others_do() -> None:
    house = scheduler(node("n1"), node("n2"))
    for _ in range(8):
        candidate = dispatch(house)
        house.finished(candidate, 10, ok=candidate.node_id != "n1")
    while house.places.total("m") == 4:
        candidate = dispatch(house)
        house.finished(candidate, 10, ok=candidate.node_id != "n1")
    assert house.places.total("m") == 2


def test_an_org_whose_own_nodes_are_full_waits_for_shared_ones_unless_it_is_confined() -> None:
    house = scheduler(node("n1"), node("own", owner=ORG))
    assert [dispatch(house, ORG).node_id for _ in range(2)] == ["own", "own"]
    assert house.places.line("m", ORG) == "m"
    assert [dispatch(house, ORG).node_id for _ in range(2)] == ["n1", "n1"]
    assert house.places.line("m", ORG) != "m"  # nothing is free anywhere: it waits for its own
    confined = scheduler(node("n1"), node("own", owner=ORG))
    confined.pool.confine(frozenset({(ORG, "m")}))
    assert [dispatch(confined, ORG).node_id for _ in range(2)] == ["own", "own"]
    assert confined.places.line("m", ORG) != "m"
    assert confined.pick(Ask("m", ORG)) == NoNode(NoNodeReason.NO_CAPACITY)
    confined.pool.update([node("n1")])  # its own is gone
    assert confined.pick(Ask("m", ORG)) == NoNode(NoNodeReason.NO_HEALTHY_NODE)
