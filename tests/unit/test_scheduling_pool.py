"""Which nodes a request may use: status, owner, region, exclusion, and rest after failures."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from crosslogic.catalog.regions import Region, Regions, load_regions
from crosslogic.fleet.model import Node, NodeLoad, NodeStatus
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.model import Ask, Candidate
from crosslogic.scheduling.pool import LEFT_FOR_S, CooldownPolicy, Pool

START = datetime(2026, 1, 1, tzinfo=UTC)
ACME, GLOBEX = OrgId("org_acme"), OrgId("org_globex")


def node(name: str, **changes: object) -> Node:
    known = Node(
        id=NodeId(name),
        endpoint_url=f"http://{name}:8000",
        models=("m",),
        status=NodeStatus.ACTIVE,
        created_at=START,
    )
    return msgspec.structs.replace(known, **changes)


def pool_of(*nodes: Node, **options: object) -> Pool:
    pool = Pool(**options)  # type: ignore[arg-type]
    pool.update(nodes)
    return pool


def ids(candidates: Iterable[Candidate]) -> set[str]:
    return {candidate.node_id for candidate in candidates}


def ask(**changes: object) -> Ask:
    return msgspec.structs.replace(Ask(model="m", org_id=ACME), **changes)


@pytest.mark.parametrize("status", [NodeStatus.STARTING, NodeStatus.DRAINING, NodeStatus.DEAD])
def test_only_active_nodes_are_offered(status: NodeStatus) -> None:
    pool = pool_of(node("a"), node("b", status=status))
    assert ids(pool.candidates(ask(), 0.0)) == {"a"}


def test_a_node_serves_each_of_its_models_and_no_other() -> None:
    pool = pool_of(node("a", models=("m", "n")), node("b", models=("n",)))
    assert ids(pool.candidates(ask(model="m"), 0.0)) == {"a"}
    assert ids(pool.candidates(ask(model="n"), 0.0)) == {"a", "b"}
    assert ids(pool.candidates(ask(model="other"), 0.0)) == set()


def test_an_orgs_node_is_offered_to_that_org_only_and_preferred_by_it() -> None:
    pool = pool_of(node("own", org_id=ACME), node("shared"))
    assert ids(pool.candidates(ask(), 0.0)) == {"own"}
    assert ids(pool.candidates(ask(org_id=GLOBEX), 0.0)) == {"shared"}
    assert ids(pool.candidates(ask(excluded=(NodeId("own"),)), 0.0)) == {"shared"}


def test_an_orgs_node_is_not_lent_when_nothing_else_is_left() -> None:
    pool = pool_of(node("own", org_id=ACME), node("shared", status=NodeStatus.DEAD))
    assert ids(pool.candidates(ask(org_id=GLOBEX), 0.0)) == set()


def test_a_request_stays_in_its_region_while_that_has_a_node() -> None:
    pool = pool_of(node("in", region="in"), node("sg", region="sg"), node("eu", region="eu"))
    assert ids(pool.candidates(ask(region="in"), 0.0)) == {"in"}
    assert ids(pool.candidates(ask(), 0.0)) == {"in", "sg", "eu"}


def test_a_region_without_nodes_falls_back_to_the_nearest_then_to_any() -> None:
    nodes = (node("sg", region="sg"), node("eu", region="eu"), node("us", region="us"))
    pool = pool_of(
        *nodes,
        regions=Regions([Region("in", "India", fallbacks=("sg", "eu")), Region("sg", "APAC"), Region("eu", "Europe")]),
    )
    assert ids(pool.candidates(ask(region="in"), 0.0)) == {"sg"}
    assert ids(pool.candidates(ask(region="in", excluded=(NodeId("sg"),)), 0.0)) == {"eu"}
    assert ids(pool.candidates(ask(region="mars"), 0.0)) == {"sg", "eu", "us"}


def test_data_residency_refuses_rather_than_leaves() -> None:
    pool = pool_of(node("in", region="in", status=NodeStatus.DEAD), node("sg", region="sg"))
    assert ids(pool.candidates(ask(region="in"), 0.0)) == {"sg"}
    assert ids(pool.candidates(ask(region="in", region_strict=True), 0.0)) == set()
    assert ids(pool.candidates(ask(region="mars", region_strict=True), 0.0)) == set()


def test_the_same_question_is_answered_with_the_same_tuple_until_the_fleet_changes() -> None:
    pool = pool_of(node("a"), node("b"))
    first = pool.candidates(ask(), 0.0)
    assert pool.candidates(ask(tokens=5), 1.0) is first
    pool.update([node("a"), node("b", load=NodeLoad(requests_running=3))])
    assert pool.candidates(ask(), 2.0) is first
    pool.update([node("a"), node("b", status=NodeStatus.DRAINING)])
    assert ids(pool.candidates(ask(), 3.0)) == {"a"}


def fail(pool: Pool, candidate: Candidate, times: int, now_s: float) -> None:
    for _ in range(times):
        pool.failed(candidate, now_s)


def by_id(pool: Pool, now_s: float = 0.0) -> dict[str, Candidate]:
    return {candidate.node_id: candidate for candidate in pool.candidates(ask(), now_s)}


def test_failures_in_a_row_send_a_node_to_rest_and_one_more_after_it_for_twice_as_long() -> None:
    pool = pool_of(node("a"), node("b"), cooldown=CooldownPolicy(failures=3, first_s=2.0, longest_s=20.0))
    bad = by_id(pool)["b"]
    fail(pool, bad, 2, now_s=10.0)
    assert set(by_id(pool, 10.0)) == {"a", "b"}
    fail(pool, bad, 1, now_s=10.0)
    assert set(by_id(pool, 11.9)) == {"a"}
    assert set(by_id(pool, 12.0)) == {"a", "b"}
    fail(pool, bad, 1, now_s=12.0)
    assert set(by_id(pool, 15.9)) == {"a"}
    assert set(by_id(pool, 16.0)) == {"a", "b"}


def test_rest_never_exceeds_its_bound_so_that_a_recovered_node_is_back_in_time() -> None:
    pool = pool_of(node("a"), node("b"))
    bad = by_id(pool)["b"]
    now_s = 0.0
    for _ in range(12):
        fail(pool, bad, 3, now_s)
        assert bad.cooling_until_s is not None
        assert bad.cooling_until_s - now_s <= 20.0
        now_s = bad.cooling_until_s
        assert "b" in by_id(pool, now_s)


def test_a_success_ends_the_count() -> None:
    pool = pool_of(node("a"), node("b"))
    bad = by_id(pool)["b"]
    for _ in range(10):
        fail(pool, bad, 2, now_s=0.0)
        pool.succeeded(bad)
    assert set(by_id(pool)) == {"a", "b"}


def test_the_last_candidate_is_never_ejected() -> None:
    pool = pool_of(node("a"), node("b"))
    for candidate in by_id(pool).values():
        fail(pool, candidate, 3, now_s=0.0)
    assert set(by_id(pool, 0.5)) == {"a", "b"}


def test_a_resting_node_in_the_region_is_used_only_when_the_other_regions_have_none() -> None:
    pool = pool_of(node("in", region="in"), node("sg", region="sg"))
    fail(pool, by_id(pool)["in"], 3, now_s=0.0)
    assert ids(pool.candidates(ask(region="in"), 0.5)) == {"sg"}
    assert ids(pool.candidates(ask(region="in", excluded=(NodeId("sg"),)), 0.5)) == {"in"}


def test_counters_stay_with_a_node_that_stays() -> None:
    pool = pool_of(node("a"), node("b"))
    kept = by_id(pool)["a"]
    kept.ledger.add(100)
    kept.observe_first_token(40.0)
    pool.update([node("a", health_score=0.5), node("c")])
    again = by_id(pool)["a"]
    assert again is kept
    assert (again.in_flight_requests, again.in_flight_tokens, again.latency_ewma_ms) == (1, 100, 40.0)
    assert again.health_score == 0.5
    assert set(by_id(pool)) == {"a", "c"}


def test_a_busy_model_weighs_on_the_other_models_of_its_node() -> None:
    pool = pool_of(node("a", models=("m", "n")))
    (m,), (n,) = pool.candidates(ask(), 0.0), pool.candidates(ask(model="n"), 0.0)
    m.ledger.add(500)
    assert n.in_flight_tokens == 500


def beat(pool: Pool, number: int, **load: int) -> None:
    """The node's heartbeat number `number` reaches the pool."""
    pool.update([node("a", load=NodeLoad(**load), last_heartbeat_at=START + timedelta(seconds=5 * number))])


