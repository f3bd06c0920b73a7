"""Preemption, policies, counters and refusals of the queue, one decision at a time."""

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.queueing.counters import Change, Counters, SharedCounters
from crosslogic.queueing.desk import Desk
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.model import Bounds, Queued, Shed, ShedReason, TrafficClass, Turn, TurnAsk, cost_of
from crosslogic.queueing.policies import POLICIES, orders
from crosslogic.queueing.preemption import should_preempt, victim
from crosslogic.settings.sections import SchedulingSettings
from crosslogic.tenancy.model import Feature, QueuePolicy
from crosslogic.tenancy.plans import shipped_plans
from crosslogic.wiring.queue import policy

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
    assert set(POLICIES) == {policy.value for policy in QueuePolicy}
    for name in POLICIES:
        assert len(orders(name)()) == 0
    with pytest.raises(ConfigurationError, match="lottery"):
        orders("lottery")


def test_preemption_may_be_asked_for_beside_the_priority_order_and_nowhere_else() -> None:
    for name, asked, found in (
        ("priority", True, "preemptive"),
        ("priority", False, "priority"),
        ("fifo", True, "fifo"),
        ("weighted-fair", True, "weighted-fair"),
        ("preemptive", False, "preemptive"),
    ):
        assert policy(SchedulingSettings(policy=name, preemption_enabled=asked)) == found  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [("free", "pro", "enterprise"), ("starter", "developer", "business")])
def test_a_dearer_plan_fares_better_in_every_respect(names: tuple[str, str, str]) -> None:
    shipped = {plan.id: plan for plan in shipped_plans()}
    lowest, middle, highest = (shipped[name] for name in names)
    for lower, higher in ((lowest, middle), (middle, highest)):
        assert lower.priority < higher.priority
        assert lower.weight < higher.weight
        assert (lower.max_queue_depth or 0) < (higher.max_queue_depth or 0)
    assert Feature.PRIORITY_QUEUE not in lowest.features
    assert all(Feature.PRIORITY_QUEUE in plan.features for plan in (middle, highest))


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
    queue = FairQueue(orders("fifo"), Bounds(waiting=2, waiting_per_tenant=2))
    turns = [queue.start(ask(f"r{n}"), 0.0) for n in range(2)]
    queue.end(queue.start(ask("first"), 0.0), 10.0, 20.0)  # a request takes 20 s; two run: one ends each 10 s
    assert isinstance(queue.offer(ask("a", tenant="t"), 20.0), Queued)
    second = queue.offer(ask("b", tenant="u"), 20.0)
    assert second == Queued(2, 20.0)
    full = queue.offer(ask("c"), 20.0)
    assert full == Shed(ShedReason.QUEUE_FULL, 10.0)
    own = queue.offer(ask("d", tenant="t", max_waiting=1), 20.0)
    assert own == Shed(ShedReason.TENANT_FULL, 10.0)
    impatient = queue.offer(TurnAsk("e", "m", "e", 25.0, priority=5), 20.0)
    assert impatient == Shed(ShedReason.DEADLINE, 25.0)  # the third in line
    assert len(queue) == 2  # and nobody was displaced for it
    assert len(turns) == 2


def test_what_is_reserved_is_not_refused_on_the_strength_of_an_estimate() -> None:
    queue = FairQueue(orders("fifo"))
    queue.end(queue.start(ask("first"), 0.0), 10.0, 20.0)
    queue.start(ask("runs", RESERVED), 0.0)
    queue.end(queue.start(ask("second", RESERVED), 0.0), 10.0, 20.0)
    assert queue.offer(TurnAsk("r", "m", "r", 25.0, traffic=RESERVED), 20.0) == Queued(1, 20.0)
    assert isinstance(queue.offer(TurnAsk("s", "m", "s", 25.0), 20.0), Shed)


def test_what_was_put_back_is_the_last_of_its_class_to_give_way() -> None:
    queue = FairQueue(orders("priority"), Bounds(waiting=2, waiting_per_tenant=2))
    interrupted = ask("interrupted")
    queue.offer(interrupted, 0.0)
    turn = queue.start(interrupted, 0.0)
    queue.offer(ask("newcomer"), 1.0)
    queue.end(turn, 0.0, 1.0)
    queue.take_back(interrupted, 1.0)
    answer = queue.offer(ask("high", priority=2), 2.0)
    assert isinstance(answer, Queued)
    assert answer.displaced is not None
    assert answer.displaced.id == "newcomer"


