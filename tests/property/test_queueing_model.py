"""FairQueue against a naive model: a list of those waiting, from which each answer is computed afresh."""

from collections.abc import Callable

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.model import Bounds, Queued, Shed, ShedReason, TrafficClass, Turn, TurnAsk, cost_of
from crosslogic.queueing.orders import AGEING_S
from crosslogic.queueing.policies import orders

LINES = ("m", "n")
TENANTS = ("a", "b", "c")
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 4.0}  # powers of two and whole costs: exact in floating point
BOUNDS = Bounds(waiting=8, waiting_per_tenant=4)
RESERVED = TrafficClass.RESERVED


class Fair:
    """Virtual token counters of one lane by their definition. Requests use what they declare: no ratio to learn."""

    def __init__(self) -> None:
        self.counters: dict[str, float] = {}
        self.present = 0.0

    def comes(self, tenant: str, waiting: list[TurnAsk]) -> None:
        if any(ask.tenant == tenant for ask in waiting):
            return
        floor = min((self.counters[ask.tenant] for ask in waiting), default=self.present)
        self.counters[tenant] = max(self.counters.get(tenant, floor), floor)

    def starts(self, ask: TurnAsk) -> None:
        self.present = max(self.present, self.counters[ask.tenant])
        self.counters[ask.tenant] += ask.cost / ask.weight


