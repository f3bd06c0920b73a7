"""For any fleet and any history: only eligible nodes are picked, owners are isolated, the ledger balances."""

import random
from datetime import UTC, datetime

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from crosslogic.capacity.dedication import Dedication
from crosslogic.fleet.model import Node, NodeLoad, NodeStatus
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.model import Ask, Candidate, NoNode, NoNodeReason
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import STRATEGIES, new_strategy
from crosslogic.scheduling.scheduler import Scheduler

MODELS = ("m", "n")
REGIONS = ("in", "sg", "eu")
ORGS = (OrgId("org_a"), OrgId("org_b"))


def nodes() -> st.SearchStrategy[list[Node]]:
    one = st.builds(
        Node,
        id=st.integers(0, 11).map(lambda index: NodeId(f"node_{index}")),
        endpoint_url=st.just("http://node:8000"),
        models=st.lists(st.sampled_from(MODELS), min_size=1, max_size=2, unique=True).map(tuple),
        status=st.sampled_from(list(NodeStatus)),
        created_at=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
        region=st.sampled_from(REGIONS),
        org_id=st.sampled_from([None, None, *ORGS]),
        health_score=st.floats(0.0, 1.0),
        spot_price_usd_per_hour=st.sampled_from([None, 1.0, 2.0]),
        throughput_tokens_per_s=st.sampled_from([None, 500.0, 4000.0]),
        load=st.builds(NodeLoad, requests_running=st.integers(0, 50)),
    )
    return st.lists(one, max_size=12, unique_by=lambda node: node.id)


def asks() -> st.SearchStrategy[Ask]:
    return st.builds(
        Ask,
        model=st.sampled_from(MODELS),
        org_id=st.sampled_from(ORGS),
        region=st.sampled_from([None, *REGIONS, "mars"]),
        tokens=st.integers(0, 10_000),
        prefix_hash=st.one_of(st.none(), st.integers(-(2**63), 2**64)),
        excluded=st.lists(st.integers(0, 11).map(lambda i: NodeId(f"node_{i}")), max_size=3).map(tuple),
        region_strict=st.booleans(),
    )


def may_serve(node: Node, ask: Ask, confined: frozenset[tuple[OrgId, str]] = frozenset()) -> bool:
    """The rules, said once more and in the plainest way."""
    if (ask.org_id, ask.model) in confined and node.org_id != ask.org_id:
        return False
    return (
        node.status is NodeStatus.ACTIVE
        and ask.model in node.models
        and node.org_id in (None, ask.org_id)
        and node.id not in ask.excluded
        and not (ask.region_strict and ask.region is not None and node.region != ask.region)
    )


@given(fleet=nodes(), ask=asks(), name=st.sampled_from(sorted(STRATEGIES)), seed=st.integers(0, 1000))
@settings(max_examples=300, deadline=None)
def test_every_strategy_picks_an_eligible_node_whenever_there_is_one(
    fleet: list[Node], ask: Ask, name: str, seed: int
) -> None:
    pool = Pool()
    pool.update(fleet)
    picked = Scheduler(pool, new_strategy(name), random.Random(seed), ManualClock()).pick(ask)
    eligible = [node for node in fleet if may_serve(node, ask)]
    if isinstance(picked, NoNode):
        assert not eligible
        return
    assert picked.node in eligible
    assert picked.model == ask.model
    at_home = [node for node in eligible if node.region == ask.region]
    if at_home:
        assert picked.node in at_home
    if any(node.org_id == ask.org_id for node in at_home or eligible):
        assert picked.node.org_id == ask.org_id


@given(
    fleet=nodes(),
    ask=asks(),
    dedicated=st.dictionaries(st.integers(0, 11).map(lambda i: NodeId(f"node_{i}")), st.sampled_from(ORGS)),
    confined=st.frozensets(st.tuples(st.sampled_from(ORGS), st.sampled_from(MODELS))),
    busy=st.lists(st.booleans(), min_size=12, max_size=12),
    reserved=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=400, deadline=None)
