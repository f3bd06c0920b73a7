"""Preemption, policies, counters and refusals of the queue, one decision at a time."""

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.queueing.counters import Change, Counters, SharedCounters
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.model import Bounds, Queued, Shed, ShedReason, TrafficClass, Turn, TurnAsk, cost_of
from crosslogic.queueing.policies import TIERS, policy
from crosslogic.queueing.preemption import should_preempt, victim
from crosslogic.queueing.weighted_fair import WeightedFair

FREE, SERVERLESS, RESERVED = TrafficClass


def ask(name: str, traffic: TrafficClass = SERVERLESS, priority: int = 1, **fields: object) -> TurnAsk:
    tenant = str(fields.pop("tenant", name))
    return TurnAsk(name, "m", tenant, 1e9, traffic=traffic, priority=priority, **fields)  # type: ignore[arg-type]


def running(name: str, traffic: TrafficClass, priority: int, started_s: float = 0.0, *, agreed: bool = True) -> Turn:
    return Turn(ask(name, traffic, priority, preemptible=agreed), started_s, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ((SERVERLESS, 1), (SERVERLESS, 2), True),
        ((SERVERLESS, 2), (SERVERLESS, 2), False),
        ((SERVERLESS, 3), (SERVERLESS, 2), False),
        ((FREE, 9), (SERVERLESS, 1), True),  # class goes before priority
        ((SERVERLESS, 9), (RESERVED, 1), True),
        ((RESERVED, 1), (SERVERLESS, 9), False),
    ],
)
def test_only_a_higher_request_preempts(
    low: tuple[TrafficClass, int], high: tuple[TrafficClass, int], expected: bool
) -> None:
    assert should_preempt(running("low", *low), ask("high", *high)) is expected


def test_who_has_not_agreed_or_has_sent_a_byte_or_is_over_is_left_alone() -> None:
    high = ask("high", RESERVED, 9)
    sent, over = running("sent", FREE, 1), running("over", FREE, 1)
    sent.sent, over.open = True, False
    assert not should_preempt(running("refuses", FREE, 1, agreed=False), high)
    assert not should_preempt(sent, high)
    assert not should_preempt(over, high)
    assert victim([sent, over], high) is None


def test_the_lowest_that_began_last_is_put_back() -> None:
    turns = [
        running("high", SERVERLESS, 2, 9.0),
        running("early", FREE, 1, 1.0),
        running("late", FREE, 1, 5.0),
        running("kind", FREE, 2, 7.0),
    ]
    found = victim(turns, ask("x", SERVERLESS, 5))
    assert found is not None
    assert found.ask.id == "late"


def test_policies_have_the_documents_names() -> None:
    for name in ("fifo", "priority", "weighted-fair", "weighted_fair", "preemptive"):
        assert len(policy(name).new_order()) == 0
    assert policy("preemptive").preemption
    assert not policy("priority").preemption
    with pytest.raises(ConfigurationError, match="lottery"):
        policy("lottery")
    order = policy("weighted_fair", shared=True).new_order()
    assert isinstance(order, WeightedFair)
    assert isinstance(order.counters, SharedCounters)


def test_a_higher_tier_fares_better_in_every_respect() -> None:
    free, pro, enterprise = (TIERS[name] for name in ("free", "pro", "enterprise"))
    for lower, higher in ((free, pro), (pro, enterprise)):
        assert (lower.traffic, lower.priority) < (higher.traffic, higher.priority)
        assert lower.weight < higher.weight
        assert lower.max_waiting < higher.max_waiting
    assert free.preemptible
    assert not enterprise.preemptible


def test_an_output_token_costs_two_and_a_prompt_token_one() -> None:
    assert cost_of(7, 5) == 17.0
    assert ask("a", prompt_tokens=7, output_tokens=5).cost == 17.0


