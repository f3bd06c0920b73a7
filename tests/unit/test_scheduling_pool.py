"""Which nodes a request may use: status, owner, region, exclusion, and rest after failures."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from crosslogic.fleet.model import Node, NodeLoad, NodeStatus
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.model import Ask, Candidate
from crosslogic.scheduling.pool import CooldownPolicy, Pool

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
    pool = pool_of(*nodes, fallback_regions={"in": ("sg", "eu")})
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