def test_dedicated_nodes_come_first_serve_nobody_else_and_are_left_only_where_that_is_allowed(
    fleet: list[Node],
    ask: Ask,
    dedicated: dict[NodeId, OrgId],
    confined: frozenset[tuple[OrgId, str]],
    busy: list[bool],
    reserved: bool,
    seed: int,
) -> None:
    """With a ceiling of one request a node: which nodes are busy is part of the picture."""
    ask = msgspec.structs.replace(ask, reserved=reserved)
    pool = Pool()
    pool.confine(confined)
    seen = Dedication().seen(fleet, dedicated)
    pool.update(seen)
    clock = ManualClock()
    house = Scheduler(pool, new_strategy("least_loaded"), random.Random(seed), clock, max_requests_per_node=1)
    for node in seen:
        if busy[int(node.id.removeprefix("node_"))]:
            Candidate(node, "m", pool._ledgers[node.id], 0).ledger.add(1)
    full = {node.id for node in seen if pool._ledgers[node.id].requests}
    eligible = [node for node in seen if may_serve(node, ask, confined)]
    picked = house.pick(ask)
    if isinstance(picked, NoNode):
        if picked.reason is NoNodeReason.NO_CAPACITY:
            assert not reserved, "reserved traffic was refused for load"
            assert eligible
        else:
            assert not eligible
        return
    assert picked.node in eligible
    own = [node for node in eligible if node.org_id == ask.org_id]
    here = [node for node in eligible if node.region == ask.region] or eligible
    if any(node in here and node.id not in full for node in own):
        assert picked.node in own
    if picked.node_id in full:
        assert reserved
        assert not any(node in here and node.id not in full for node in eligible)


@given(loads=st.lists(st.integers(0, 5000), min_size=1, max_size=8), seed=st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_least_loaded_of_a_few_is_never_beaten(loads: list[int], seed: int) -> None:
    fleet = [
        Node(
            id=NodeId(f"node_{index}"),
            endpoint_url="http://node:8000",
            models=("m",),
            status=NodeStatus.ACTIVE,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            throughput_tokens_per_s=100.0 * (1 + index % 3),
        )
        for index in range(len(loads))
    ]
    pool = Pool()
    pool.update(fleet)
    ask = Ask(model="m", org_id=ORGS[0])
    candidates = pool.candidates(ask, 0.0)
    for candidate, tokens in zip(candidates, loads, strict=True):
        candidate.ledger.add(tokens)
    picked = new_strategy("least_loaded").pick(candidates, ask, random.Random(seed))
    assert picked is not None
    assert picked.ledger.load_s == min(candidate.ledger.load_s for candidate in candidates)


class LedgerMachine(RuleBasedStateMachine):
    """Requests come and go while nodes come, go, change, fail and report; the books must balance throughout."""

    flights = Bundle("flights")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.pool = Pool()
        self.scheduler = Scheduler(self.pool, new_strategy("least_loaded"), random.Random(1), self.clock)
        self.in_flight: list[tuple[Candidate, int]] = []
        self.seen: dict[int, Candidate] = {}

    @rule(fleet=nodes())
    def fleet_changes(self, fleet: list[Node]) -> None:
        self.pool.update(fleet)

    @rule(seconds=st.floats(0.0, 30.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(target=flights, ask=asks())
    def dispatch(self, ask: Ask) -> tuple[Candidate, int] | None:
        picked = self.scheduler.pick(ask)
        if isinstance(picked, NoNode):
            return None
        assert may_serve(picked.node, ask)
        self.scheduler.dispatched(picked, ask.tokens)
        self.seen[id(picked.ledger)] = picked
        flight = (picked, ask.tokens)
        self.in_flight.append(flight)
        return flight

    @rule(
        flight=consumes(flights),
        ok=st.sampled_from([True, False, None]),
        first_token_ms=st.one_of(st.none(), st.floats(0.1, 1e5)),
    )
    def finish(self, flight: tuple[Candidate, int] | None, ok: bool | None, first_token_ms: float | None) -> None:
        if flight is None:
            return
        self.in_flight.remove(flight)
        self.scheduler.finished(*flight, ok=ok, first_token_ms=first_token_ms)

    @invariant()
    def books_balance(self) -> None:
        for key, candidate in self.seen.items():
            mine = [tokens for other, tokens in self.in_flight if id(other.ledger) == key]
            assert candidate.ledger.requests == len(mine)
            assert candidate.ledger.tokens == sum(mine)
            assert candidate.ledger.load_s >= 0.0

    def teardown(self) -> None:
        for flight in self.in_flight:
            self.scheduler.finished(*flight, ok=True)
        assert all(c.in_flight_requests == c.in_flight_tokens == 0 for c in self.seen.values())


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase
