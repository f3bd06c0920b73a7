"""A fleet of simulated engines behind the queue, in virtual time: no clock, no event loop, the same every time."""

import heapq
import itertools
from collections.abc import Callable, Iterator
from random import Random

import msgspec

from crosslogic.queueing.desk import Desk
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.lanes import NO_LANE, Lane
from crosslogic.queueing.model import (
    OUTPUT_COST,
    PROMPT_COST,
    Bounds,
    Queued,
    Shed,
    ShedReason,
    TrafficClass,
    Turn,
    TurnAsk,
)
from crosslogic.queueing.policies import orders
from crosslogic.simulator.engine import Engine
from crosslogic.simulator.model import EngineConfig, Sequence
from crosslogic.simulator.profile import find_profile

LINE = "meta-llama/Llama-3.1-8B-Instruct"


class Tenant(msgspec.Struct):
    """Poisson arrivals of requests of exponential-ish lengths; `declared` output tokens are what it asks for."""

    name: str
    per_s: float
    prompt_tokens: int = 300
    output_tokens: int = 100
    declared_tokens: int | None = None  # max_tokens of each request; None: what it will use
    weight: float = 1.0
    priority: int = 1
    traffic: TrafficClass = TrafficClass.SERVERLESS
    patience_s: float = 60.0


class Request:
    """One request and all that became of it."""

    def __init__(self, tenant: Tenant, ask: TurnAsk, sequence: Sequence, arrived_s: float) -> None:
        self.tenant = tenant
        self.ask = ask
        self.sequence = sequence
        self.arrived_s = arrived_s
        self.started_s: float | None = None
        self.told_wait_s: float | None = None  # when it was queued
        self.shed: ShedReason | None = None
        self.shed_s: float | None = None
        self.engine: Engine | None = None

    @property
    def first_token_s(self) -> float | None:
        at_s = self.sequence.first_token_s
        return None if at_s is None else at_s - self.arrived_s


