"""Looking at what is left, for the headers of answers to requests that never asked to pass: nothing is taken."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.model import Demand, Layer, Limits, Room, Scope
from crosslogic.limits.null import NullLimiter
from crosslogic.limits.redis import RedisLimiter
from crosslogic.net.redis import RedisConnection
from tests.contract.limits_rig import eventually, own_redis
from tests.contract.limits_samples import ADAPTERS, Rig, admit, key, limiters_of, org, refuse


@pytest_asyncio.fixture(params=ADAPTERS)
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    async with limiters_of(request) as rig:
        yield rig


async def test_a_look_tells_the_tightest_and_takes_nothing(rig: Rig) -> None:
    scopes = org(Limits(requests_per_day=5, tokens_per_day=1000)), key(1, Limits(requests_per_day=3, concurrency=2))
    await admit(rig[0], *scopes, tokens=400)
    for number in range(20):
        room = await rig[number].look(scopes)
        assert room.requests is not None
        assert room.tokens is not None
        assert (room.requests.limit, room.requests.remaining) == (3, 2)
        assert (room.tokens.limit, room.tokens.remaining) == (1000, 600)
        assert room.tokens.reset_s == pytest.approx(86_400 * 0.4, rel=0.01)
    await admit(rig[1], *scopes, tokens=600)
    await refuse(rig[2], *scopes)


async def test_a_look_says_what_the_next_request_is_told(rig: Rig) -> None:
    """Without ceilings in shadow, and without the shared ones that reserved traffic passes by."""
    world = Scope(Layer.GLOBAL, "global", Limits(requests_per_day=2, tokens_per_day=70))
    promise = Scope(Layer.RESERVED, "r", Limits(tokens_per_second=50, burst_share=10.0), guarantee=True)
    watched = key(1, Limits(requests_per_day=1, shadow=True))
    for scopes, limit in (((world, org(Limits(requests_per_day=9)), watched), 2), ((world, promise, watched), None)):
        room = await rig[0].look(scopes)
        assert (None if room.requests is None else room.requests.limit) == limit
        answer = await admit(rig[1], *scopes)
        assert (None if answer.requests is None else answer.requests.limit) == limit


async def test_where_nothing_limits_there_is_nothing_to_see(rig: Rig) -> None:
    for scopes in ((), (org(Limits()),), (org(Limits(max_output_tokens=5)),), (org(Limits(concurrency=5)),)):
        assert await rig[0].look(scopes) == Room(None, None)
    assert await NullLimiter().look((org(Limits(requests_per_day=1)),)) == Room(None, None)


async def test_a_look_costs_one_call_together_with_those_who_ask(tmp_path: Path) -> None:
    scopes = (org(Limits(requests_per_day=100)),)
    async with own_redis(tmp_path) as server:
        connection = await RedisConnection.connect(server.url)
        limiter = RedisLimiter(connection, SystemClock(), wait_s=5.0, heartbeat_s=60.0)
        await limiter.admit(scopes, Demand(0, 0))
        before = await server.calls("evalsha")
        both = await asyncio.gather(limiter.admit(scopes, Demand(0, 0)), *(limiter.look(scopes) for _ in range(9)))
        assert await server.calls("evalsha") - before == 1
        assert [room.requests.remaining for room in both if room.requests is not None] == [98] * 10
        await limiter.close()
        await connection.close()


async def test_without_redis_it_is_this_workers_share_that_is_seen(tmp_path: Path) -> None:
    scopes = (org(Limits(requests_per_day=100)),)
    async with own_redis(tmp_path) as server:
        connection = await RedisConnection.connect(server.url)
        limiter = RedisLimiter(connection, SystemClock(), wait_s=0.1)
        await admit(limiter, *scopes)
        server.pause()
        rooms = await asyncio.gather(*(limiter.look(scopes) for _ in range(3)))  # these wait in vain, no longer than so
        assert limiter.degraded
        rooms.append(await limiter.look(scopes))
        assert all(room.requests is not None and room.requests.limit == 100 for room in rooms)
        server.resume()
        await eventually(lambda: not limiter.degraded, 20.0)
        await limiter.close()
        await connection.close()


async def test_a_caller_that_leaves_while_it_looks_leaves_nothing_behind(rig: Rig) -> None:
    scopes = (org(Limits(requests_per_day=3, concurrency=1)),)
    looks = [asyncio.ensure_future(rig[number].look(scopes)) for number in range(8)]
    await asyncio.sleep(0)
    for look in looks:
        look.cancel()
    await asyncio.gather(*looks, return_exceptions=True)
    await rig.told()
    answer = await admit(rig[0], *scopes)
    assert answer.requests is not None
    assert answer.requests.remaining == 2