@settings(max_examples=600, deadline=None)
@given(
    operations=st.lists(st.tuples(st.booleans(), st.integers(-50, 50)), max_size=12),
    cut=st.integers(0, 12),
    start=st.integers(-100, 100),
)
def test_any_history_of_a_counter_is_two_numbers(operations: Sequence[tuple[bool, int]], cut: int, start: int) -> None:
    def changes(some: Sequence[tuple[bool, int]]) -> tuple[dict[str, Change], SharedCounters]:
        counters = SharedCounters()
        for lifts, amount in some:
            (counters.lift if lifts else counters.add)("t", float(amount))
        return counters.take_changes(), counters

    value = float(start)
    for lifts, amount in operations:
        value = max(value, amount) if lifts else value + amount
    whole, _ = changes(operations)
    assert whole.get("t", Change()).applied(float(start)) == value
    early, _ = changes(operations[:cut])
    late, counters = changes(operations[cut:])
    counters.put_back(late)
    counters.changes, later = {}, counters.changes
    counters.put_back(later)
    counters.put_back(early)  # a report that was lost goes before what came after it
    assert counters.changes.get("t", Change()).applied(float(start)) == value


def test_tenants_behind_the_present_are_forgotten_and_nothing_else_is() -> None:
    counters = Counters()
    for number in range(1000):
        counters.lift(f"old{number}", float(number))
    counters.virtual = 5000.0
    for number in range(30):
        counters.lift(f"new{number}", 5000.0 + number)
    assert len(counters.values) < 40
    assert counters.value("new29") == 5029.0
    assert counters.value("old5") == 5000.0


def test_a_full_queue_tells_when_one_place_will_be_free() -> None:
    queue = FairQueue(policy("fifo").new_order, Bounds(waiting=2, waiting_per_tenant=2))
    turns = [queue.start(ask(f"r{n}"), 0.0) for n in range(2)]
    queue.end(queue.start(ask("first"), 0.0), 10.0, 20.0)  # a request takes 20 s; two run: one ends each 10 s
    assert isinstance(queue.offer(ask("a", tenant="t"), 20.0), Queued)
    second = queue.offer(ask("b", tenant="t"), 20.0)
    assert second == Queued(2, 20.0)
    full = queue.offer(ask("c"), 20.0)
    assert full == Shed(ShedReason.QUEUE_FULL, 10.0)
    own = queue.offer(ask("d", tenant="t"), 20.0)
    assert own == Shed(ShedReason.TENANT_FULL, 10.0)
    impatient = queue.offer(TurnAsk("e", "m", "e", 25.0, priority=5), 20.0)
    assert impatient == Shed(ShedReason.DEADLINE, 25.0)  # the third in line
    assert len(queue) == 2  # and nobody was displaced for it
    assert len(turns) == 2


def test_what_is_reserved_is_not_refused_on_the_strength_of_an_estimate() -> None:
    queue = FairQueue(policy("fifo").new_order)
    queue.end(queue.start(ask("first"), 0.0), 10.0, 20.0)
    queue.start(ask("runs", RESERVED), 0.0)
    queue.end(queue.start(ask("second", RESERVED), 0.0), 10.0, 20.0)
    assert queue.offer(TurnAsk("r", "m", "r", 25.0, traffic=RESERVED), 20.0) == Queued(1, 20.0)
    assert isinstance(queue.offer(TurnAsk("s", "m", "s", 25.0), 20.0), Shed)


def test_what_was_put_back_is_the_last_of_its_class_to_give_way() -> None:
    queue = FairQueue(policy("priority").new_order, Bounds(waiting=2, waiting_per_tenant=2))
    interrupted = ask("interrupted")
    queue.offer(interrupted, 0.0)
    turn = queue.start(interrupted, 0.0)
    queue.offer(ask("newcomer"), 1.0)
    queue.end(turn, 0.0, 1.0)
    queue.offer(interrupted, 1.0)
    answer = queue.offer(ask("high", priority=2), 2.0)
    assert isinstance(answer, Queued)
    assert answer.displaced is not None
    assert answer.displaced.id == "newcomer"
