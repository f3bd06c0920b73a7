"""Idempotency keys: one run for each, whoever repeats it and wherever; in memory, and in Redis with several workers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from crosslogic.cache.idempotency.memory import MemorySlots
from crosslogic.cache.idempotency.ports import SlotKey, Slots
from crosslogic.cache.idempotency.redis import RedisSlots
from crosslogic.cache.idempotency.service import Claim, Idempotency, Problem
from crosslogic.cache.idempotency.slot import CONFLICT, JOIN, RUN, SPENT, Decision, Replay
from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.net.redis import RedisConnection
from tests.cache_samples import ORG, OTHER_ORG, recording, stream
from tests.contract.limits_rig import eventually

KEY, OTHER_KEY = SlotKey(ORG, b"k" * 32), SlotKey(OTHER_ORG, b"k" * 32)
BODY, OTHER_BODY = b"b" * 32, b"o" * 32
PATIENT_S = 5.0
LEASE_S, TTL_S = 30.0, 300.0


class Rig:
    """Slots that several workers share. `lapse` ends the time of a slot, as if its lease or its memory were over."""

    def __init__(self, slots: list[Slots], lapse: Callable[[SlotKey], Awaitable[None]]) -> None:
        self.slots = slots
        self.lapse = lapse

    def __getitem__(self, number: int) -> Slots:
        return self.slots[number % len(self.slots)]

    @property
    def shared(self) -> bool:
        """Whether another worker is really another one."""
        return len(self.slots) > 1


@pytest_asyncio.fixture(params=["memory", "redis-1", "redis-2"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "memory":
        clock = ManualClock()

        async def advance(_: SlotKey) -> None:
            clock.advance(TTL_S)

        yield Rig([MemorySlots(clock, lease_s=LEASE_S, ttl_s=TTL_S)], advance)
        return
    url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
    clock = ManualClock()  # for the worker's own slots in front
    connections = [await RedisConnection.connect(url) for _ in range(int(request.param[-1]))]
    slots: list[Slots] = [
        RedisSlots(c, clock, prefix=prefix, wait_s=PATIENT_S, lease_s=LEASE_S, ttl_s=TTL_S) for c in connections
    ]

    async def end(key: SlotKey) -> None:
        clock.advance(TTL_S)
        await connections[0].execute("PEXPIRE", f"{prefix}{{{key.org_id}}}:{key.digest.hex()}", 0)

    yield Rig(slots, end)
    for connection in connections:
        await connection.execute("DEL", *await connection.execute("KEYS", f"{prefix}*"), f"{prefix}none")
        await connection.close()


async def released(rig: Rig, key: SlotKey, fingerprint: bytes, holder: str) -> None:
    """Wait until a release is seen."""

    async def runs() -> bool:
        return await rig[1].begin(key, fingerprint, holder) == RUN

    await eventually(runs)


async def test_first_runs_repeat_joins_then_gets_the_same_answer(rig: Rig) -> None:
    assert await rig[0].begin(KEY, BODY, "first") == RUN
    assert await rig[0].begin(KEY, BODY, "second") == JOIN
    assert await rig[1].begin(KEY, BODY, "third") == JOIN
    assert await rig[0].complete(KEY, BODY, "first", stream())
    assert await rig[0].begin(KEY, BODY, "second") == Replay(stream())
    assert await rig[1].begin(KEY, BODY, "third") == Replay(stream())


async def test_another_body_is_a_conflict_while_it_runs_and_when_it_is_done(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "first")
    assert await rig[0].begin(KEY, OTHER_BODY, "second") == CONFLICT
    assert await rig[1].begin(KEY, OTHER_BODY, "second") == CONFLICT
    await rig[0].complete(KEY, BODY, "first", recording())
    assert await rig[1].begin(KEY, OTHER_BODY, "second") == CONFLICT
    assert await rig[1].begin(KEY, BODY, "third") == Replay(recording())


async def test_the_same_key_of_another_org_is_another_key(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "first")
    await rig[0].complete(KEY, BODY, "first", recording())
    assert await rig[1].begin(OTHER_KEY, OTHER_BODY, "theirs") == RUN


async def test_of_many_at_once_exactly_one_runs(rig: Rig) -> None:
    decisions = await asyncio.gather(*(rig[n].begin(KEY, BODY, f"holder-{n}") for n in range(100)))
    assert decisions.count(RUN) == 1
    assert decisions.count(JOIN) == 99


async def test_a_released_key_runs_again_with_any_body(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "first")
    rig[0].release(KEY, "first")
    await released(rig, KEY, OTHER_BODY, "second")


async def test_asking_again_with_the_same_holder_changes_nothing(rig: Rig) -> None:
    assert await rig[1].begin(KEY, BODY, "first") == RUN
    assert await rig[0].begin(KEY, BODY, "second") == JOIN
    if rig.shared:  # the first answer was lost on the way
        assert await RedisSlots.begin(rig[0], KEY, BODY, "first") == RUN  # type: ignore[arg-type]


async def test_only_the_holder_can_release_renew_or_complete(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "first")
    rig[1].release(KEY, "stranger")
    await rig[1].renew(KEY, "stranger")
    assert await rig[1].complete(KEY, BODY, "stranger", recording(b"wrong"))
    assert await rig[0].begin(KEY, BODY, "second") == JOIN
    await rig[0].complete(KEY, BODY, "first", recording(b"right"))
    rig[0].release(KEY, "first")  # too late to take it back
    if not rig.shared:
        assert await rig[1].begin(KEY, BODY, "second") == Replay(recording(b"right"))


async def test_a_holder_that_died_is_followed_by_the_next_repeat(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "dead")
    assert await rig[1].begin(KEY, BODY, "second") == JOIN
    await rig.lapse(KEY)
    assert await rig[1].begin(KEY, OTHER_BODY, "second") == RUN  # nobody knows what became of the first
    assert await rig[0].begin(KEY, OTHER_BODY, "third") == JOIN


async def test_a_holder_given_up_for_dead_cannot_undo_its_successor(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "slow")
    await rig.lapse(KEY)
    assert await rig[1].begin(KEY, BODY, "second") == RUN
    rig[0].release(KEY, "slow")
    await rig[0].renew(KEY, "slow")
    await rig[0].complete(KEY, BODY, "slow", recording(b"late"))
    assert [await rig[number].begin(KEY, BODY, "third") for number in range(2)] == [JOIN, JOIN]
    await rig[1].complete(KEY, BODY, "second", recording(b"good"))
    assert await rig[1].begin(KEY, BODY, "third") == Replay(recording(b"good"))


async def test_a_late_answer_counts_when_nobody_has_begun_again(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "slow")
    await rig.lapse(KEY)
    await rig[0].complete(KEY, BODY, "slow", recording(b"late"))
    assert await rig[1].begin(KEY, BODY, "second") == Replay(recording(b"late"))


async def test_after_its_time_an_answer_is_forgotten_and_the_key_is_new(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "first")
    await rig[0].complete(KEY, BODY, "first", recording())
    await rig.lapse(KEY)
    assert await rig[1].begin(KEY, OTHER_BODY, "second") == RUN


async def test_an_answer_too_large_to_keep_is_still_not_run_twice(rig: Rig) -> None:
    await rig[0].begin(KEY, BODY, "first")
    await rig[0].complete(KEY, BODY, "first", None)
    assert await rig[0].begin(KEY, BODY, "second") == SPENT
    assert await rig[1].begin(KEY, BODY, "second") == SPENT
    assert await rig[1].begin(KEY, OTHER_BODY, "second") == CONFLICT


# --- bounds


async def test_memory_stays_within_its_bytes_and_slots_and_never_runs_twice_for_it() -> None:
    slots = MemorySlots(ManualClock(), most_bytes=10_000, most_slots=50)
    keys = [SlotKey(ORG, b"%032d" % number) for number in range(40)]
    for key in keys:
        await slots.begin(key, BODY, "h")
        await slots.complete(key, BODY, "h", recording(b"x" * 2000))
        assert slots.size_bytes <= 10_000
    decisions = [slots.decide(key, BODY, "again") for key in keys]
    assert decisions[:-3] == [SPENT] * 37
    assert all(isinstance(decision, Replay) for decision in decisions[-3:])
    for number in range(100):
        key = SlotKey(OTHER_ORG, b"%032d" % number)
        await slots.begin(key, BODY, "h")
        await slots.complete(key, BODY, "h", None)
    assert len(slots) == 50


async def test_memory_forgets_what_is_over_without_being_asked_for_it() -> None:
    clock = ManualClock()
    slots = MemorySlots(clock, lease_s=10.0, ttl_s=20.0)
    for number in range(20):
        key = SlotKey(ORG, b"%032d" % number)
        await slots.begin(key, BODY, "h")
        if number % 2:
            await slots.complete(key, BODY, "h", recording())
    clock.advance(25.0)
    for number in range(3):
        slots.decide(SlotKey(OTHER_ORG, b"%032d" % number), BODY, "h")
    assert len(slots) == 3
    assert slots.size_bytes == 0


async def test_an_org_over_its_bytes_in_redis_is_refused_repeats_but_never_run_twice(
    redis_url: str, redis_prefix: str
) -> None:
    connections = [await RedisConnection.connect(redis_url) for _ in range(2)]
    one, two = (
        RedisSlots(c, SystemClock(), prefix=redis_prefix, wait_s=PATIENT_S, most_org_bytes=5000, ttl_s=20.0)
        for c in connections
    )
    keys = [SlotKey(ORG, b"%032d" % number) for number in range(10)]
    for number, key in enumerate(keys):
        await one.begin(key, BODY, "h")
        await one.complete(key, BODY, "h", recording(bytes([number]) * 4000))
    seen = [await two.begin(key, BODY, "again") for key in keys]
    assert [isinstance(decision, Replay) for decision in seen] == [True] * len(keys)  # these compress well
    for key in keys:
        await one.begin(SlotKey(OTHER_ORG, key.digest), BODY, "h")
        await one.complete(SlotKey(OTHER_ORG, key.digest), BODY, "h", recording(_noise(1500)))
    seen = [await two.begin(SlotKey(OTHER_ORG, key.digest), BODY, "again") for key in keys]
    assert sum(isinstance(decision, Replay) for decision in seen) == 3
    assert seen.count(SPENT) == 7
    for connection in connections:
        await connection.execute("DEL", *await connection.execute("KEYS", f"{redis_prefix}*"), f"{redis_prefix}none")
        await connection.close()


def _noise(size: int) -> bytes:
    return bytes((number * number * 31 + number // 7) % 251 for number in range(size, 2 * size))


# --- the waiting


def always() -> bool:
    return True


@pytest_asyncio.fixture
async def workers(rig: Rig) -> AsyncIterator[list[Idempotency]]:
    """Two of them, on the same slots or on two workers' that share a Redis."""
    services = [Idempotency(rig[number], renew_s=0.02) for number in range(2)]
    yield services
    for service in services:
        await service.close()


