"""What every response cache keeps, in memory and in Redis; and what Redis may do to it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from crosslogic.cache.memory import MemoryCache
from crosslogic.cache.model import ENTRY_OVERHEAD_BYTES, CacheKey, Recording
from crosslogic.cache.null import NullCache
from crosslogic.cache.ports import ResponseCache
from crosslogic.cache.redis import RedisCache
from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import OrgId
from crosslogic.net.redis import RedisConnection
from tests.cache_samples import ORG, OTHER_ORG, recording, stream
from tests.contract.limits_rig import OwnRedis, eventually, own_redis

MOST_ORG_BYTES = 20_000
PATIENT_S = 5.0  # other programs on the machine must not turn a test of keeping into one of outages


class Rig:
    """Caches that share what they keep, and a way to let time pass."""

    def __init__(
        self,
        caches: list[ResponseCache],
        elapse: Callable[[float], Awaitable[None]],
        size_bytes: Callable[[OrgId], Awaitable[int]],
    ) -> None:
        self.caches = caches
        self.elapse = elapse
        self.size_bytes = size_bytes

    def __getitem__(self, number: int) -> ResponseCache:
        return self.caches[number % len(self.caches)]

    async def kept(self, key: CacheKey, made: Recording, ttl_s: float = 60.0) -> None:
        """Keep an answer, and wait until it is seen: nobody else does."""
        self[0].set(key, made, ttl_s)
        await eventually(lambda: self._has(key))

    async def _has(self, key: CacheKey) -> bool:
        return await self[1].get(key) is not None


@pytest_asyncio.fixture(params=["memory", "redis-1", "redis-2"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "memory":
        clock = ManualClock()
        cache = MemoryCache(clock, most_bytes=2 * MOST_ORG_BYTES, most_org_bytes=MOST_ORG_BYTES)

        async def advance(seconds: float) -> None:
            clock.advance(seconds)

        async def held(org: OrgId) -> int:
            shelf = cache._shelves.get(org)
            return 0 if shelf is None else shelf.size_bytes

        yield Rig([cache], advance, held)
        return
    url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
    connections = [await RedisConnection.connect(url) for _ in range(int(request.param[-1]))]
    caches: list[ResponseCache] = [
        RedisCache(c, SystemClock(), prefix=prefix, wait_s=PATIENT_S, most_org_bytes=MOST_ORG_BYTES)
        for c in connections
    ]

    async def total(org: OrgId) -> int:
        return int(await connections[0].execute("HGET", f"{prefix}{{{org}}}:sizes", "total") or 0)

    yield Rig(caches, asyncio.sleep, total)
    for org in (ORG, OTHER_ORG):
        await caches[0].clear(org)
    for cache, connection in zip(caches, connections, strict=True):
        await cache.close()
        await connection.close()


def key(name: str = "a", org: OrgId = ORG) -> CacheKey:
    return CacheKey(org, name.encode().ljust(32, b"."))


def noise(size: int, seed: int = 1) -> Recording:
    """An answer that no compression makes smaller."""
    return recording(random.Random(seed).randbytes(size))


@pytest.mark.parametrize("made", [recording(), stream(), recording(b"long text " * 1000), stream(b"", b"\xff\x00")])
async def test_an_answer_comes_back_as_it_was_and_counts_its_hits(rig: Rig, made: Recording) -> None:
    assert await rig[0].get(key()) is None
    await rig.kept(key(), made)
    found = [await rig[number].get(key()) for number in range(3)]
    assert all(hit is not None and hit.recording == made for hit in found)
    counts = [hit.hit_count for hit in found if hit is not None]
    assert counts == list(range(counts[0], counts[0] + 3))


async def test_a_long_answer_is_packed_elsewhere_and_comes_back_whole(redis_url: str, redis_prefix: str) -> None:
    connection = await RedisConnection.connect(redis_url)
    cache = RedisCache(connection, SystemClock(), prefix=redis_prefix, wait_s=PATIENT_S)
    made = stream(*(b"data: %d\n\n" % number for number in range(30_000)))
    cache.set(key(), made, 60.0)
    await cache.close()  # waits for the packing
    hit = await cache.get(key())
    assert hit is not None
    assert hit.recording == made
    cache.set(key("too long"), noise(4 * 1024 * 1024 + 1), 60.0)
    await cache.close()
    assert await cache.get(key("too long")) is None
    await cache.clear(ORG)
    await connection.close()


async def test_an_answer_tells_when_it_was_kept(redis_url: str, redis_prefix: str) -> None:
    connection = await RedisConnection.connect(redis_url)
    for cache in (
        MemoryCache(SystemClock()),
        RedisCache(connection, SystemClock(), prefix=redis_prefix, wait_s=PATIENT_S),
    ):
        before_s = time.time()
        cache.set(key(), recording(), 60.0)
        hit = await cache.get(key())
        assert hit is not None
        assert before_s - 0.001 <= hit.cached_at_s <= time.time()
        await cache.clear(ORG)
    await connection.close()


async def test_after_its_time_an_answer_is_gone(rig: Rig) -> None:
    await rig.kept(key("long"), recording(), 600.0)
    rig[0].set(key("short"), recording(), 0.05)
    await rig.elapse(0.1)
    assert await rig[1].get(key("short")) is None
    assert await rig[1].get(key("long")) is not None
    assert not await rig[0].delete(key("short"))


async def test_a_new_answer_replaces_the_old_with_its_hits_and_size(rig: Rig) -> None:
    await rig.kept(key(), noise(9000))
    for _ in range(50):
        await rig[0].get(key())
    rig[0].set(key(), recording(b"new"), 60.0)

    async def replaced() -> bool:
        hit = await rig[1].get(key())
        return hit is not None and hit.recording.pieces == (b"new",) and hit.hit_count < 50

    await eventually(replaced)
    assert await rig.size_bytes(ORG) < 9000


async def test_what_is_deleted_is_gone_for_every_worker(rig: Rig) -> None:
    await rig.kept(key("a"), recording())
    await rig.kept(key("b"), recording())
    assert await rig[1].delete(key("a"))
    assert not await rig[1].delete(key("a"))
    assert await rig[0].get(key("a")) is None
    assert await rig[0].get(key("b")) is not None


async def test_clearing_takes_all_of_one_org_and_nothing_of_another(rig: Rig) -> None:
    for number in range(20):
        await rig.kept(key(str(number)), recording())
    await rig.kept(key("0", OTHER_ORG), recording())
    assert await rig[1].clear(ORG) == 20
    assert [await rig[0].get(key(str(number))) for number in range(20)] == [None] * 20
    assert await rig.size_bytes(ORG) == 0
    assert await rig[0].get(key("0", OTHER_ORG)) is not None
    assert await rig[0].clear(ORG) == 0


async def test_one_orgs_answer_is_never_anothers(rig: Rig) -> None:
    await rig.kept(key("a", ORG), recording(b"mine"))
    assert await rig[0].get(key("a", OTHER_ORG)) is None
    assert not await rig[0].delete(key("a", OTHER_ORG))
    await rig.kept(key("a", OTHER_ORG), recording(b"theirs"))
    mine = await rig[1].get(key("a", ORG))
    assert mine is not None
    assert mine.recording.pieces == (b"mine",)


async def test_an_org_never_has_more_bytes_than_its_share(rig: Rig) -> None:
    await rig.kept(key("theirs", OTHER_ORG), recording())
    for number in range(40):
        rig[number].set(key(str(number)), noise(3000, number), 60.0 + number)
        assert await rig.size_bytes(ORG) <= MOST_ORG_BYTES
    await eventually(lambda: _found(rig, key("39")))
    found = [number for number in range(40) if await rig[0].get(key(str(number))) is not None]
    assert found == list(range(40 - len(found), 40))  # the older ones gave way
    assert len(found) == MOST_ORG_BYTES // (3000 + ENTRY_OVERHEAD_BYTES + 200)
    assert await rig[0].get(key("theirs", OTHER_ORG)) is not None


async def _found(rig: Rig, wanted: CacheKey) -> bool:
    return await rig[0].get(wanted) is not None


async def test_an_answer_larger_than_the_share_pushes_nothing_out(rig: Rig) -> None:
    await rig.kept(key("a"), recording())
    rig[0].set(key("huge"), noise(MOST_ORG_BYTES), 60.0)
    await rig.kept(key("b"), recording())
    assert await rig[0].get(key("huge")) is None
    assert await rig[0].get(key("a")) is not None


async def test_memory_forgets_what_was_not_used_for_longest_and_stays_within_its_bytes() -> None:
    cache = MemoryCache(ManualClock(), most_bytes=10_000, most_org_bytes=9_000)
    for name in "abc":
        cache.set(key(name), noise(1500), 60.0)
    assert await cache.get(key("a")) is not None
    for name in "de":
        cache.set(key(name, OTHER_ORG), noise(1500), 60.0)
        assert cache.size_bytes <= 10_000
    assert len(cache) == 4
    assert await cache.get(key("b")) is None
    assert await cache.get(key("a")) is not None
    await cache.clear(ORG)
    await cache.clear(OTHER_ORG)
    assert (len(cache), cache.size_bytes, cache._shelves) == (0, 0, {})


async def test_no_cache_keeps_nothing() -> None:
    cache: ResponseCache = NullCache()
    cache.set(key(), recording(), 60.0)
    assert await cache.get(key()) is None
    assert (await cache.delete(key()), await cache.clear(ORG)) == (False, 0)
    await cache.close()


# --- what Redis may do


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[OwnRedis]:
    async with own_redis(tmp_path) as server:
        yield server


@pytest_asyncio.fixture
async def connection(server: OwnRedis) -> AsyncIterator[RedisConnection]:
    connection = await RedisConnection.connect(server.url, answer_timeout_s=1.0)
    yield connection
    await connection.close()


async def test_a_redis_that_hangs_costs_a_few_requests_a_few_milliseconds(
    server: OwnRedis, connection: RedisConnection
) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=0.02, away_s=30.0)
    cache.set(key(), recording(), 60.0)
    await eventually(lambda: _in(cache, key()))
    server.pause()
    began_s = time.monotonic()
    assert await cache.get(key()) is None
    first_s = time.monotonic() - began_s
    began_s = time.monotonic()
    for _ in range(200):
        assert await cache.get(key()) is None
        cache.set(key("b"), recording(), 60.0)
    assert first_s < 2.0
    assert time.monotonic() - began_s < 2.0  # 200 waits would be four seconds
    with pytest.raises(Unavailable):
        await cache.clear(ORG)
    server.resume()


async def _in(cache: ResponseCache, wanted: CacheKey) -> bool:
    return await cache.get(wanted) is not None


async def test_after_an_outage_the_cache_works_again_by_itself(server: OwnRedis, connection: RedisConnection) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=0.05, away_s=0.05)
    cache.set(key(), recording(), 60.0)
    await eventually(lambda: _in(cache, key()))
    server.kill()
    assert await cache.get(key()) is None
    with pytest.raises(Unavailable):
        await cache.delete(key())
    await server.start()

    async def kept_again() -> bool:
        cache.set(key(), recording(), 60.0)
        return await _in(cache, key())

    await eventually(kept_again, 10.0)


async def test_a_flushed_redis_with_its_scripts_gone_is_only_an_empty_cache(
    server: OwnRedis, connection: RedisConnection
) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=PATIENT_S)
    cache.set(key(), recording(), 60.0)
    await eventually(lambda: _in(cache, key()))
    await server.say("FLUSHALL")
    await server.say("SCRIPT", "FLUSH")
    assert await cache.get(key()) is None
    cache.set(key(), recording(), 60.0)
    await eventually(lambda: _in(cache, key()))


async def test_what_cannot_be_read_is_a_miss_and_is_counted(server: OwnRedis, connection: RedisConnection) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=PATIENT_S)
    cache.set(key(), recording(), 60.0)
    await eventually(lambda: _in(cache, key()))
    name = cache._keys(key())[0]
    await server.say("HSET", name, "v", "of another version")
    assert await cache.get(key()) is None
    assert cache.unreadable == 1
    await server.say("DEL", name)
    await server.say("SET", name, "not even a hash")
    assert await cache.get(key()) is None


async def test_thousands_are_cleared_and_nothing_is_left_behind(server: OwnRedis, connection: RedisConnection) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=PATIENT_S)
    for number in range(1203):
        cache.set(key(str(number)), recording(), 60.0)
    assert await cache.clear(ORG) == 1203
    assert await server.say("KEYS", "*") == []


async def test_answers_whose_time_is_over_no_longer_count(server: OwnRedis, connection: RedisConnection) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=PATIENT_S, most_org_bytes=20_000)
    cache.set(key("long"), noise(3000), 600.0)
    for number in range(4):
        cache.set(key(str(number)), noise(3000), 0.05)
    await asyncio.sleep(0.1)
    for name in ("b", "c", "d"):
        cache.set(key(name), noise(3000), 60.0)
    await eventually(lambda: _in(cache, key("d")))
    assert await cache.get(key("long")) is not None
    index, sizes = cache._keys(key())[1:3]
    assert await server.say("ZCARD", index) == 4
    assert await server.say("HLEN", sizes) == 5  # and the sum
    assert int(str(await server.say("HGET", sizes, "total"), "ascii")) < 4 * 3700  # type: ignore[call-overload]


async def test_everything_that_is_kept_ends_by_itself(server: OwnRedis, connection: RedisConnection) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=PATIENT_S)
    for number in range(20):
        cache.set(key(str(number)), recording(), 0.05)
    await eventually(lambda: _ends(server))


async def _ends(server: OwnRedis) -> bool:
    return await server.say("DBSIZE") == 0