class Fleet:
    """`nodes` engines with `places` each; `run` plays the tenants for some seconds of virtual time."""

    def __init__(
        self,
        *,
        nodes: int = 2,
        places: int = 16,
        order: str = "weighted-fair",
        bounds: Bounds | None = None,
        lane: Lane = NO_LANE,
        seed: int = 0,
        batched_tokens: int = 2048,
    ) -> None:
        profile = find_profile(LINE)
        config = EngineConfig(
            max_num_seqs=256, max_num_batched_tokens=batched_tokens, kv_blocks=profile.kv_tokens // 16
        )
        self.engines = [Engine(config, profile.step_time) for _ in range(nodes)]
        self.places = places
        self.in_flight = dict.fromkeys(self.engines, 0)
        self.now_s = 0.0
        self.requests: list[Request] = []
        self.measure_from_s = 0.0
        self.desk = Desk(FairQueue(orders(order), bounds or Bounds(10_000, 10_000)), self, lane_of=lambda _: lane)
        self._rng = Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._stepping: set[Engine] = set()
        self._by_id: dict[str, Request] = {}
        self._turns: dict[Sequence, Turn] = {}
        self._served_at: list[tuple[float, str, float]] = []

    # Capacity

    def free(self, line: str) -> int:
        return sum(self.places - count for count in self.in_flight.values())

    def total(self, line: str) -> int:
        return self.places * len(self.engines)

    def run(
        self,
        tenants: list[Tenant],
        seconds: float,
        *,
        measure_from_s: float = 0.0,
        drain: bool = False,
        absent: dict[str, float] | None = None,
    ) -> None:
        """Play all arrivals of so many seconds; `drain`: and go on until all that was accepted has ended.

        `absent`: tenants that come only after so many seconds.
        """
        self.measure_from_s = measure_from_s
        for tenant in tenants:
            self._arrivals(tenant, (absent or {}).get(tenant.name, 0.0), seconds)
        while self._events and (drain or self._events[0][0] <= seconds):
            self.now_s, _, act = heapq.heappop(self._events)
            act()

    def of(self, name: str) -> list[Request]:
        """The requests of one tenant, after the warm-up."""
        return [r for r in self.requests if r.tenant.name == name and r.arrived_s >= self.measure_from_s]

    def served_between(self, from_s: float, to_s: float) -> dict[str, float]:
        """Virtual tokens of each tenant in that time."""
        found: dict[str, float] = {}
        for at_s, name, tokens in self._served_at:
            if from_s <= at_s < to_s:
                found[name] = found.get(name, 0.0) + tokens
        return found

    # inside

    def _arrivals(self, tenant: Tenant, from_s: float, seconds: float) -> None:
        def times() -> Iterator[float]:
            at_s = from_s
            while (at_s := at_s + self._rng.expovariate(tenant.per_s)) < seconds:
                yield at_s

        for at_s in times():
            self._at(at_s, lambda: self._arrive(tenant))

    def _at(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._numbers), act))

    def _arrive(self, tenant: Tenant) -> None:
        prompt = max(1, round(tenant.prompt_tokens * self._rng.uniform(0.5, 1.5)))
        output = max(1, round(tenant.output_tokens * self._rng.uniform(0.5, 1.5)))
        ask = TurnAsk(
            f"{tenant.name}-{next(self._numbers)}",
            LINE,
            tenant.name,
            self.now_s + tenant.patience_s,
            prompt,
            tenant.declared_tokens or output,
            tenant.weight,
            tenant.priority,
            tenant.traffic,
        )
        request = Request(tenant, ask, Sequence(prompt, output), self.now_s)
        self.requests.append(request)
        self._by_id[ask.id] = request
        answer = self.desk.ask(ask, self.now_s)
        if isinstance(answer, Turn):
            self._dispatch(request, answer)
        elif isinstance(answer, Shed):
            self._shed(request, answer.reason)
        else:
            self._queued(request, answer)

    def _queued(self, request: Request, answer: Queued) -> None:
        request.told_wait_s = answer.estimated_wait_s
        if answer.displaced is not None:
            self._shed(self._by_id[answer.displaced.id], ShedReason.DISPLACED)
        self._at(request.ask.deadline_s, self._expire)

    def _expire(self) -> None:
        for ask in self.desk.queue.expire(self.now_s):
            self._shed(self._by_id[ask.id], ShedReason.DEADLINE)

    def _shed(self, request: Request, reason: ShedReason) -> None:
        assert request.shed is None
        request.shed, request.shed_s = reason, self.now_s

    def _dispatch(self, request: Request, turn: Turn) -> None:
        assert request.started_s is None
        assert request.shed is None
        request.started_s = self.now_s
        engine = min(self.engines, key=lambda e: self.in_flight[e])
        request.engine = engine
        self.in_flight[engine] += 1
        self._turns[request.sequence] = turn
        request.sequence.payload = request
        assert engine.submit(request.sequence, self.now_s) is None
        if engine not in self._stepping:
            self._step(engine)

    def _step(self, engine: Engine) -> None:
        if engine.idle:
            self._stepping.discard(engine)
            return
        self._stepping.add(engine)
        result = engine.step(self.now_s)

        def ended() -> None:
            self._count(result.emitted, result.first)
            for sequence in result.finished:
                self._finish(sequence, engine)
            self._grant()
            self._step(engine)

        self._at(self.now_s + result.duration_s, ended)

    def _count(self, emitted: list[Sequence], first: list[Sequence]) -> None:
        """Virtual tokens, at the moment at which they were served."""
        tokens: dict[str, float] = {}
        for sequence in emitted:
            name = self._request(sequence).tenant.name
            tokens[name] = tokens.get(name, 0.0) + OUTPUT_COST
        for sequence in first:
            tokens[self._request(sequence).tenant.name] += PROMPT_COST * sequence.prompt_tokens
        for name, count in tokens.items():
            self._served_at.append((self.now_s, name, count))

    @property
    def served(self) -> dict[str, float]:
        """Virtual tokens of each tenant after the warm-up."""
        return self.served_between(self.measure_from_s, float("inf"))

    def _finish(self, sequence: Sequence, engine: Engine) -> None:
        self.in_flight[engine] -= 1
        assert self.desk.done(self._turns.pop(sequence), sequence.prompt_tokens, sequence.output_tokens, self.now_s)

    def _grant(self) -> None:
        self._expire()
        for turn in self.desk.grant(self.now_s):
            self.desk.claimed()
            self._dispatch(self._by_id[turn.ask.id], turn)

    def _request(self, sequence: Sequence) -> Request:
        request = sequence.payload
        assert isinstance(request, Request)
        return request


def jain(shares: list[float]) -> float:
    """Jain's fairness index: 1 when all have the same, 1/n when one has all."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
