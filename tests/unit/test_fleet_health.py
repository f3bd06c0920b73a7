"""What makes a node degraded or unhealthy, what ejects it, and how it comes back."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from crosslogic.fleet.health import (
    HealthRules,
    History,
    Judgement,
    Observed,
    baseline_after,
    ejectable,
    judged,
    said,
)
from crosslogic.fleet.model import Node, NodeHealth, NodeStatus, Symptom, Verdict
from crosslogic.kernel.ids import NodeId

RULES = HealthRules()
START_S = 1_000_000.0
HEALTHY, DEGRADED, UNHEALTHY = Verdict
WELL = Observed(temperature_c=60.0, vram_fragmentation_ratio=0.1, oom_events=0, requests=50)


def node(name: str, **changes: Any) -> Node:
    known = Node(NodeId(name), f"http://{name}:8000", ("m",), NodeStatus.ACTIVE, datetime(2026, 1, 1, tzinfo=UTC))
    return msgspec.structs.replace(known, **changes)


def seen(**changes: Any) -> Observed:
    return msgspec.structs.replace(WELL, **changes)


def answering(first_token_ms: float, requests: int = 20) -> Observed:
    return seen(requests=requests, first_tokens_ms={"m": [first_token_ms] * requests})


class Fleet:
    """Judged again and again, every five seconds."""

    def __init__(self, *names: str, rules: HealthRules = RULES) -> None:
        self.nodes = {name: node(name) for name in names}
        self.rules = rules
        self.now_s = START_S
        self.found: dict[NodeId, Judgement] = {}

    def judge(self, seconds: float = 5.0, **observed: Observed) -> None:
        """By what was seen of some; the others are well."""
        histories = {
            node_id: msgspec.convert(msgspec.json.decode(msgspec.json.encode(one.history)), History)  # as it is stored
            for node_id, one in self.found.items()
        }
        self.now_s += seconds
        known = {NodeId(name): observed.get(name, WELL) for name in self.nodes}
        self.found = judged(self.nodes.values(), known, histories, self.now_s, self.rules)

    def health(self, name: str) -> NodeHealth:
        return self.found[NodeId(name)].health

    def verdict(self, name: str) -> Verdict:
        return self.health(name).verdict

    def eject(self, name: str, sick: Observed) -> None:
        for _ in range(4):
            self.judge(**{name: sick})
        assert self.health(name).ejected


def test_a_node_of_which_nothing_bad_is_known_is_healthy() -> None:
    fleet = Fleet("a", "b")
    fleet.judge(b=Observed())
    assert fleet.health("a") == fleet.health("b") == NodeHealth()


@pytest.mark.parametrize(
    ("sick", "symptom"),
    [
        (seen(temperature_c=90.0), Symptom.TEMPERATURE),
        (seen(vram_fragmentation_ratio=0.81), Symptom.VRAM_FRAGMENTATION),
        (seen(requests=20, failures=5), Symptom.ERRORS),
        (seen(requests=3, failures=3), Symptom.ERRORS),
    ],
)
def test_over_a_limit_is_degraded_at_once_and_ejected_when_it_lasts(sick: Observed, symptom: Symptom) -> None:
    fleet = Fleet("a", "b")
    for _ in range(3):
        fleet.judge(a=sick)
        health = fleet.health("a")
        assert (health.verdict, health.symptom, health.ejected) == (DEGRADED, symptom, False)
        assert health.detail
    fleet.judge(a=sick)
    health = fleet.health("a")
    assert (health.verdict, health.symptom, health.ejected) == (UNHEALTHY, symptom, True)
    assert fleet.health("b") == NodeHealth()


def test_a_limit_is_left_only_well_below_it() -> None:
    fleet = Fleet("a", "b")
    for degrees_c, verdict in ((89.0, HEALTHY), (91.0, DEGRADED), (84.0, DEGRADED), (80.0, HEALTHY), (84.0, HEALTHY)):
        fleet.judge(a=seen(temperature_c=degrees_c))
        assert fleet.verdict("a") is verdict, degrees_c


def test_a_spike_that_is_over_soon_ejects_nobody() -> None:
    fleet = Fleet("a", "b")
    for second in range(20):
        fleet.judge(a=seen(temperature_c=95.0 if second % 2 else 60.0))
        assert not fleet.health("a").ejected


def test_out_of_memory_counts_by_the_rise_of_its_counter_and_is_forgotten() -> None:
    fleet = Fleet("a", "b")
    for count, verdict in ((7, HEALTHY), (8, HEALTHY), (9, HEALTHY), (10, DEGRADED)):
        fleet.judge(a=seen(oom_events=count))  # how many there were before we looked says nothing
        assert fleet.verdict("a") is verdict, count
    fleet = Fleet("a", "b")
    for count in (0, 1, 2, 2):
        fleet.judge(seconds=150, a=seen(oom_events=count))
    fleet.judge(a=seen(oom_events=3))
    assert fleet.verdict("a") is HEALTHY
    fleet.judge(a=seen(oom_events=2))  # the agent was restarted, and has seen two since
    assert fleet.health("a").symptom is Symptom.OOM


def test_latency_is_measured_by_what_is_usual_for_the_node() -> None:
    fleet = Fleet("slow", "quick")
    fleet.judge(slow=answering(500.0), quick=answering(50.0))
    fleet.judge(slow=answering(500.0), quick=answering(160.0))
    assert fleet.verdict("slow") is HEALTHY
    assert fleet.health("quick").symptom is Symptom.LATENCY
    assert "3." in fleet.health("quick").detail


def test_latency_of_a_whole_fleet_under_load_is_no_nodes_fault() -> None:
    fleet = Fleet("a", "b", "c")
    fleet.judge(a=answering(50.0), b=answering(50.0), c=answering(50.0))
    for _ in range(6):
        fleet.judge(a=answering(400.0), b=answering(420.0), c=answering(450.0))
    assert {fleet.verdict(name) for name in "abc"} == {HEALTHY}
    fleet.judge(a=answering(400.0), b=answering(420.0), c=answering(1400.0))
    assert [fleet.verdict(name) for name in "abc"] == [HEALTHY, HEALTHY, DEGRADED]


def test_too_few_requests_say_nothing() -> None:
    fleet = Fleet("a", "b")
    fleet.judge(a=answering(50.0))
    for sick in (answering(5000.0, requests=9), seen(requests=9, failures=2), seen(requests=100, failures=19)):
        fleet.judge(a=sick)
        assert fleet.verdict("a") is HEALTHY


def test_what_is_usual_moves_slowly() -> None:
    assert baseline_after(None, 80.0, 1e9) == 80.0
    assert baseline_after(100.0, 101.0, 3600.0) == 101.0
    assert baseline_after(100.0, 1000.0, 3600.0) == pytest.approx(200.0)
    assert baseline_after(100.0, 1.0, 3600.0) == pytest.approx(50.0)
    assert baseline_after(100.0, 1000.0, 30.0) < 100.7
    fleet = Fleet("a", "b")
    fleet.judge(a=answering(50.0))
    for _ in range(60):  # five minutes of it do not become usual
        fleet.judge(a=answering(1000.0))
    assert fleet.found[NodeId("a")].history.baselines_ms["m"] < 60.0


def test_who_was_ejected_gets_a_little_when_its_time_is_over_and_is_back_when_that_goes_well() -> None:
    fleet = Fleet("a", "b")
    fleet.eject("a", seen(requests=20, failures=20))
    fleet.judge(seconds=29, a=Observed())
    assert fleet.health("a").ejected
    assert fleet.health("a").symptom is Symptom.ERRORS  # what it is away for, for as long as it is
    fleet.judge(seconds=1, a=Observed())
    health = fleet.health("a")
    assert (health.verdict, health.symptom, health.ejected) == (DEGRADED, Symptom.RECOVERING, False)
    assert fleet.found[NodeId("a")].history.counted_from_s == fleet.now_s
    fleet.judge(a=seen(requests=4))
    assert fleet.health("a").symptom is Symptom.RECOVERING
    fleet.judge(a=seen(requests=10))
    assert fleet.health("a") == NodeHealth()


def test_who_fails_on_trial_goes_at_once_and_for_twice_as_long() -> None:
    fleet = Fleet("a", "b")
    sick = seen(requests=10, failures=10)
    fleet.eject("a", sick)
    for away_s in (30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0):
        fleet.judge(seconds=away_s - 1, a=Observed())
        assert fleet.health("a").ejected, away_s
        fleet.judge(seconds=1, a=Observed())
        assert fleet.health("a").symptom is Symptom.RECOVERING, away_s
        fleet.judge(a=sick)
        assert fleet.health("a").ejected, away_s
        assert fleet.health("a").symptom is Symptom.ERRORS


def test_who_is_given_nothing_on_trial_is_back_after_a_while() -> None:
    fleet = Fleet("a", "b")
    fleet.eject("a", seen(requests=10, failures=10))
    fleet.judge(seconds=30, a=Observed())
    fleet.judge(seconds=29, a=Observed())
    assert fleet.verdict("a") is DEGRADED
    fleet.judge(seconds=1, a=Observed())
    assert fleet.health("a") == NodeHealth()


def test_a_hot_node_stays_away_for_as_long_as_it_is_hot() -> None:
    fleet = Fleet("a", "b")
    fleet.eject("a", seen(temperature_c=99.0))
    for _ in range(100):
        fleet.judge(a=seen(temperature_c=95.0))
        assert fleet.health("a").ejected
    fleet.judge(a=seen(temperature_c=70.0))
    assert fleet.health("a").symptom is Symptom.RECOVERING


def test_the_last_node_is_never_ejected_and_an_ejected_one_is_called_back_when_it_becomes_the_last() -> None:
    fleet = Fleet("a", "b")
    sick = seen(requests=20, failures=20)
    for _ in range(6):
        fleet.judge(a=sick, b=sick)
    assert [fleet.verdict("a"), fleet.verdict("b")] == [UNHEALTHY, UNHEALTHY]
    assert [fleet.health("a").ejected, fleet.health("b").ejected] == [True, False]
    fleet.nodes["b"] = node("b", status=NodeStatus.DEAD)
    fleet.judge(a=Observed())
    assert not fleet.health("a").ejected
    assert fleet.health("b") == NodeHealth()


def test_a_node_is_spared_for_any_of_its_models_owners_and_regions() -> None:
    two_models = node("a", models=("m", "rare"))
    away, of_acme = node("c", region="eu"), node("d", org_id="org_acme")
    fleet = [two_models, node("b"), away, of_acme]
    assert ejectable(fleet, [NodeId(name) for name in "acd"], 1.0) == frozenset()
    assert ejectable(fleet, [NodeId("b")], 1.0) == {"b"}


def test_at_most_half_of_a_models_nodes_are_ejected() -> None:
    fleet = [node(f"n{number}") for number in range(9)]
    everybody = [one.id for one in fleet]
    assert len(ejectable(fleet, everybody, 0.5)) == 4
    assert len(ejectable(fleet, everybody, 0.0)) == 1
    assert len(ejectable(fleet, everybody, 1.0)) == 8


def test_a_node_that_was_away_begins_anew_but_keeps_what_is_usual_for_it() -> None:
    fleet = Fleet("a", "b")
    fleet.judge(a=answering(50.0))
    fleet.eject("a", seen(temperature_c=99.0))
    fleet.nodes["a"] = node("a", status=NodeStatus.STARTING)
    fleet.judge()
    fleet.nodes["a"] = node("a")
    fleet.judge()
    assert fleet.health("a") == NodeHealth()
    assert fleet.found[NodeId("a")].history.baselines_ms == {"m": 50.0}


def test_an_agents_report_is_read_and_rubbish_in_it_is_not() -> None:
    gpus = [{"temperature_c": 61.0}, {"temperature_c": 84.5}, {"temperature_c": None}]
    report = {"gpus": gpus, "oom_events": 2, "vram_fragmentation_ratio": 0.4}
    assert said(report) == Observed(temperature_c=84.5, vram_fragmentation_ratio=0.4, oom_events=2)
    assert said({"gpus": [], "oom_events": None, "vram_fragmentation_ratio": None}) == Observed()
    assert said({"gpus": ["hot"], "oom_events": "many", "vram_fragmentation_ratio": "x"}) == Observed()