async def test_repeats_wait_for_the_running_request_and_get_its_answer(workers: list[Idempotency]) -> None:
    first = await workers[0].claim(KEY, BODY, "first", always)
    assert isinstance(first, Claim)
    repeats = [
        asyncio.create_task(workers[number % 2].claim(KEY, BODY, f"repeat-{number}", always)) for number in range(10)
    ]
    await eventually(lambda: sum(worker.joined for worker in workers) == 10)
    assert not any(repeat.done() for repeat in repeats)
    await workers[0].finish(first, recording())
    assert await asyncio.gather(*repeats) == [Replay(recording())] * 10
    assert [worker.joined for worker in workers] == [0, 0]


async def test_when_the_running_request_fails_one_of_the_waiting_runs(workers: list[Idempotency]) -> None:
    first = await workers[0].claim(KEY, BODY, "first", always)
    assert isinstance(first, Claim)
    runs = 0

    async def request(number: int) -> Replay | Problem:
        nonlocal runs
        taken = await workers[number % 2].claim(KEY, BODY, f"repeat-{number}", always)
        if not isinstance(taken, Claim):
            return taken
        runs += 1
        await asyncio.sleep(0.02)
        await workers[number % 2].finish(taken, recording(b"second try"))
        return Replay(recording(b"second try"))

    repeats = [asyncio.create_task(request(number)) for number in range(8)]
    await eventually(lambda: sum(worker.joined for worker in workers) == 8)
    workers[0].give_up(first)
    assert await asyncio.gather(*repeats) == [Replay(recording(b"second try"))] * 8
    assert runs == 1


