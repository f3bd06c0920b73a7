"""One lane with an order for each policy, against a list from which every answer is computed afresh."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from crosslogic.queueing.model import Turn, TurnAsk
from crosslogic.queueing.orders import AGEING_S
from crosslogic.queueing.policies import POLICIES, ByPolicy
from crosslogic.queueing.weighted_fair import WeightedFair

TENANTS = ("a", "b", "c")


class LaneMachine(RuleBasedStateMachine):
    """Turns fall to policies as if all waited in one order of priority with ageing."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = ByPolicy()
        self.waiting: list[TurnAsk] = []
        self.claims: dict[str, list[tuple[float, int]]] = {name: [] for name in POLICIES}  # of each policy, as dealt
        self.given: dict[str, tuple[float, int]] = {}  # what each that waits brought with it
        self.running: list[Turn] = []
        self.now_s = 100.0
        self.number = 0

    @rule(
        policy=st.sampled_from(POLICIES),
        tenant=st.sampled_from(TENANTS),
        priority=st.integers(0, 3),
        tokens=st.integers(1, 64),
    )
    def wait(self, policy: str, tenant: str, priority: int, tokens: int) -> None:
        self.number += 1
        name = f"r{self.number}"
        ask = TurnAsk(name, "m", tenant, 1e9, output_tokens=tokens, priority=priority, policy=policy)
        ask.sequence, ask.enqueued_s, ask.waiting = self.number, self.now_s, True
        self.lane.add(ask)
        self.waiting.append(ask)
        self.given[name] = (self.now_s - AGEING_S * priority, self.number)
        self.claims[policy].append(self.given[name])

    @rule()
    def start(self) -> None:
        first = self.lane.first()
        assert (first is None) == (not self.waiting)
        if first is None:
            return
        least = min(claim for claims in self.claims.values() for claim in claims)
        assert least in self.claims[first.policy], "the turn falls to another policy"
        assert first is self.expected_of(first.policy)
        if first.policy != "weighted-fair":  # there a position is a forecast
            assert self.lane.position(first) == 1
        # The claim is used up; whoever had brought it waits with the claim of the one that starts.
        self.claims[first.policy].remove(least)
        owner = next(name for name, claim in self.given.items() if claim == least)
        self.given[owner] = self.given[first.id]
        self.leaves(first)
        turn = Turn(first, self.now_s, self.lane.charge(first, self.now_s))
        self.lane.remove(first)
        first.waiting = False
        self.running.append(turn)

    def expected_of(self, policy: str) -> TurnAsk:
        own = [ask for ask in self.waiting if ask.policy == policy]
        if policy == "fifo":
            return min(own, key=lambda ask: ask.sequence)
        if policy == "weighted-fair":
            (fair,) = self.lane.fair()
            assert isinstance(fair, WeightedFair)
            return min(own, key=lambda ask: (fair.counters.value(ask.tenant), ask.tenant, ask.sequence))
        return min(own, key=lambda ask: ((ask.enqueued_s or 0.0) - AGEING_S * ask.priority, ask.sequence))

    def leaves(self, ask: TurnAsk) -> None:
        self.waiting.remove(ask)
        del self.given[ask.id]

    @rule(which=st.integers(0, 50))
    def leave(self, which: int) -> None:
        if self.waiting:
            ask = self.waiting[which % len(self.waiting)]
            self.claims[ask.policy].remove(self.given[ask.id])
            self.leaves(ask)
            self.lane.remove(ask)

    @rule(which=st.integers(0, 50), used=st.integers(0, 64))
    def end(self, which: int, used: int) -> None:
        if self.running:
            self.lane.settle(self.running.pop(which % len(self.running)), 2.0 * used)

    @rule(which=st.integers(0, 50))
    def put_back(self, which: int) -> None:
        """What was interrupted waits again, as long as before."""
        if not self.running:
            return
        turn = self.running.pop(which % len(self.running))
        ask = turn.ask
        self.lane.settle(turn, 0.0)
        self.number += 1
        ask.waiting = True
        self.lane.add(ask)
        self.waiting.insert(0, ask)
        self.given[ask.id] = ((ask.enqueued_s or 0.0) - AGEING_S * ask.priority, self.number)
        self.claims[ask.policy].append(self.given[ask.id])

    @rule(seconds=st.sampled_from([0.0, 0.5, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def every_position_is_somebodys(self) -> None:
        assert len(self.lane) == len(self.waiting)
        assert sorted(self.lane.position(ask) for ask in self.waiting) == list(range(1, len(self.waiting) + 1))

    @invariant()
    def waits_follow_positions(self) -> None:
        for ask in self.waiting:
            assert self.lane.wait_s(ask, 2.0) >= self.lane.position(ask) / 2.0


LaneMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestLane = LaneMachine.TestCase
