"""Slots against a naive model, in memory and as leases of two workers in Redis: any order of any events."""

import asyncio
import secrets
from collections.abc import Coroutine
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import Admitted, Demand, Dimension, Layer, Limits, Rejected, Scope
from crosslogic.limits.ports import Limiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection
from tests.contract.limits_rig import eventually

ORG = Scope(Layer.ORG, "o", Limits(concurrency=4))
KEYS = tuple(Scope(Layer.KEY, name, Limits(concurrency=slots)) for name, slots in (("a", 2), ("b", 3)))
WORKERS = 2
T = TypeVar("T")
Running = tuple[int, int, Admitted]  # key, worker, reservation


class Machine(RuleBasedStateMachine):
    """What runs is a list; a request passes exactly when each of its scopes has fewer running than slots."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.running: list[Running] = []
        self.limiters: list[Limiter] = []

    @initialize()
    def start(self) -> None:
        self.limiters = [MemoryLimiter(ManualClock())]

    def run(self, coroutine: Coroutine[None, None, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    async def told(self) -> None:
        """What was given back is known everywhere: here, nothing has to travel."""

    @rule(key=st.integers(0, 1), worker=st.integers(0, WORKERS - 1))
    def admit(self, key: int, worker: int) -> None:
        worker %= len(self.limiters)
        of_key = sum(one[0] == key for one in self.running)
        room = len(self.running) < 4 and of_key < (KEYS[key].limits.concurrency or 0)
        answer = self.run(self.limiters[worker].admit((ORG, KEYS[key]), Demand(5, 5)))
        assert isinstance(answer, Admitted) is room
        if isinstance(answer, Rejected):
            assert answer.dimension is Dimension.CONCURRENCY
        else:
            self.running.append((key, worker, answer))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9), ran=st.booleans(), twice=st.booleans())
    def end(self, which: int, ran: bool, twice: bool) -> None:
        _, worker, answer = self.running.pop(which % len(self.running))
        for _ in range(1 + twice):
            if ran:
                self.limiters[worker].settle(answer, Demand(5, 2))
            else:
                self.limiters[worker].release(answer)
        self.run(self.told())

    @rule(worker=st.integers(0, WORKERS - 1))
    def look(self, worker: int) -> None:
        self.run(self.limiters[worker % len(self.limiters)].look((ORG, *KEYS)))

    def teardown(self) -> None:
        self.loop.close()


class RedisMachine(Machine):
    url = ""

    @initialize()
    def start(self) -> None:
        self.prefix = f"{{limits-leases-{secrets.token_hex(6)}}}"
        self.connections: list[RedisConnection] = []
        for _ in range(WORKERS):
            self.run(self.comes())

    async def comes(self) -> None:
        self.connections.append(await RedisConnection.connect(self.url))
        limiter = RedisLimiter(self.connections[-1], SystemClock(), prefix=self.prefix, wait_s=20.0, dead_after_s=60.0)
        self.limiters.append(limiter)

    async def told(self) -> None:
        for limiter in self.limiters:
            assert isinstance(limiter, RedisLimiter)
            await eventually(lambda limiter=limiter: not limiter.undelivered, 20.0)

    @rule(worker=st.integers(0, WORKERS - 1))
    def leaves(self, worker: int) -> None:
        """A worker ends in the midst of its requests, and another takes its place: its slots are free at once."""

        async def change() -> None:
            await self.limiters[worker].close()
            await self.connections[worker].close()
            await self.comes()
            self.limiters[worker], self.connections[worker] = self.limiters.pop(), self.connections.pop()

        self.run(change())
        self.running = [one for one in self.running if one[1] != worker]

    @rule()
    def scripts_are_dropped(self) -> None:
        self.run(self.connections[0].execute("SCRIPT", "FLUSH"))

    def teardown(self) -> None:
        async def close() -> None:
            for limiter, connection in zip(self.limiters, self.connections, strict=True):
                assert isinstance(limiter, RedisLimiter)
                assert limiter.decided_alone == 0
                await limiter.close()
                await connection.close()

        if self.limiters:
            self.run(close())
        super().teardown()


def test_slots_in_memory_are_given_exactly() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))


def test_leases_of_two_workers_on_redis_are_given_exactly(redis_url: str) -> None:
    RedisMachine.url = redis_url
    run_state_machine_as_test(
        RedisMachine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
