"""What is guaranteed when, what a request is admitted against, how many places are kept, and whose nodes are whose."""

import random
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from crosslogic.capacity.dedication import Dedication
from crosslogic.capacity.guarantees import Guarantees
from crosslogic.capacity.lanes import Paces, ReservedLanes
from crosslogic.capacity.model import Reservation, ReservationState, Terms
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import EnvId, KeyId, NodeId, OrgId, ReservationId
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import Admitted, Demand, Layer, Limits, Rejected, Scope
from crosslogic.queueing.lanes import NO_LANE, Lane
from crosslogic.scheduling.places import Places
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import new_strategy
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.tenancy.model import Principal, Role

START = datetime(2026, 1, 1, tzinfo=UTC)
ORG, OTHER = OrgId("org_a"), OrgId("org_b")
GLOBAL = Scope(Layer.GLOBAL, "global", Limits(tokens_per_minute=1))
OF_ORG = Scope(Layer.ORG, "org_a", Limits(requests_per_minute=9))


def reservation(
    number: int = 1, *, org: OrgId = ORG, units: int = 15, begin_s: int = 0, end_s: int = 100
) -> Reservation:
    return Reservation(
        ReservationId(f"res_{number}"),
        org,
        "m",
        units,
        START + timedelta(seconds=begin_s),
        START + timedelta(seconds=end_s),
        START,
    )


def changed(of: Reservation, **fields: object) -> Reservation:
    made: Reservation = msgspec.structs.replace(of, **fields)
    return made


def principal(key: str = "key_1", org: OrgId = ORG, region: str | None = None) -> Principal:
    return Principal(
        org, "acme", EnvId("env"), "prod", KeyId(key), Role.DEVELOPER, region, None, scopes=(GLOBAL, OF_ORG)
    )


class Picture:
    """Guarantees under a clock that the test turns."""

    def __init__(self, *reservations: Reservation, limits: bool = True) -> None:
        self.clock = ManualClock(START)
        self.guarantees = Guarantees(lambda: self.clock.now().timestamp(), limits=limits)
        self.guarantees.replace(reservations)

    def units(self, who: Principal, model: str = "m") -> int | None:
        """Tokens a second that are guaranteed to this request."""
        found = [scope for scope in self.guarantees.scopes_for(who, model) if scope.guarantee]
        assert len(found) <= 1
        return found[0].limits.tokens_per_second if found else None


@pytest.mark.parametrize(
    ("at_s", "state"),
    [
        (-1, ReservationState.SCHEDULED),
        (0, ReservationState.ACTIVE),
        (99, ReservationState.ACTIVE),
        (100, ReservationState.EXPIRED),
    ],
)
def test_a_reservation_is_in_force_from_its_start_to_its_end(at_s: int, state: ReservationState) -> None:
    now = START + timedelta(seconds=at_s)
    assert reservation().state(now) is state
    assert changed(reservation(), cancelled_at=START).state(now) is ReservationState.CANCELLED


def test_the_guarantee_stands_after_the_shared_layers_and_before_the_org_s_own() -> None:
    picture = Picture(reservation())
    scopes = picture.guarantees.scopes_for(principal(), "m")
    assert [scope.layer for scope in scopes] == [Layer.GLOBAL, Layer.RESERVED, Layer.ORG]
    assert scopes[1].limits == Limits(tokens_per_second=15, burst_share=10.0)


def test_what_limiters_know_by_identity_stays_the_same_until_something_changes() -> None:
    picture = Picture(reservation())
    who = principal()
    first = picture.guarantees.scopes_for(who, "m")
    assert picture.guarantees.scopes_for(who, "m") is first
    assert picture.guarantees.scopes_for(principal(), "m") is not first  # the directory made this key's principal anew
    picture.guarantees.replace([reservation(units=20)])
    assert picture.units(who) == 20


