"""Whatever a fleet goes through: nobody loses their last node, and only what is unhealthy is ejected."""

from collections import defaultdict
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crosslogic.fleet.health import HealthRules, History, Observed, ejectable, judged
from crosslogic.fleet.model import Node, NodeStatus, Symptom, Verdict
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.model import Ask
from crosslogic.scheduling.pool import Pool

MODELS = ("m", "n", "o")
REGIONS = ("in", "eu")


def fleets(status: st.SearchStrategy[NodeStatus]) -> st.SearchStrategy[list[Node]]:
    one = st.builds(
        Node,
        id=st.integers(0, 9).map(lambda index: NodeId(f"node_{index}")),
        endpoint_url=st.just("http://node:8000"),
        models=st.lists(st.sampled_from(MODELS), max_size=3, unique=True).map(tuple),
        status=status,
        created_at=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
        region=st.sampled_from(REGIONS),
        org_id=st.sampled_from([None, None, OrgId("org_a")]),
    )
    return st.lists(one, max_size=10, unique_by=lambda node: node.id)


def sights() -> st.SearchStrategy[Observed]:
    return st.builds(
        lambda requests, failed_ratio, **more: Observed(
            requests=requests, failures=int(requests * failed_ratio), **more
        ),
        st.integers(0, 100),
        st.floats(0.0, 1.0),
        temperature_c=st.none() | st.floats(0.0, 120.0),
        vram_fragmentation_ratio=st.none() | st.floats(0.0, 1.0),
        oom_events=st.none() | st.integers(0, 5),
        rebalance_recommended=st.booleans(),
        first_tokens_ms=st.dictionaries(
            st.sampled_from(MODELS), st.floats(0.0, 1e5).map(lambda ms: [ms] * 10), max_size=2
        ),
    )


@given(
    rounds=st.lists(
        st.tuples(
            fleets(st.sampled_from([NodeStatus.ACTIVE, NodeStatus.ACTIVE, *NodeStatus])),
            st.dictionaries(st.integers(0, 9).map(lambda index: NodeId(f"node_{index}")), sights()),
            st.floats(0.0, 700.0),
        ),
        max_size=8,
    ),
    ratio=st.floats(0.0, 1.0),
)
@settings(max_examples=150, deadline=None)
def test_no_model_of_an_owner_in_a_region_loses_its_last_node(
    rounds: list[tuple[list[Node], dict[NodeId, Observed], float]], ratio: float
) -> None:
    rules = HealthRules(max_ejected_ratio=ratio)
    histories: dict[NodeId, History] = {}
    now_s = 0.0
    for fleet, seen, seconds in rounds:
        now_s += seconds
        found = judged(fleet, seen, histories, now_s, rules)
        assert found.keys() == {node.id for node in fleet}
        lines: dict[tuple[object, ...], list[bool]] = defaultdict(list)
        for node in fleet:
            health = found[node.id].health
            assert not health.ejected or health.verdict is Verdict.UNHEALTHY
            assert (health.symptom is None) == (health.verdict is Verdict.HEALTHY)
            assert (found[node.id].history.ejected_until_s is not None) == health.ejected
            if node.status is not NodeStatus.ACTIVE:
                assert health.verdict is Verdict.HEALTHY
                continue
            for model in node.models:
                lines[model, node.region, node.org_id].append(health.ejected)
        for ejected in lines.values():
            assert not all(ejected)
            assert sum(ejected) <= max(1, ratio * len(ejected))
        histories = {node_id: one.history for node_id, one in found.items()}


@given(fleet=fleets(st.just(NodeStatus.ACTIVE)), data=st.data(), ratio=st.floats(0.0, 1.0))
@settings(max_examples=150, deadline=None)
def test_what_stays_serves_everything_that_was_served(fleet: list[Node], data: st.DataObject, ratio: float) -> None:
    wanted = data.draw(st.permutations([node.id for node in fleet]))
    gone = ejectable(fleet, wanted, ratio)
    before = {(model, node.region, node.org_id) for node in fleet for model in node.models}
    after = {(model, node.region, node.org_id) for node in fleet if node.id not in gone for model in node.models}
    assert after == before


@given(
    fleet=fleets(st.sampled_from(list(NodeStatus))),
    data=st.data(),
    model=st.sampled_from(MODELS),
    region=st.sampled_from([None, *REGIONS]),
    strict=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_a_gateway_that_knows_of_ejected_nodes_only_uses_them_and_of_others_uses_those(
    fleet: list[Node], data: st.DataObject, model: str, region: str | None, strict: bool
) -> None:
    """Also with verdicts that control would not give, or that are old."""
    ejected = data.draw(st.sets(st.sampled_from([node.id for node in fleet])) if fleet else st.just(set()))
    ask = Ask(model, OrgId("org_b"), region=region, region_strict=strict)
    pool = Pool()
    pool.update(fleet)
    anyhow = {candidate.node_id for candidate in pool.candidates(ask, 0.0)}
    pool.update([_ejected(node) if node.id in ejected else node for node in fleet])
    offered = {candidate.node_id for candidate in pool.candidates(ask, 0.0)}
    assert bool(offered) == bool(anyhow)
    if offered & ejected:
        assert not anyhow - ejected
    pool.update(fleet)
    assert {candidate.node_id for candidate in pool.candidates(ask, 0.0)} == anyhow


def _ejected(node: Node) -> Node:
    return replace(node, health=replace(node.health, verdict=Verdict.UNHEALTHY, symptom=Symptom.ERRORS, ejected=True))
