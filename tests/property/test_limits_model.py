"""MemoryLimiter against a naive model: a log of every event, from which each promise is computed afresh."""

from collections.abc import Coroutine
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, invariant, multiple, rule

from crosslogic.kernel.clock import ManualClock
from crosslogic.limits.budget import month_at
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import (
    RATES,
    Admitted,
    Demand,
    Dimension,
    Layer,
    Limits,
    Rejected,
    Scope,
    Unit,
)
from tests.examples import examples

ORG = Limits(
    requests_per_minute=12,
    tokens_per_minute=1000,
    concurrency=4,
    tokens_per_second=400,
    input_tokens_per_minute=900,
    spend_per_month_pusd=40_000_000,
)
KEY = Limits(requests_per_minute=7, tokens_per_minute=600, concurrency=3, burst_share=0.5)
ENV = Limits(
    requests_per_second=3,
    tokens_per_hour=2500,
    output_tokens_per_minute=800,
    output_tokens_per_second=300,
    input_tokens_per_hour=2400,
    spend_per_hour_pusd=9_000_000,
)
WATCHED = Limits(
    requests_per_minute=4, tokens_per_minute=300, concurrency=2, spend_per_month_pusd=9_000_000, shadow=True
)
WORLD = Limits(requests_per_minute=9, tokens_per_minute=900, concurrency=6)
PROMISE = Limits(tokens_per_second=4, burst_share=10.0)
SLACK = 1e-3  # units: what rounding to a microsecond may decide either way
DEMANDS = st.builds(Demand, st.integers(0, 120), st.integers(0, 120), st.integers(0, 4_000_000))
Refusals = set[tuple[Layer, Dimension]]
Running = tuple[Admitted, tuple[Scope, ...], int]  # with the scopes that were charged, and the month


def now(coroutine: Coroutine[None, None, Admitted | Rejected]) -> Admitted | Rejected:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        answer: Admitted | Rejected = done.value
        return answer
    raise AssertionError("the memory limiter waited")