def test_what_was_put_back_waits_although_the_queue_is_full() -> None:
    queue = FairQueue(orders("priority"), Bounds(waiting=1, waiting_per_tenant=1))
    interrupted = ask("interrupted")
    queue.offer(interrupted, 0.0)
    turn = queue.start(interrupted, 0.0)
    queue.offer(ask("newcomer", tenant="interrupted"), 1.0)
    queue.end(turn, 0.0, 1.0)
    assert queue.take_back(interrupted, 1.0) == Queued(1, None)  # before the newcomer: it came first


def full(*asks: TurnAsk) -> FairQueue:
    queue = FairQueue(orders("weighted-fair"), Bounds(waiting=len(asks), waiting_per_tenant=100))
    for each in asks:
        assert isinstance(queue.offer(each, 0.0), Queued)
    return queue


def displaced_by(queue: FairQueue, newcomer: TurnAsk) -> str | None:
    answer = queue.offer(newcomer, 1.0)
    if isinstance(answer, Shed):
        assert answer.reason is ShedReason.QUEUE_FULL
        return None
    return answer.displaced.id if answer.displaced is not None else ""


def test_overload_sheds_free_then_serverless_by_priority_and_never_reserved() -> None:
    paid = [ask(name, priority=priority) for name, priority in (("high", 3), ("low", 1), ("middle", 2))]
    queue = full(ask("reserved", RESERVED), *paid, ask("free", FREE, 9))
    order = [displaced_by(queue, ask(f"new{n}", RESERVED)) for n in range(5)]
    assert order == ["free", "low", "middle", "high", None]
    assert "reserved" in queue


def test_a_queue_that_one_tenant_has_filled_takes_the_requests_of_others_until_all_are_equal() -> None:
    queue = full(*(ask(f"greedy{n}", tenant="greedy") for n in range(6)))
    assert displaced_by(queue, ask("greedy6", tenant="greedy")) is None
    assert [displaced_by(queue, ask(f"a{n}", tenant="a")) for n in range(4)] == ["greedy5", "greedy4", "greedy3", None]
    assert displaced_by(queue, ask("b0", tenant="b")) == "a2"  # of equals, who came last
    assert displaced_by(queue, ask("b1", tenant="b")) == "greedy2"
    assert displaced_by(queue, ask("b2", tenant="b")) is None
    assert queue.waiting_by_tenant() == {"greedy": 2, "a": 2, "b": 2}


def test_a_tenant_of_twice_the_weight_may_wait_with_twice_as_many() -> None:
    queue = full(*(ask(f"heavy{n}", tenant="heavy", weight=2.0) for n in range(6)))
    taken = [displaced_by(queue, ask(f"light{n}", tenant="light")) for n in range(4)]
    assert taken == ["heavy5", "heavy4", None, None]


def test_a_long_tenant_of_a_higher_class_does_not_give_way_to_a_lower_one() -> None:
    queue = full(*(ask(f"paid{n}", tenant="paid") for n in range(4)))
    assert displaced_by(queue, ask("free", FREE)) is None


class OnePlace:
    def __init__(self) -> None:
        self.taken = False

    def free(self, line: str) -> int:
        return 0 if self.taken else 1

    def total(self, line: str) -> int:
        return 1


def test_a_request_that_started_at_once_has_a_place_to_come_back_to() -> None:
    place = OnePlace()
    desk = Desk(FairQueue(orders("priority")), place)
    low = ask("low", preemptible=True)
    turn = desk.ask(low, 1.0)
    assert isinstance(turn, Turn)
    place.taken = True
    assert isinstance(desk.ask(ask("other"), 2.0), Queued)
    high = ask("high", priority=2, preempts=True)
    assert isinstance(desk.ask(high, 30.0), Queued)
    assert desk.preempt_for(high) is turn
    assert desk.preempt_for(high) is None  # once a turn
    desk.done(turn, 0, 0, 30.0)
    place.taken = False
    (granted,) = desk.grant(30.0)
    assert granted.ask.id == "other"  # it has aged beyond the higher one
    low.deadline_s = 20.0
    assert isinstance(desk.again(turn, 30.0), Queued)
    assert low.deadline_s == 49.0  # the 29 s for which it ran do not count as waiting
    assert desk.queue.position("low") == 1


def test_each_worker_keeps_its_part_of_a_tenants_bound_whatever_waits_elsewhere() -> None:
    queue = FairQueue(orders("weighted-fair", shared=True), Bounds(100, 4))
    queue.workers, queue.elsewhere, queue.elsewhere_by_tenant = 2, 4, {"t": 4}
    answers = [queue.offer(ask(f"t{n}", tenant="t"), 1.0) for n in range(3)]
    assert [type(answer) for answer in answers] == [Queued, Queued, Shed]
    assert isinstance(answers[2], Shed)
    assert answers[2].reason is ShedReason.TENANT_FULL