def test_nobody_else_and_no_other_model_has_the_guarantee() -> None:
    picture = Picture(reservation())
    stranger = principal("key_2", OTHER)
    assert picture.guarantees.scopes_for(stranger, "m") is stranger.scopes
    assert picture.units(principal(), "other") is None


def test_reservations_of_the_same_kind_add_up_and_regions_stay_apart() -> None:
    picture = Picture(reservation(1), reservation(2, units=5))
    assert picture.units(principal()) == 20
    assert picture.units(principal("key_2", region="eu")) == 20
    picture.guarantees.replace([changed(reservation(1), region="eu"), changed(reservation(2, units=5), region="us")])
    assert picture.units(principal("key_2", region="eu")) == 15
    assert picture.units(principal("key_3", region="us")) == 5
    assert picture.units(principal("key_4", region="in")) is None
    assert picture.units(principal("key_5")) is None
    assert picture.guarantees.tokens_per_s("m", ORG) == 20


def test_it_begins_and_ends_by_time_alone() -> None:
    picture = Picture(reservation(begin_s=10, end_s=20), reservation(2, org=OTHER, begin_s=15, end_s=30))
    who = principal()
    seen = []
    for _ in range(7):
        seen.append((picture.units(who), bool(picture.guarantees)))
        picture.clock.advance(5)
    assert seen == [(None, False)] * 2 + [(15, True)] * 2 + [(None, True)] * 2 + [(None, False)]
    assert picture.guarantees.next_change_s == float("inf")


def test_a_cancelled_one_guarantees_nothing() -> None:
    picture = Picture(changed(reservation(), cancelled_at=START))
    assert picture.units(principal()) is None


def test_without_limits_only_the_guarantee_is_asked() -> None:
    picture = Picture(reservation(), limits=False)
    assert [scope.layer for scope in picture.guarantees.scopes_for(principal(), "m")] == [Layer.RESERVED]
    assert picture.guarantees.scopes_for(principal("key_2", OTHER), "m") == ()


@pytest.mark.parametrize("size", [20, 70, 4000])
async def test_an_org_gets_its_rate_whatever_the_sizes_of_its_requests_and_others_get_nothing(size: int) -> None:
    """Where the platform lets next to nothing through."""
    picture = Picture(reservation(units=100, end_s=10_000))
    limiter = MemoryLimiter(picture.clock)
    scopes = picture.guarantees.scopes_for(principal(), "m")[:2]  # without the ceiling of the org
    covered = 0
    for _ in range(4_000):  # it asks for far more, all the time
        admitted = await limiter.admit(scopes, Demand(size - 10, 10))
        if isinstance(admitted, Admitted):
            assert admitted.covered
            covered += size
            limiter.settle(admitted, Demand(size - 10, 10))
        picture.clock.advance(0.1)
    assert 0.99 * 100 * 400 <= covered <= 100 * 400 + 1000 + size
    stranger = picture.guarantees.scopes_for(principal("key_2", OTHER), "m")
    assert isinstance(await limiter.admit(stranger, Demand(10, 10)), Rejected)


async def test_what_a_covered_request_did_not_use_is_given_back_and_a_change_keeps_the_level() -> None:
    picture = Picture(reservation(units=100))
    limiter = MemoryLimiter(picture.clock)

    async def ask(tokens: int) -> Admitted | Rejected:
        return await limiter.admit(picture.guarantees.scopes_for(principal(), "m")[:2], Demand(0, tokens))

    whole = await ask(1000)  # the burst
    assert isinstance(whole, Admitted)
    assert isinstance(await ask(1), Rejected)
    limiter.settle(whole, Demand(0, 400))
    assert isinstance(await ask(600), Admitted)
    assert isinstance(await ask(1), Rejected)
    picture.guarantees.replace([reservation(units=200)])
    assert isinstance(await ask(1), Rejected)
    picture.clock.advance(0.1)
    assert isinstance(await ask(1), Admitted)


# lanes


def node(name: str, owner: OrgId | None = None) -> Node:
    return Node(NodeId(name), f"http://{name}:1", ("m",), NodeStatus.ACTIVE, START, org_id=owner)


