"""What can still be promised, against the plainest way of computing it (max-flow min-cut over all subsets)."""

from datetime import UTC, datetime, timedelta
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from crosslogic.capacity.model import Reservation, Terms
from crosslogic.capacity.promises import placeable, room_for
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.kernel.ids import NodeId, OrgId, ReservationId

DAY = datetime(2026, 1, 1, tzinfo=UTC)
ORGS = (OrgId("org_a"), OrgId("org_b"))


@st.composite
def flows(draw: st.DrawFn) -> tuple[list[int], list[list[int]], list[int]]:
    supplies = draw(st.lists(st.integers(0, 20), max_size=4))
    amounts = draw(st.lists(st.integers(0, 20), max_size=4))
    places = st.lists(st.integers(0, len(supplies) - 1), unique=True) if supplies else st.just([])
    return amounts, [draw(places) for _ in amounts], supplies


def most_in_all(amounts: list[int], reach: list[list[int]], supplies: list[int]) -> int:
    """The smallest cut: for each set of amounts what lies outside of it, and all that those inside reach."""
    everything = range(len(amounts))
    return min(
        sum(amounts[i] for i in everything if i not in inside)
        + sum(supplies[s] for s in {s for i in inside for s in reach[i]})
        for size in range(len(amounts) + 1)
        for inside in combinations(everything, size)
    )


@given(flow=flows())
@settings(max_examples=300, deadline=None)
def test_each_amount_gets_the_most_that_those_before_it_leave(
    flow: tuple[list[int], list[list[int]], list[int]],
) -> None:
    amounts, reach, supplies = flow
    placed = placeable(amounts, reach, supplies)
    assert all(0 <= got <= amount for got, amount in zip(placed, amounts, strict=True))
    for first in range(len(amounts) + 1):
        assert sum(placed[:first]) == most_in_all(amounts[:first], reach[:first], supplies)


def node(
    number: int, models: tuple[str, ...], region: str = "eu", owner: OrgId | None = None, per_s: int = 100
) -> Node:
    return Node(
        NodeId(f"n{number}"),
        f"http://n{number}:1",
        models,
        NodeStatus.ACTIVE,
        DAY,
        region=region,
        org_id=owner,
        throughput_tokens_per_s=per_s,
    )


def promise(
    number: int,
    units: int,
    model: str = "m",
    *,
    org: OrgId = ORGS[0],
    region: str | None = None,
    days: tuple[int, int] = (0, 10),
    nodes: tuple[str, ...] = (),
    shared_fallback: bool = True,
) -> Reservation:
    return Reservation(
        ReservationId(f"res_{number}"),
        org,
        model,
        units,
        DAY + timedelta(days=days[0]),
        DAY + timedelta(days=days[1]),
        DAY,
        region=region,
        nodes=tuple(map(NodeId, nodes)),
        shared_fallback=shared_fallback,
    )


def test_a_node_that_serves_two_models_is_promised_once() -> None:
    fleet = [node(1, ("m", "n")), node(2, ("m",))]
    assert room_for(promise(0, 1), [], fleet, Terms()).units == 200
    assert room_for(promise(0, 1), [promise(1, 60, "n")], fleet, Terms()).units == 140
    assert room_for(promise(0, 1, "n"), [promise(1, 90)], fleet, Terms()).units == 100  # m moves to its own node


def test_a_region_counts_its_own_nodes_only() -> None:
    fleet = [node(1, ("m",)), node(2, ("m",), region="us")]
    assert room_for(promise(0, 1, region="us"), [promise(1, 120)], fleet, Terms()).units == 80
    assert room_for(promise(0, 1, region="mars"), [], fleet, Terms()).units == 0


def test_only_the_tightest_moment_counts() -> None:
    others = [promise(1, 30, days=(2, 4)), promise(2, 50, days=(3, 6)), promise(3, 90, days=(20, 30))]
    fleet = [node(1, ("m",))]
    assert room_for(promise(0, 1), others, fleet, Terms()).units == 20
    assert room_for(promise(0, 1, days=(4, 6)), others, fleet, Terms()).units == 50
    assert room_for(promise(0, 1, days=(6, 20)), others, fleet, Terms()).units == 100


def test_what_others_own_or_have_to_themselves_is_no_room() -> None:
    fleet = [node(1, ("m",), owner=ORGS[1]), node(2, ("m",)), node(3, ("m",), owner=ORGS[0])]
    assert room_for(promise(0, 1), [], fleet, Terms()).units == 200
    dedicated = promise(1, 50, org=ORGS[1], nodes=("n2",))
    assert room_for(promise(0, 1), [dedicated], fleet, Terms()).units == 100
    assert room_for(promise(0, 1, shared_fallback=False), [], fleet, Terms()).units == 100


def test_dedicating_nodes_may_not_break_what_was_promised_on_them() -> None:
    fleet = [node(1, ("m",)), node(2, ("m",))]
    room = room_for(promise(0, 1, nodes=("n1",)), [promise(1, 130, org=ORGS[1])], fleet, Terms())
    assert (room.units, room.broken_units) == (100, 30)


def test_overcommit_and_unknown_throughput() -> None:
    unknown = Node(NodeId("n"), "http://n:1", ("m",), NodeStatus.ACTIVE, DAY, gpu_count=4)
    dead = Node(NodeId("d"), "http://d:1", ("m",), NodeStatus.DEAD, DAY)
    assert room_for(promise(0, 1), [], [unknown, dead], Terms(overcommit=1.5, tokens_per_s_per_gpu=10)).units == 60