def test_heartbeats_teach_what_other_gateways_sent() -> None:
    pool = pool_of(node("a"))
    ledger = by_id(pool)["a"].ledger
    ledger.add(1000)
    beat(pool, 1, tokens_in_flight=5000)
    assert (ledger.elsewhere_tokens, ledger.load_s) == (4000.0, 5.0)
    beat(pool, 2, tokens_in_flight=1000)
    assert (ledger.elsewhere_tokens, ledger.load_s) == (0.0, 1.0)


def test_where_a_node_reports_requests_they_are_taken_for_ordinary_ones() -> None:
    pool = pool_of(node("a"))
    ledger = by_id(pool)["a"].ledger
    for _ in range(200):
        ledger.add(100)
        ledger.remove(100)
    beat(pool, 1, requests_running=2)  # forgets the peak of one
    beat(pool, 2, requests_running=3, requests_waiting=1)
    assert ledger.elsewhere_tokens == pytest.approx(400, rel=0.01)


def test_a_lone_gateway_never_takes_its_own_finished_work_for_somebody_elses() -> None:
    pool = pool_of(node("a"))
    ledger = by_id(pool)["a"].ledger
    for number in range(1, 20):
        for _ in range(number):
            ledger.add(700)
        reported = ledger.requests
        for _ in range(number):
            ledger.remove(700)
        beat(pool, number, requests_running=reported)
        assert ledger.load_s == 0.0


