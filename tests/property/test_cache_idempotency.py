"""Idempotency keys against a naive model, in memory, and in Redis with two workers: any order of any events."""

import asyncio
import secrets
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from crosslogic.cache.idempotency.memory import MemorySlots
from crosslogic.cache.idempotency.ports import SlotKey, Slots
from crosslogic.cache.idempotency.redis import RedisSlots
from crosslogic.cache.idempotency.slot import CONFLICT, JOIN, RUN, SPENT, Decision, Replay, Run
from crosslogic.kernel.clock import ManualClock
from crosslogic.net.redis import RedisConnection
from tests.cache_samples import ORG, OTHER_ORG, recording

KEYS = (SlotKey(ORG, b"a" * 32), SlotKey(OTHER_ORG, b"a" * 32))
LEASE_S, TTL_S = 10.0, 100.0
# few of everything, so that events meet
BODIES = (b"x" * 32, b"y" * 32)
keys, bodies, workers = st.sampled_from(KEYS), st.sampled_from(BODIES), st.integers(0, 1)


class Request:
    """One request of the model: a holder, and what it was told."""

    def __init__(self, key: SlotKey, body: bytes, worker: int, number: int) -> None:
        self.key, self.body, self.worker = key, body, worker
        self.holder = f"holder-{number}"
        self.answer = recording(b"answer of %d" % number)


class Model:
    """The promise, written as a story: who runs on each key, and what was answered last."""

    def __init__(self) -> None:
        self.running: dict[SlotKey, Request] = {}
        self.done: dict[SlotKey, tuple[Request, bool]] = {}  # and whether the answer was kept

    def expected(self, key: SlotKey, body: bytes) -> Decision:
        if key in self.done:
            request, kept = self.done[key]
            if request.body != body:
                return CONFLICT
            return Replay(request.answer) if kept else SPENT
        if key in self.running:
            return JOIN if self.running[key].body == body else CONFLICT
        return RUN


class Machine(RuleBasedStateMachine):
    """Rules for one worker's slots; the adapters follow below."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.number = self.lapsed_at = 0
        self.alive: list[Request] = []  # those that were told to run and have not ended
        self.start()

    def start(self) -> None:
        self.clock = ManualClock()
        self._slots: list[Slots] = [MemorySlots(self.clock, lease_s=LEASE_S, ttl_s=TTL_S)]

    def now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine that never waits."""
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("slots in memory waited")

    def lapse(self, key: SlotKey) -> None:
        self.clock.advance(TTL_S)

    def slots(self, worker: int) -> Slots:
        return self._slots[worker % len(self._slots)]

    @rule(key=keys, body=bodies, worker=workers)
    def begin(self, key: SlotKey, body: bytes, worker: int) -> None:
        self.number += 1
        request = Request(key, body, worker, self.number)
        decision = self.now(self.slots(worker).begin(key, body, request.holder))
        assert decision == self.model.expected(key, body)
        if isinstance(decision, Run):
            self.model.running[key] = request
            self.alive.append(request)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), kept=st.booleans())
    def complete(self, data: st.DataObject, kept: bool) -> None:
        request = self.alive.pop(data.draw(st.integers(0, len(self.alive) - 1)))
        answer = request.answer if kept else None
        assert self.now(self.slots(request.worker).complete(request.key, request.body, request.holder, answer))
        holder = self.model.running.get(request.key)
        if request.key not in self.model.done and holder in (None, request):
            self.model.running.pop(request.key, None)
            self.model.done[request.key] = (request, kept)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        request = self.alive.pop(data.draw(st.integers(0, len(self.alive) - 1)))
        self.slots(request.worker).release(request.key, request.holder)
        self.now(self.slots(request.worker).renew(request.key, request.holder))  # which now means nothing
        if self.model.running.get(request.key) is request:
            del self.model.running[request.key]

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.alive))
        self.now(self.slots(request.worker).renew(request.key, request.holder))

    @precondition(lambda self: self.number > self.lapsed_at + 1)  # something must have happened in between
    @rule()
    def time_is_over(self) -> None:
        """The leases of runs whose holders do not renew, and the memory of answers."""
        self.lapsed_at = self.number
        for key in KEYS:
            self.lapse(key)
        self.model.running.clear()
        self.model.done.clear()

    @invariant()
    def every_worker_tells_the_same(self) -> None:
        for key in KEYS:
            for body in BODIES:
                expected = self.model.expected(key, body)
                for worker, slots in enumerate(self._slots if expected != RUN else ()):
                    assert self.now(slots.begin(key, body, f"onlooker-{worker}")) == expected


class RedisMachine(Machine):
    """Two workers on one Redis. What the workers keep in front of it must never contradict it."""

    url = ""

    def start(self) -> None:
        self.clock = ManualClock()
        self.prefix = f"test:{secrets.token_hex(6)}:"
        self.loop = asyncio.new_event_loop()
        self._slots = []
        self.loop.run_until_complete(self._connect())

    async def _connect(self) -> None:
        self.connections = [await RedisConnection.connect(self.url) for _ in range(2)]
        for connection in self.connections:
            slots = RedisSlots(connection, self.clock, prefix=self.prefix, wait_s=10.0, lease_s=LEASE_S, ttl_s=TTL_S)
            self._slots.append(slots)

    def now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def settled() -> Any:
            answer = await coroutine
            for connection in self.connections:  # what was only told has arrived once a later command is answered
                await connection.execute("PING")
            return answer

        return self.loop.run_until_complete(settled())

    def lapse(self, key: SlotKey) -> None:
        async def end() -> None:
            await self.connections[0].execute("PEXPIRE", f"{self.prefix}{{{key.org_id}}}:{key.digest.hex()}", 0)

        self.clock.advance(TTL_S)
        self.loop.run_until_complete(end())

    def teardown(self) -> None:
        async def close() -> None:
            left = await self.connections[0].execute("KEYS", f"{self.prefix}*")
            await self.connections[0].execute("DEL", *left, f"{self.prefix}none")
            for connection in self.connections:
                await connection.close()

        self.loop.run_until_complete(close())
        self.loop.close()


def test_slots_in_memory_keep_the_promise() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))


def test_slots_of_two_workers_on_redis_keep_the_promise(redis_url: str) -> None:
    RedisMachine.url = redis_url
    run_state_machine_as_test(
        RedisMachine,
        settings=settings(
            max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