async def test_a_conflict_and_an_unkept_answer_are_told(workers: list[Idempotency]) -> None:
    first = await workers[0].claim(KEY, BODY, "first", always)
    assert isinstance(first, Claim)
    assert await workers[1].claim(KEY, OTHER_BODY, "second", always) is Problem.REUSED
    await workers[0].finish(first, None)
    assert await workers[1].claim(KEY, BODY, "second", always) is Problem.NOT_KEPT


async def test_who_leaves_no_longer_waits(workers: list[Idempotency]) -> None:
    await workers[0].claim(KEY, BODY, "first", always)
    here = True
    leaving = asyncio.create_task(workers[1].claim(KEY, BODY, "leaving", lambda: here))
    cancelled = asyncio.create_task(workers[0].claim(KEY, BODY, "cancelled", always))
    await eventually(lambda: sum(worker.joined for worker in workers) == 2)
    here = False
    cancelled.cancel()
    assert await leaving is Problem.IN_USE
    assert await asyncio.gather(cancelled, return_exceptions=True) != [None]
    assert [worker.joined for worker in workers] == [0, 0]
    assert workers[0]._joined == {}


async def test_waiting_is_bounded_in_number_and_time(rig: Rig) -> None:
    service = Idempotency(rig[0], most_joined=2, join_s=0.1)
    await service.claim(KEY, BODY, "first", always)
    waiting = [asyncio.create_task(service.claim(KEY, BODY, f"repeat-{n}", always)) for n in range(2)]
    await eventually(lambda: service.joined == 2)
    assert await service.claim(KEY, BODY, "one too many", always) is Problem.IN_USE
    assert await asyncio.gather(*waiting) == [Problem.IN_USE] * 2
    await service.close()