def amounts(demand: Demand, requests: int = 1) -> dict[Unit, int]:
    given, made = demand.input_tokens, demand.output_tokens
    cost_nusd = -(-demand.cost_pusd // 1000)
    return dict(zip(Unit, (requests, given + made, given, made, cost_nusd), strict=True))


class Log:
    """Units taken (positive) and given back (negative) from one scope, with their times."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.limits = scope.limits
        self.rates = [rate for rate in RATES if self.limits.units(rate) is not None]
        self.events: list[tuple[float, dict[Unit, int]]] = []
        self.running = 0
        self.money: dict[int, int] = {}  # by month: settled and held
        self.overdrawn = False  # charged with what it could not prevent

    def level(self, dimension: Dimension, now_s: float) -> Fraction:
        """The bucket's content by definition: start full, take, give back, refill, never above full."""
        rate = next(rate for rate in self.rates if rate.dimension is dimension)
        limit = self.limits.units(rate) or 0
        full = max(Fraction(1), Fraction(limit) * Fraction(self.limits.burst_share))
        level, at_s = full, 0.0
        for event_s, taken in [*self.events, (now_s, dict.fromkeys(Unit, 0))]:
            refill = Fraction(event_s - at_s) * limit / Fraction(rate.period_s)
            level = min(full, min(full, level + refill) - taken[rate.unit])
            at_s = event_s
        return level

    def refusals(self, demand: Demand, now_s: float, month: int, slack: float) -> Refusals:
        wanted = amounts(demand)
        found = {rate.dimension for rate in self.rates if self.level(rate.dimension, now_s) < wanted[rate.unit] + slack}
        if self.limits.concurrency is not None and self.running >= self.limits.concurrency:
            found.add(Dimension.CONCURRENCY)
        budget = self.limits.spend_per_month_pusd
        if budget is not None and self.money.get(month, 0) + wanted[Unit.MONEY] > budget // 1000:
            found.add(Dimension.SPEND_PER_MONTH)
        return {(self.scope.layer, dimension) for dimension in found}

    def worst_excess(self, dimension: Dimension) -> float:
        """Over all windows between two events: taken minus given back, minus what the promise allows."""
        rate = next(rate for rate in self.rates if rate.dimension is dimension)
        limit = self.limits.units(rate) or 0
        burst = max(1.0, limit * self.limits.burst_share)
        worst = 0.0
        for first in range(len(self.events)):
            total = 0
            for at_s, taken in self.events[first:]:
                total += taken[rate.unit]
                allowed = burst + limit * (at_s - self.events[first][0]) / rate.period_s
                worst = max(worst, total - allowed)
        return worst


class LimiterMachine(RuleBasedStateMachine):
    """Admit, use less or all, release, wait: the limiter and the logs must agree on every answer."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.limiter = MemoryLimiter(self.clock)
        world, org, env = Scope(Layer.GLOBAL, "w", WORLD), Scope(Layer.ORG, "o", ORG), Scope(Layer.ENV, "e", ENV)
        self.callers = (
            (org, env, Scope(Layer.KEY, "a", KEY)),
            (org, Scope(Layer.KEY, "b", KEY)),
            (env,),
            (world, Scope(Layer.ENV, "watched", WATCHED), Scope(Layer.KEY, "a", KEY)),
            (world, Scope(Layer.RESERVED, "promise", PROMISE, guarantee=True), org),
        )
        self.logs = {scope.id: Log(scope) for scopes in self.callers for scope in scopes}

    def month(self) -> int:
        return month_at(self.clock.now()).number

    def refusals(self, scopes: list[Scope], demand: Demand, slack: float) -> Refusals:
        now_s, month = self.clock.monotonic_s(), self.month()
        found = [self.logs[scope.id].refusals(demand, now_s, month, slack) for scope in scopes]
        return set().union(*found)

    def asked(self, scopes: tuple[Scope, ...], covered: bool) -> list[Scope]:
        return [scope for scope in scopes if not scope.guarantee and not (covered and scope.layer.shared)]

    def levels_of_guarantees(self, scopes: tuple[Scope, ...]) -> list[Fraction]:
        now_s = self.clock.monotonic_s()
        return [self.logs[s.id].level(Dimension.TOKENS_PER_SECOND, now_s) for s in scopes if s.guarantee]

    @rule(target=running, asks=st.lists(st.tuples(st.integers(0, 4), DEMANDS), min_size=1, max_size=5))
    def admit(self, asks: list[tuple[int, Demand]]) -> MultipleResults[Running]:
        answers = [self.admit_one(self.callers[caller], demand) for caller, demand in asks]
        return multiple(*(answer for answer in answers if answer is not None))

    def admit_one(self, scopes: tuple[Scope, ...], demand: Demand) -> Running | None:
        levels = self.levels_of_guarantees(scopes)
        answer = now(self.limiter.admit(scopes, demand))
        if isinstance(answer, Rejected):
            covered = any(level > SLACK for level in levels)
            asked = [scope for scope in self.asked(scopes, covered) if not scope.limits.shadow]
            assert (answer.layer, answer.dimension) in self.refusals(asked, demand, 1e-6)
            self.check_wait(asked, demand, answer)
            return None
        assert all(level > -SLACK for level in levels) if answer.covered else all(level < SLACK for level in levels)
        asked = self.asked(scopes, answer.covered)
        watching = [scope for scope in asked if scope.limits.shadow]
        assert not self.refusals([scope for scope in asked if not scope.limits.shadow], demand, -SLACK)
        told = set(answer.shadowed)
        assert self.refusals(watching, demand, -SLACK) <= told <= self.refusals(watching, demand, 1e-6)
        charged = tuple(
            scope
            for scope in scopes
            if not (scope.guarantee and not answer.covered)
            and not (scope.limits.shadow and scope.layer in {layer for layer, _ in told})
        )
        self.take(charged, amounts(demand), 1, self.month())
        if answer.covered:
            for scope in scopes:
                self.logs[scope.id].overdrawn |= scope.layer.shared or scope.guarantee
        return answer, charged, self.month()

    def take(self, scopes: tuple[Scope, ...], taken: dict[Unit, int], running: int, month: int) -> None:
        for scope in scopes:
            log = self.logs[scope.id]
            log.events.append((self.clock.monotonic_s(), taken))
            log.running += running
            log.money[month] = log.money.get(month, 0) + taken[Unit.MONEY]

    def check_wait(self, scopes: list[Scope], demand: Demand, answer: Rejected) -> None:
        """Had everybody else stopped, the caller would pass after just that wait, and not much before."""
        if answer.too_large or answer.dimension is Dimension.CONCURRENCY:
            return
        if answer.dimension is Dimension.SPEND_PER_MONTH:
            assert answer.retry_after_s == month_at(self.clock.now()).left_s
            return
        later_s = self.clock.monotonic_s() + answer.retry_after_s
        wanted = amounts(demand)
        for scope in scopes:
            for rate in self.logs[scope.id].rates:
                level = self.logs[scope.id].level(rate.dimension, later_s)
                assert level >= wanted[rate.unit] - Fraction(SLACK)
                if (scope.layer, rate.dimension) == (answer.layer, answer.dimension):
                    before_s = later_s - min(answer.retry_after_s, 0.01)
                    assert self.logs[scope.id].level(rate.dimension, before_s) < wanted[rate.unit]

    @rule(
        taken=consumes(running),
        share=st.sampled_from([0.0, 0.3, 0.9, 1.0, 1.0, 1.5]),
        of_money=st.sampled_from([0.0, 0.5, 1.0, 1.5]),
    )
    def settle(self, taken: Running, share: float, of_money: float) -> None:
        answer, charged, month = taken
        had = answer.reserved
        used = Demand(int(had.input_tokens * share), int(had.output_tokens * share), int(had.cost_pusd * of_money))
        self.limiter.settle(answer, used)
        self.limiter.settle(answer, used)  # a second time changes nothing
        more = amounts(used)
        self.take(charged, {unit: more[unit] - took for unit, took in amounts(had).items()}, -1, month)
        if share > 1.0 or of_money > 1.0:
            for scope in charged:
                self.logs[scope.id].overdrawn = True

    @rule(taken=consumes(running))
    def release(self, taken: Running) -> None:
        answer, charged, month = taken
        self.limiter.release(answer)
        self.limiter.settle(answer, Demand(10**6, 10**6, 10**12))
        self.take(charged, {unit: -took for unit, took in amounts(answer.reserved).items()}, -1, month)

    @rule(seconds=st.one_of(st.floats(0.001, 45.0), st.floats(0.001, 45.0), st.just(20 * 86_400.0)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def no_window_holds_more_than_burst_and_refill(self) -> None:
        """Not even a shadow's: what it would have refused is not charged to it."""
        for log in self.logs.values():
            for rate in log.rates:
                if not log.overdrawn:
                    assert log.worst_excess(rate.dimension) <= SLACK

    @invariant()
    def concurrency_and_budget_are_never_exceeded(self) -> None:
        for log in self.logs.values():
            assert log.running >= 0
            if log.overdrawn:
                continue
            assert log.limits.concurrency is None or log.running <= log.limits.concurrency
            budget = log.limits.budget_nusd
            assert budget is None or all(spent <= budget for spent in log.money.values())


LimiterMachine.TestCase.settings = settings(max_examples=examples(60), stateful_step_count=25, deadline=None)
TestLimiter = LimiterMachine.TestCase