def lanes_over(picture: Picture, *nodes: Node, workers: int = 2) -> ReservedLanes:
    pool = Pool()
    pool.update(nodes)
    house = Scheduler(pool, new_strategy("least_loaded"), random.Random(1), picture.clock, max_requests_per_node=16)
    return ReservedLanes(
        picture.guarantees,
        house.places,
        Paces(50.0),
        picture.clock.monotonic_s,
        Terms(tokens_per_s_per_gpu=300.0),
        workers=lambda: workers,
        ready_share=0.5,
    )


def test_places_are_kept_for_all_that_is_guaranteed_on_the_line() -> None:
    picture = Picture(reservation(units=500), reservation(2, org=OTHER, units=300))
    lanes = lanes_over(picture, node("n1"), node("n2"))
    assert lanes.lane_of("m") == Lane(13, 7)  # 800 tokens/s at 50 each, for two workers, and some for bursts
    assert lanes.lane_of("other") is NO_LANE
    picture.clock.advance(100)
    assert lanes.lane_of("m") is NO_LANE


def test_the_measured_pace_of_reserved_requests_takes_the_place_of_the_configured_one() -> None:
    picture = Picture(reservation(units=400))
    lanes = lanes_over(picture, node("n1"))
    assert lanes.lane_of("m").kept == 8
    lanes.paces.observe("m", False, 1000, 10.0)
    picture.clock.advance(1)
    assert lanes.lane_of("m").kept == 5  # 100 tokens/s each
    lanes.paces.observe("m", True, 100, 4.0)
    picture.clock.advance(1)
    assert lanes.lane_of("m").kept == 13  # theirs make 25
    lanes.paces.observe("m", True, 0, 4.0)
    assert lanes.paces.tokens_per_s("m") == 25.0


def test_an_org_has_its_places_on_its_own_nodes_as_far_as_they_go() -> None:
    picture = Picture(reservation(units=400), reservation(2, org=OTHER, units=100))
    lanes = lanes_over(picture, node("n1"), node("own", ORG))
    assert (lanes.tokens_per_s(f"m\n{ORG}"), lanes.tokens_per_s("m")) == (300, 200)
    assert (lanes.lane_of(f"m\n{ORG}").kept, lanes.lane_of("m").kept) == (6, 5)


def test_what_is_reserved_never_closes_idle_nodes_to_everybody_else() -> None:
    picture = Picture(reservation(units=100_000))
    lanes = lanes_over(picture, node("n1"))
    lane = lanes.lane_of("m")
    assert (lane.kept, lane.ready) == (16, 8)
    small = ReservedLanes(
        picture.guarantees,
        Places(one_node(), 1),
        Paces(50.0),
        picture.clock.monotonic_s,
        Terms(),
        workers=lambda: 1,
        ready_share=1.0,
    )
    assert small.lane_of("m") == Lane(1, 0)
    assert small.lane_of("m").shared_may_start(1, 0)


def one_node() -> Pool:
    pool = Pool()
    pool.update([node("n1")])
    return pool


# dedicated nodes


def test_a_dedicated_node_is_seen_as_its_org_s_and_the_same_object_while_nothing_changes() -> None:
    dedication = Dedication()
    nodes = [node("n1"), node("n2"), node("own", OTHER)]
    dedicated = {NodeId("n1"): ORG, NodeId("own"): ORG}
    seen = dedication.seen(nodes, dedicated)
    assert [each.org_id for each in seen] == [ORG, None, OTHER]
    assert seen[1] is nodes[1]
    again = dedication.seen(nodes, dedicated)
    assert all(one is other for one, other in zip(seen, again, strict=True))
    beat = msgspec.structs.replace(nodes[0], health_score=0.5)
    assert dedication.seen([beat], dedicated)[0].health_score == 0.5
    assert dedication.seen(nodes, {})[0] is nodes[0]
