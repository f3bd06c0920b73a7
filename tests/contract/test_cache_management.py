"""What people see of a cache and order of it, in memory and in Redis: lists, one answer, deleting, clearing."""

import asyncio
import itertools
import time

import pytest

from crosslogic.cache.memory import MemoryCache
from crosslogic.cache.model import CacheKey, Entry, Selection
from crosslogic.cache.null import NullCache
from crosslogic.cache.redis import RedisCache
from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.kernel.errors import InvalidRequest, Unavailable
from crosslogic.kernel.ids import OrgId
from crosslogic.net.redis import RedisConnection
from tests.cache_samples import ENV, ORG, OTHER_ENV, OTHER_ORG, recording
from tests.contract.limits_rig import eventually
from tests.contract.test_cache_answers import PATIENT_S, Rig, connection, key, noise, rig, server

__all__ = ["connection", "rig", "server"]  # fixtures

ENVS, MODELS = (ENV, OTHER_ENV), ("m", "n")


async def fill(rig: Rig, org: OrgId = ORG) -> None:
    """Two answers for each of two environments and two models."""
    for number, (env, model) in enumerate(list(itertools.product(ENVS, MODELS)) * 2):
        made = recording(b"%d" % number, f"req_{org}_{number}", env=env, model=model)
        await rig.kept(key(str(number), org), made, 60.0 + number)


async def all_entries(rig: Rig, org: OrgId = ORG, of: Selection = Selection(), limit: int = 3) -> list[Entry]:  # noqa: B008 - frozen
    """Every page of the list."""
    found, cursor = list[Entry](), None
    for number in range(50):
        page = await rig[number].entries(org, of, cursor=cursor, limit=limit)
        assert len(page.entries) <= limit
        found += page.entries
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the list has no end")


async def test_a_list_shows_each_answer_once_with_hits_age_and_size_and_nothing_of_what_it_says(rig: Rig) -> None:
    await fill(rig)
    await fill(rig, OTHER_ORG)
    for _ in range(3):
        await rig[1].get(key("5"))
    entries = await all_entries(rig)
    assert [entry.key for entry in entries] == [key(str(number)) for number in range(8)]  # in order of their end
    fifth = entries[5]
    assert (fifth.request_id, fifth.env_id, fifth.model) == ("req_org_one_5", ENV, "n")
    assert (fifth.endpoint, fifth.streamed) == ("chat/completions", False)
    assert fifth.hit_count - entries[4].hit_count == 3
    assert fifth.hit_count == (await rig[0].get(key("5"))).hit_count - 1  # type: ignore[union-attr] - listing is no hit
    assert 50 < fifth.ttl_s <= 65
    assert sum(entry.size_bytes for entry in entries) == await rig.size_bytes(ORG)
    assert b"pieces" not in repr(fifth).encode()


async def test_a_list_is_filtered_by_environment_and_model(rig: Rig) -> None:
    await fill(rig)
    for env, model in itertools.product((None, *ENVS), (None, *MODELS)):
        found = await all_entries(rig, of=Selection(env, model), limit=2)
        assert len(found) == 8 // (1 + (env is not None)) // (1 + (model is not None))
        assert all(env in (None, entry.env_id) and model in (None, entry.model) for entry in found)


async def test_a_list_goes_on_where_it_was_whatever_comes_and_goes_meanwhile(rig: Rig) -> None:
    await fill(rig)
    first = await rig[0].entries(ORG, limit=3)
    await rig[0].delete(first.entries[-1].key)  # the one that the cursor names
    await rig[0].delete(key("4"))
    await rig.kept(key("new"), recording(), 600.0)
    rest = (await rig[1].entries(ORG, cursor=first.next_cursor, limit=100)).entries
    assert [entry.key for entry in rest] == [key("3"), key("5"), key("6"), key("7"), key("new")]


async def test_answers_that_end_at_one_moment_are_all_listed(rig: Rig) -> None:
    for number in range(25):
        rig[0].set(key(f"{number:02}"), recording(request_id=f"req_{number}"), 60.0)
    await eventually(lambda: _lists(rig, 25))
    assert len({entry.key for entry in await all_entries(rig, limit=2)}) == 25


async def _lists(rig: Rig, number: int) -> bool:
    return len((await rig[1].entries(ORG, limit=500)).entries) == number