class QueueMachine(RuleBasedStateMachine):
    """Offer, start, end, leave, wait: the queue and the list must agree on every answer."""

    order = "fifo"

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(orders(self.order), BOUNDS)
        self.now_s = 100.0
        self.waiting: list[TurnAsk] = []  # in the order of their coming, what was interrupted first
        self.running: list[Turn] = []
        self.fair = {(line, reserved): Fair() for line in LINES for reserved in (False, True)}
        self.number = 0
        self.interrupted: set[str] = set()

    def lane(self, line: str, reserved: bool) -> list[TurnAsk]:
        return [a for a in self.waiting if a.line == line and (a.traffic is RESERVED) == reserved]

    def fair_of(self, ask: TurnAsk) -> Fair:
        return self.fair[(ask.line, ask.traffic is RESERVED)]

    def expected_next(self, line: str) -> TurnAsk | None:
        for reserved in (True, False):
            lane = self.lane(line, reserved)
            if lane:
                return min(lane, key=self.key(line, reserved))
        return None

    def key(self, line: str, reserved: bool) -> Callable[[TurnAsk], tuple[object, ...]]:
        if self.order == "fifo":
            return lambda ask: (ask.sequence,)
        if self.order == "priority":
            return lambda ask: ((ask.enqueued_s or 0) - AGEING_S * ask.priority, ask.sequence)
        counters = self.fair[(line, reserved)].counters
        return lambda ask: (counters[ask.tenant], ask.tenant, ask.sequence)

    @rule(
        line=st.sampled_from(LINES),
        tenant=st.sampled_from(TENANTS),
        traffic=st.sampled_from(list(TrafficClass)),
        priority=st.integers(1, 3),
        tokens=st.integers(1, 64),
        patience_s=st.sampled_from([0.0, 1.0, 7.0, 1000.0, 1000.0]),
        max_waiting=st.sampled_from([None, None, 0, 2, 100]),
    )
    def offer(
        self,
        line: str,
        tenant: str,
        traffic: TrafficClass,
        priority: int,
        tokens: int,
        patience_s: float,
        max_waiting: int | None,
    ) -> None:
        self.number += 1
        ask = TurnAsk(
            f"r{self.number}",
            line,
            tenant,
            self.now_s + patience_s,
            output_tokens=tokens,
            weight=WEIGHTS[tenant],
            priority=priority,
            traffic=traffic,
            max_waiting=max_waiting,
        )
        self.admit(ask, patience_s)

    def admit(self, ask: TurnAsk, patience_s: float) -> None:
        own = sum(other.tenant == ask.tenant for other in self.waiting)
        most = BOUNDS.waiting_per_tenant if ask.max_waiting is None else ask.max_waiting
        victim = None
        refusal = None
        if patience_s <= 0.0:
            refusal = ShedReason.DEADLINE
        elif own >= most:
            refusal = ShedReason.TENANT_FULL
        elif len(self.waiting) >= BOUNDS.waiting:
            victim = self.expected_victim(ask)
            refusal = ShedReason.QUEUE_FULL if victim is None else None
        self.check(ask, self.queue.offer(ask, self.now_s), refusal, victim)

    def expected_victim(self, ask: TurnAsk) -> TurnAsk | None:
        """Of the lowest class the last request of the tenant that has the most there for its weight."""
        own = (ask.traffic, ask.priority)
        below = [a for a in self.waiting if a.traffic is not RESERVED and (a.traffic, a.priority) <= own]
        lowest = min(((a.traffic, a.priority) for a in below), default=None)
        peers = [a for a in below if (a.traffic, a.priority) == lowest]
        of = {tenant: [a for a in peers if a.tenant == tenant] for tenant in TENANTS}
        victim = max(peers, key=lambda a: (len(of[a.tenant]) / a.weight, of[a.tenant][-1].sequence), default=None)
        if victim is None:
            return None
        longest = of[victim.tenant]
        equal = len(longest) / victim.weight <= (len(of[ask.tenant]) + 1) / ask.weight
        return None if lowest == own and equal else longest[-1]

    def check(
        self, ask: TurnAsk, answer: Queued | Shed, refusal: ShedReason | None = None, victim: TurnAsk | None = None
    ) -> None:
        if isinstance(answer, Shed):
            assert 1.0 <= answer.retry_after_s <= 60.0
            if refusal is None:  # only the estimate, which the model has none of, may refuse more
                assert answer.reason is ShedReason.DEADLINE
                assert self.running
                assert ask.id not in self.queue
                self.fair_of(ask).comes(ask.tenant, self.lane(ask.line, ask.traffic is RESERVED))
                return
            assert answer.reason is refusal
            return
        assert refusal is None
        assert answer.displaced is victim
        self.fair_of(ask).comes(ask.tenant, self.lane(ask.line, ask.traffic is RESERVED))
        if ask.id in self.interrupted:
            self.waiting.insert(0, ask)
        else:
            self.waiting.append(ask)
        if victim is not None:
            self.waiting.remove(victim)

    @rule(line=st.sampled_from(LINES))
    def start_next(self, line: str) -> None:
        self.expire()
        expected = self.expected_next(line)
        answer = self.queue.next(line, self.now_s)
        assert answer is expected
        if answer is None:
            return
        if self.order != "weighted-fair":
            assert self.queue.position(answer.id) == 1
        self.running.append(self.queue.start(answer, self.now_s))
        self.waiting.remove(answer)
        self.fair_of(answer).starts(answer)

    @rule(line=st.sampled_from(LINES), tenant=st.sampled_from(TENANTS), tokens=st.integers(1, 64))
    def start_at_once(self, line: str, tenant: str, tokens: int) -> None:
        """As the desk does, where nobody waits."""
        if self.lane(line, False) or self.lane(line, True):
            return
        self.number += 1
        ask = TurnAsk(f"r{self.number}", line, tenant, 1e9, output_tokens=tokens, weight=WEIGHTS[tenant])
        self.fair_of(ask).comes(tenant, [])
        self.fair_of(ask).starts(ask)
        self.running.append(self.queue.start(ask, self.now_s))

    @rule(which=st.integers(0, 50), ran=st.booleans())
    def end(self, which: int, ran: bool) -> None:
        if not self.running:
            return
        turn = self.running.pop(which % len(self.running))
        self.queue.end(turn, cost_of(0, turn.ask.output_tokens) if ran else 0.0, self.now_s)
        if not ran:
            self.fair_of(turn.ask).counters[turn.ask.tenant] -= turn.ask.cost / turn.ask.weight

    @rule(which=st.integers(0, 50))
    def put_back(self, which: int) -> None:
        """What was preempted asks again, with its old place."""
        candidates = [turn for turn in self.running if turn.ask.sequence]
        if not candidates:
            return
        turn = candidates[which % len(candidates)]
        self.running.remove(turn)
        self.queue.end(turn, 0.0, self.now_s)
        self.fair_of(turn.ask).counters[turn.ask.tenant] -= turn.ask.cost / turn.ask.weight
        self.interrupted.add(turn.ask.id)
        late = turn.ask.deadline_s <= self.now_s
        self.check(turn.ask, self.queue.take_back(turn.ask, self.now_s), ShedReason.DEADLINE if late else None)

    @rule(which=st.integers(0, 50))
    def leave(self, which: int) -> None:
        if not self.waiting:
            assert self.queue.remove("r0") is None
            return
        ask = self.waiting.pop(which % len(self.waiting))
        assert self.queue.remove(ask.id) is ask
        assert self.queue.remove(ask.id) is None

    @rule()
    def expire(self) -> None:
        late = {ask.id for ask in self.waiting if ask.deadline_s <= self.now_s}
        assert {ask.id for ask in self.queue.expire(self.now_s)} == late
        self.waiting = [ask for ask in self.waiting if ask.id not in late]

    @rule(seconds=st.sampled_from([0.0, 0.5, 2.0, 8.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def it_holds_exactly_those_that_wait(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert len(self.waiting) <= BOUNDS.waiting + len([a for a in self.waiting if a.id in self.interrupted])
        assert all(ask.id in self.queue and ask.waiting for ask in self.waiting)
        counts = self.queue.waiting_by_tenant()
        for tenant in TENANTS:
            assert counts.get(tenant, 0) == sum(ask.tenant == tenant for ask in self.waiting)
        assert self.queue.next_deadline_s == min((ask.deadline_s for ask in self.waiting), default=None)

    @invariant()
    def positions_count_the_turns_before(self) -> None:
        for line in LINES:
            ahead = 0
            for reserved in (True, False):
                lane = self.lane(line, reserved)
                found = sorted(self.queue.position(ask.id) or 0 for ask in lane)
                assert found == list(range(ahead + 1, ahead + 1 + len(lane)))
                if self.order != "weighted-fair":
                    ranked = sorted(lane, key=self.key(line, reserved))
                    assert [self.queue.position(ask.id) for ask in ranked] == found
                ahead += len(lane)

    @invariant()
    def standings_are_whole(self) -> None:
        for ask in self.waiting:
            standing = self.queue.standing(ask.id, self.now_s)
            assert standing is not None
            assert standing.waited_s == self.now_s - (ask.enqueued_s or 0.0)
            assert standing.estimated_wait_s is None or standing.estimated_wait_s >= 0.0
            assert msgspec.json.encode(standing)


class PriorityMachine(QueueMachine):
    order = "priority"


class FairMachine(QueueMachine):
    order = "weighted-fair"


_SETTINGS = settings(max_examples=80, stateful_step_count=40, deadline=None)
for _machine in (QueueMachine, PriorityMachine, FairMachine):
    _machine.TestCase.settings = _SETTINGS
TestFifo = QueueMachine.TestCase
TestPriority = PriorityMachine.TestCase
TestWeightedFair = FairMachine.TestCase
