"""MemoryLimiter against a naive model: a log of every event, from which each promise is computed afresh."""

from collections.abc import Coroutine
from fractions import Fraction

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from crosslogic.kernel.clock import ManualClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import RATES, Admitted, Dimension, Layer, Limits, Rejected, Scope, Unit

ORG = Limits(requests_per_minute=12, tokens_per_minute=1000, concurrency=4, tokens_per_second=400, burst_share=1.0)
KEY = Limits(requests_per_minute=7, tokens_per_minute=600, concurrency=3, burst_share=0.5)
OTHER = Limits(requests_per_second=3, tokens_per_hour=2500)
SLACK = 1e-3  # units: what rounding to a microsecond may decide either way


def now(coroutine: Coroutine[None, None, Admitted | Rejected]) -> Admitted | Rejected:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        answer: Admitted | Rejected = done.value
        return answer
    raise AssertionError("the memory limiter waited")


class Log:
    """Units taken (positive) and given back (negative) from one scope, with their times."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.events: dict[Unit, list[tuple[float, int]]] = {Unit.REQUESTS: [], Unit.TOKENS: []}
        self.running = 0
        self.overdrawn = False  # somebody used more than reserved: that is charged, and cannot be prevented

    def level(self, place: int, now_s: float) -> Fraction:
        """The bucket's content by definition: start full, take, give back, refill, never above full."""
        rate = RATES[place]
        limit = self.limits.ceiling(rate.dimension)
        assert limit is not None
        full = max(Fraction(1), Fraction(limit) * Fraction(self.limits.burst_share))
        level, at_s = full, 0.0
        for event_s, units in [*self.events[rate.unit], (now_s, 0)]:
            refill = Fraction(event_s - at_s) * limit / Fraction(rate.period_s)
            level = min(full, min(full, level + refill) - units)
            at_s = event_s
        return level

    def worst_excess(self, place: int) -> float:
        """Over all windows between two events: taken minus given back, minus what the promise allows."""
        rate = RATES[place]
        limit = self.limits.ceiling(rate.dimension)
        assert limit is not None
        burst = max(1.0, limit * self.limits.burst_share)
        events = self.events[rate.unit]
        worst = 0.0
        for first in range(len(events)):
            total = 0
            for at_s, units in events[first:]:
                total += units
                allowed = burst + limit * (at_s - events[first][0]) / rate.period_s
                worst = max(worst, total - allowed)
        return worst


class LimiterMachine(RuleBasedStateMachine):
    """Admit, use less or all, release, wait: the limiter and the log must agree on every answer."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.limiter = MemoryLimiter(self.clock)
        org, env = Scope(Layer.ORG, "o", ORG), Scope(Layer.ENV, "e", OTHER)
        self.callers = (
            (org, env, Scope(Layer.KEY, "a", KEY)),
            (org, Scope(Layer.KEY, "b", KEY)),
            (env,),
        )
        self.logs = {scope.id: Log(scope.limits) for scopes in self.callers for scope in scopes}

    def refusals(self, scopes: tuple[Scope, ...], tokens: int, slack: float) -> set[tuple[Layer, Dimension]]:
        now_s = self.clock.monotonic_s()
        found = set()
        for scope in scopes:
            log = self.logs[scope.id]
            for place, rate in enumerate(RATES):
                units = 1 if rate.unit is Unit.REQUESTS else tokens
                limited = scope.limits.ceiling(rate.dimension) is not None
                if limited and log.level(place, now_s) < units + Fraction(slack):
                    found.add((scope.layer, rate.dimension))
            if scope.limits.concurrency is not None and log.running >= scope.limits.concurrency:
                found.add((scope.layer, Dimension.CONCURRENCY))
        return found

    def take(self, scopes: tuple[Scope, ...], requests: int, tokens: int, running: int) -> None:
        for scope in scopes:
            log = self.logs[scope.id]
            log.events[Unit.REQUESTS].append((self.clock.monotonic_s(), requests))
            log.events[Unit.TOKENS].append((self.clock.monotonic_s(), tokens))
            log.running += running

    @rule(target=running, caller=st.integers(0, 2), tokens=st.integers(0, 450))
    def admit(self, caller: int, tokens: int) -> tuple[Admitted, int]:
        scopes = self.callers[caller]
        certain = self.refusals(scopes, tokens, -SLACK)
        possible = self.refusals(scopes, tokens, 1e-6)
        answer = now(self.limiter.admit(scopes, tokens))
        if isinstance(answer, Rejected):
            assert (answer.layer, answer.dimension) in possible
            self.check_wait(scopes, tokens, answer)
            return Admitted((), 0, None, None), caller
        assert not certain
        self.take(scopes, 1, tokens, 1)
        return answer, caller

    def check_wait(self, scopes: tuple[Scope, ...], tokens: int, answer: Rejected) -> None:
        """Had everybody else stopped, the caller would pass after just that wait, and not much before."""
        if answer.too_large or answer.dimension is Dimension.CONCURRENCY:
            return
        later_s = self.clock.monotonic_s() + answer.retry_after_s
        for scope in scopes:
            for place, rate in enumerate(RATES):
                if scope.limits.ceiling(rate.dimension) is None:
                    continue
                units = 1 if rate.unit is Unit.REQUESTS else tokens
                assert self.logs[scope.id].level(place, later_s) >= units - Fraction(SLACK)
                if (scope.layer, rate.dimension) == (answer.layer, answer.dimension):
                    just_before_s = later_s - min(answer.retry_after_s, 0.01)
                    assert self.logs[scope.id].level(place, just_before_s) < units

    @rule(taken=consumes(running), share=st.sampled_from([0.0, 0.3, 0.9, 1.0, 1.0, 1.5]))
    def settle(self, taken: tuple[Admitted, int], share: float) -> None:
        answer, _ = taken
        used = int(answer.tokens_reserved * share)
        self.limiter.settle(answer, used)
        self.limiter.settle(answer, used)  # a second time changes nothing
        self.take(answer.scopes, 0, used - answer.tokens_reserved, -1)
        if used > answer.tokens_reserved:
            for scope in answer.scopes:
                self.logs[scope.id].overdrawn = True

    @rule(taken=consumes(running))
    def release(self, taken: tuple[Admitted, int]) -> None:
        answer, _ = taken
        self.limiter.release(answer)
        self.limiter.settle(answer, 10**6)
        self.take(answer.scopes, -1, -answer.tokens_reserved, -1)

    @rule(seconds=st.floats(0.001, 45.0))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def no_window_holds_more_than_burst_and_refill(self) -> None:
        for log in self.logs.values():
            for place, rate in enumerate(RATES):
                limited = log.limits.ceiling(rate.dimension) is not None
                if limited and not (log.overdrawn and rate.unit is Unit.TOKENS):
                    assert log.worst_excess(place) <= SLACK

    @invariant()
    def concurrency_is_never_exceeded(self) -> None:
        for log in self.logs.values():
            assert log.running >= 0
            assert log.limits.concurrency is None or log.running <= log.limits.concurrency


LimiterMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLimiter = LimiterMachine.TestCase