@pytest.mark.parametrize("cursor", ["", "x", "1-2", "-1-" + "0" * 64, "1-" + "g" * 64, "9" * 16 + "-" + "0" * 64])
async def test_a_cursor_that_is_none_is_refused(rig: Rig, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        await rig[0].entries(ORG, cursor=cursor)


async def test_one_answer_is_found_by_its_key_and_by_the_request_that_made_it(rig: Rig) -> None:
    await fill(rig)
    found = await rig[1].entry(key("3"))
    assert found is not None
    assert (found.key, found.request_id) == (key("3"), "req_org_one_3")
    assert await rig[1].key_of(ORG, "req_org_one_3") == key("3")
    for strange in ("req_org_two_3", "", "total", "req_org_one_3 ", "*", "req\x00", "réq"):
        assert await rig[1].key_of(ORG, strange) is None
    assert await rig[0].delete(key("3"))
    assert await rig[1].entry(key("3")) is None
    assert await rig[1].key_of(ORG, "req_org_one_3") is None


async def test_an_answer_that_was_replaced_is_found_by_its_new_request_only(rig: Rig) -> None:
    await rig.kept(key(), recording(request_id="req_old"))
    rig[0].set(key(), recording(request_id="req_new"), 60.0)
    await eventually(lambda: _found_by(rig, "req_new"))
    assert await rig[1].key_of(ORG, "req_old") is None


async def _found_by(rig: Rig, request_id: str) -> bool:
    return await rig[1].key_of(ORG, request_id) == key()


@pytest.mark.parametrize(
    ("of", "number"), [(Selection(), 8), (Selection(ENV), 4), (Selection(None, "n"), 4), (Selection(OTHER_ENV, "n"), 2)]
)
async def test_clearing_takes_what_it_names_and_nothing_else(rig: Rig, of: Selection, number: int) -> None:
    await fill(rig)
    await fill(rig, OTHER_ORG)
    kept = [entry for entry in await all_entries(rig) if not of.includes(entry.env_id, entry.model)]
    assert await rig[1].clear(ORG, of) == number
    assert [entry.key for entry in await all_entries(rig)] == [entry.key for entry in kept]
    assert await rig.size_bytes(ORG) == sum(entry.size_bytes for entry in kept)
    assert len(await all_entries(rig, OTHER_ORG)) == 8
    assert await rig[0].clear(ORG, of) == 0


async def test_what_is_kept_after_a_clearing_stays(rig: Rig) -> None:
    await fill(rig)
    for _ in range(3):
        assert await rig[0].clear(ORG, Selection(ENV)) in (0, 1, 4)
        await rig.kept(key("after"), recording(env=ENV))
    await rig[0].clear(ORG, Selection(None, "n"))
    assert await rig[1].get(key("after")) is not None
    await rig[0].clear(ORG)
    assert await rig[1].get(key("after")) is None
    await rig.kept(key("after"), recording(env=ENV))


async def test_no_number_of_clearings_brings_back_what_was_cleared_or_fills_the_memory(rig: Rig) -> None:
    await fill(rig)
    await rig[0].clear(ORG, Selection(ENV, "m"))
    await asyncio.gather(*(rig[0].clear(ORG, Selection(None, f"no such model {number}")) for number in range(1100)))
    assert not [entry for entry in await all_entries(rig) if (entry.env_id, entry.model) == (ENV, "m")]
    assert await rig[0].get(key("0")) is None


async def test_another_org_sees_and_takes_nothing(rig: Rig) -> None:
    await fill(rig)
    theirs = CacheKey(OTHER_ORG, key("3").digest)
    assert await rig[0].entry(theirs) is None
    assert await rig[0].key_of(OTHER_ORG, "req_org_one_3") is None
    assert not await rig[0].delete(theirs)
    assert await rig[0].clear(OTHER_ORG) == 0
    assert await rig[0].clear(OTHER_ORG, Selection(ENV, "m")) == 0
    assert await all_entries(rig, OTHER_ORG) == []
    assert len(await all_entries(rig)) == 8


async def test_what_is_over_is_neither_listed_nor_counted(rig: Rig) -> None:
    await rig.kept(key("long"), recording(), 600.0)
    rig[0].set(key("short"), recording(request_id="req_short"), 0.05)
    await rig.elapse(0.1)
    assert [entry.key for entry in await all_entries(rig)] == [key("long")]
    assert await rig[0].entry(key("short")) is None
    assert await rig[0].key_of(ORG, "req_short") is None
    assert await rig[0].clear(ORG) == 1


async def test_a_clearing_holds_at_once_although_its_space_follows_later(
    connection: RedisConnection,
) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=PATIENT_S)
    for number in range(1500):
        cache.set(key(str(number)), recording(request_id=f"req_{number}"), 60.0)
    await cache.entries(ORG)
    clearing = asyncio.create_task(cache.clear(ORG))
    await asyncio.sleep(0)  # its first step is on its way, and so before this look-up
    assert await cache.get(key("1499")) is None
    assert not clearing.done()
    assert await clearing == 1500


async def test_clearing_memory_lets_requests_through_meanwhile() -> None:
    cache = MemoryCache(ManualClock())
    for number in range(5000):
        cache.set(key(str(number)), recording(), 60.0)
    clearing = asyncio.create_task(cache.clear(ORG))
    await asyncio.sleep(0)
    assert await cache.get(key("4999")) is None
    assert not clearing.done()
    cache.set(key("new"), recording(), 60.0)
    assert await clearing >= 4998
    assert await cache.get(key("new")) is not None
    assert len(cache) == 1


@pytest.mark.parametrize("redis", [False, True])
async def test_an_org_has_at_most_so_many_answers(connection: RedisConnection, redis: bool) -> None:
    cache: RedisCache | MemoryCache = MemoryCache(SystemClock(), most_org_answers=3)
    if redis:
        cache = RedisCache(connection, SystemClock(), wait_s=PATIENT_S, most_org_answers=3)
    for number in range(5):
        cache.set(key(str(number)), noise(100), 60.0 + number)
    assert [entry.key for entry in (await cache.entries(ORG)).entries] == [key("2"), key("3"), key("4")]


async def test_a_redis_that_is_away_is_told_and_not_taken_for_an_empty_cache(
    server: object, connection: RedisConnection
) -> None:
    cache = RedisCache(connection, SystemClock(), wait_s=PATIENT_S)
    server.kill()  # type: ignore[attr-defined]
    began_s = time.monotonic()
    for order in (
        cache.entries(ORG),
        cache.entry(key()),
        cache.key_of(ORG, "req_1"),
        cache.delete(key()),
        cache.clear(ORG),
    ):
        with pytest.raises(Unavailable):
            await order
    assert time.monotonic() - began_s < 10


async def test_no_cache_has_nothing_to_show() -> None:
    cache = NullCache()
    assert (await cache.entries(ORG)).entries == ()
    assert (await cache.clear(ORG), await cache.delete(key())) == (0, False)