async def test_closing_gives_up_what_runs(rig: Rig) -> None:
    service = Idempotency(rig[0])
    await service.claim(KEY, BODY, "first", always)
    await service.close()
    await released(rig, KEY, BODY, "after the restart")


class Unheard(MemorySlots):
    """Slots that are taken, but whose word never comes back: Redis while the network eats its answers."""

    async def begin(self, key: SlotKey, fingerprint: bytes, holder: str) -> Decision:
        decision = self.decide(key, fingerprint, holder)
        await asyncio.sleep(60)
        return decision


async def test_who_is_cancelled_before_it_hears_that_it_runs_leaves_the_slot_free() -> None:
    slots = Unheard(ManualClock())
    service = Idempotency(slots)
    claiming = asyncio.create_task(service.claim(KEY, BODY, "first", always))
    await eventually(lambda: len(slots) == 1)
    claiming.cancel()
    await asyncio.gather(claiming, return_exceptions=True)
    assert slots.decide(KEY, BODY, "second") == RUN
    await service.close()


async def test_a_long_run_keeps_its_slot_by_renewing_it(redis_url: str, redis_prefix: str) -> None:
    connections = [await RedisConnection.connect(redis_url) for _ in range(2)]
    one, two = (
        RedisSlots(c, SystemClock(), prefix=redis_prefix, wait_s=PATIENT_S, lease_s=1.0, ttl_s=5.0) for c in connections
    )
    service = Idempotency(one, renew_s=0.1)
    claim = await service.claim(KEY, BODY, "long", always)
    assert isinstance(claim, Claim)
    await asyncio.sleep(1.6)
    assert await two.begin(KEY, BODY, "repeat") == JOIN
    await service.finish(claim, recording())
    assert await two.begin(KEY, BODY, "repeat") == Replay(recording())
    await service.close()
    for connection in connections:
        await connection.close()