def test_models_are_listed_as_an_org_may_see_them() -> None:
    later = START + timedelta(days=1)
    pool = pool_of(
        node("a", models=("m", "n")),
        node("b", models=("m",), created_at=later),
        node("c", models=("private",), org_id=ACME),
        node("d", models=("gone",), status=NodeStatus.DEAD),
    )
    assert [(listing.name, listing.own) for listing in pool.models(ACME)] == [
        ("m", False),
        ("n", False),
        ("private", True),
    ]
    assert [listing.name for listing in pool.models(GLOBEX)] == ["m", "n"]
    assert pool.models()[0].created_s == int(START.timestamp())
    assert pool.knows("private", ACME)
    assert not pool.knows("private", GLOBEX)
    assert pool.knows("gone", GLOBEX)


def test_candidates_do_not_show_addresses_in_their_repr() -> None:
    pool = pool_of(node("a", api_key="secret"))
    assert "secret" not in repr(by_id(pool)["a"])
    assert "http" not in repr(by_id(pool)["a"])


class TestBreaker:
    """Of each node and model: open after failures, half open after a rest, closed by a success."""

    def open_at(self, now_s: float, **options: object) -> tuple[Pool, Candidate]:
        pool = pool_of(node("a"), node("b"), cooldown=CooldownPolicy(failures=3, first_s=2.0), **options)
        bad = next(c for c in pool.candidates(ask(), now_s) if c.node_id == "a")
        for _ in range(3):
            pool.failed(bad, now_s)
        assert ids(pool.candidates(ask(), now_s)) == {"b"}
        return pool, bad

    def test_one_grave_failure_is_enough(self) -> None:
        pool = pool_of(node("a"), node("b"))
        bad = next(c for c in pool.candidates(ask(), 0.0) if c.node_id == "a")
        pool.failed(bad, 0.0, grave=True)
        assert ids(pool.candidates(ask(), 0.0)) == {"b"}

    def test_one_probe_at_a_time(self) -> None:
        pool, bad = self.open_at(0.0)
        assert ids(pool.candidates(ask(), 2.5)) == {"a", "b"}
        assert bad.half_open
        pool.probed(bad, running=True)
        assert ids(pool.candidates(ask(), 2.5)) == {"b"}, "until the probe is back"
        pool.probed(bad, running=False)  # its caller left: nothing is known
        assert ids(pool.candidates(ask(), 2.5)) == {"a", "b"}
        pool.probed(bad, running=True)
        pool.succeeded(bad)
        assert ids(pool.candidates(ask(), 2.5)) == {"a", "b"}
        assert (bad.half_open, bad.probing, bad.failures) == (False, False, 0)

    def test_a_probe_that_fails_doubles_the_rest(self) -> None:
        pool, bad = self.open_at(0.0)
        pool.candidates(ask(), 2.0)
        pool.probed(bad, running=True)
        pool.failed(bad, 2.0)
        assert ids(pool.candidates(ask(), 5.9)) == {"b"}
        assert ids(pool.candidates(ask(), 6.1)) == {"a", "b"}

    def test_the_last_node_is_never_taken_out_whatever_it_does(self) -> None:
        pool, bad = self.open_at(0.0)
        pool.update([node("a")])
        assert ids(pool.candidates(ask(), 0.0)) == {"a"}
        pool.candidates(ask(), 2.0)
        pool.probed(bad, running=True)
        assert ids(pool.candidates(ask(), 2.0)) == {"a"}

    def test_other_models_of_the_node_are_not_concerned(self) -> None:
        pool = pool_of(node("a", models=("m", "n")), node("b", models=("m", "n")))
        bad = next(c for c in pool.candidates(ask(), 0.0) if c.node_id == "a")
        pool.failed(bad, 0.0, grave=True)
        assert ids(pool.candidates(ask(model="n"), 0.0)) == {"a", "b"}


class TestRetryAfter:
    def test_nobody_asks_the_node_before_even_if_it_is_the_last(self) -> None:
        pool = pool_of(node("a"))
        (resting,) = pool.candidates(ask(), 0.0)
        pool.leave_alone(resting, 5.0)
        pool.leave_alone(resting, 3.0)
        assert ids(pool.candidates(ask(), 4.9)) == set()
        assert pool.rests_until_s(ask()) == 5.0
        assert ids(pool.candidates(ask(), 5.0)) == {"a"}
        assert pool.rests_until_s(ask()) is None

    def test_only_nodes_that_could_serve_are_worth_waiting_for(self) -> None:
        pool = pool_of(node("own", org_id=GLOBEX), node("far", region="far"))
        for candidate in (*pool.candidates(ask(org_id=GLOBEX), 0.0), *pool.candidates(ask(), 0.0)):
            pool.leave_alone(candidate, 9.0)
        assert pool.rests_until_s(ask(region="near", region_strict=True)) is None
        assert pool.rests_until_s(ask(excluded=(NodeId("far"),))) is None
        assert pool.rests_until_s(ask()) == 9.0

    def test_a_place_within_the_region_is_worth_waiting_for_also_where_data_must_stay(self) -> None:
        regions = Regions(load_regions())
        pool = Pool(regions=regions)
        pool.update([node("there", region="ap-south-1")])
        for candidate in pool.candidates(ask(), 0.0):
            pool.leave_alone(candidate, 9.0)
        assert pool.rests_until_s(ask(region="in", region_strict=True)) == 9.0
        assert pool.rests_until_s(ask(region="eu", region_strict=True)) is None

    def test_nobody_waits_for_a_node_that_its_key_may_not_use(self) -> None:
        pool = pool_of(node("near", region="near"), node("own", region="near", org_id=ACME))
        for candidate in (*pool.candidates(ask(), 0.0), *pool.candidates(ask(), 0.0, shared_only=True)):
            pool.leave_alone(candidate, 9.0)
        assert pool.rests_until_s(ask(allowed_regions=frozenset({"far"}))) is None
        assert pool.rests_until_s(ask(allowed_regions=frozenset({"near"}))) == 9.0
        pool.confine(frozenset({(ACME, "m")}))
        assert pool.rests_until_s(ask(excluded=(NodeId("own"),))) is None


class TestARegionThatAllLeft:
    """Spot machines that leave after a notice are gone from the table: what they served must not fall upon others."""

    def test_it_is_down_for_as_long_as_dead_nodes_are_remembered_and_then_empty(self) -> None:
        here, there = node("here", region="here"), node("there", region="there")
        pool = pool_of(here, there)
        asked = ask(region="here")
        assert not pool.is_down(asked, 0.0)
        pool.update([there])
        assert pool.is_down(asked, 10.0)
        assert pool.is_down(asked, 10.0 + LEFT_FOR_S - 1)
        assert not pool.is_down(asked, 10.0 + LEFT_FOR_S)
        assert not pool.is_down(ask(region="elsewhere"), 10.0), "it never had any"

    def test_the_first_node_that_is_back_ends_that_and_the_next_loss_counts_anew(self) -> None:
        here, there = node("here", region="here"), node("there", region="there")
        pool = pool_of(here, there)
        pool.update([there])
        assert pool.is_down(ask(region="here"), 10.0)
        pool.update([here, there])
        assert not pool.is_down(ask(region="here"), 20.0)
        pool.update([there])
        assert pool.is_down(ask(region="here"), 5_000.0)

    def test_nodes_of_other_orgs_and_models_say_nothing(self) -> None:
        there = node("there", region="there", models=("m", "n"))
        pool = pool_of(node("theirs", region="here", org_id=GLOBEX), node("n", region="here", models=("n",)), there)
        pool.update([there])
        assert not pool.is_down(ask(region="here"), 0.0)
        assert pool.is_down(ask(region="here", org_id=GLOBEX), 0.0)
        assert pool.is_down(ask(region="here", model="n"), 0.0)
