"""What the cache costs a request: `python -m bench.micro.cache [redis-url]`.

The pure parts for a chat of about 4 KB, then whole requests through `Answers` in memory and over Redis. CPU is that of
this process alone.
"""

import asyncio
import json
import random
import secrets
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from crosslogic.cache import codec
from crosslogic.cache.idempotency.memory import MemorySlots
from crosslogic.cache.idempotency.ports import Slots
from crosslogic.cache.idempotency.redis import RedisSlots
from crosslogic.cache.idempotency.service import Idempotency
from crosslogic.cache.key import cache_key, fingerprint, meaning_of, read_fields
from crosslogic.cache.memory import MemoryCache
from crosslogic.cache.model import CachePolicy, Form, Question, Recording, Tokens
from crosslogic.cache.policy import is_cacheable
from crosslogic.cache.ports import ResponseCache
from crosslogic.cache.redis import RedisCache
from crosslogic.cache.salt import Salts
from crosslogic.cache.service import Answers, Found, Plan
from crosslogic.cache.tap import Answered
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.ids import EnvId, OrgId, RequestId
from crosslogic.net.redis import RedisConnection

ORG = OrgId("org_0123456789ab0123456789abcdef01234567")
BODY = json.dumps(
    {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "messages": [
            {"role": "system", "content": "You answer in one sentence. " * 40},
            {"role": "user", "content": 'What does "exactly once" mean? Füge ein Beispiel an. ' * 40},
        ],
        "temperature": 0,
        "max_tokens": 256,
        "stream": False,
        "user": "user-17",
    }
).encode()
EVENT = (
    b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1760000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" %b"},"logprobs":null,"finish_reason":null}]}\n\n'
)
ANSWER = json.dumps({"choices": [{"message": {"content": "word " * 300}}], "usage": {"prompt_tokens": 9}}).encode()


def question(number: int = 0) -> Question:
    return Question(ORG, RequestId(f"req_{number}"), "chat/completions", "m", True, Form.WHOLE, BODY, EnvId("env"))


def answered() -> Answered:
    return Answered("m", False, 200, b"application/json", ANSWER, Tokens(900, 300), True, "stop")


def median_us(work: Callable[[], object], rounds: int = 15, calls: int = 1000) -> float:
    """Median over `rounds` of the mean of `calls`."""
    work()
    times: list[float] = []
    for _ in range(rounds):
        began_s = time.perf_counter()
        for _ in range(calls):
            work()
        times.append((time.perf_counter() - began_s) / calls * 1e6)
    return sorted(times)[rounds // 2]


def key_of_request() -> object:
    """All that a look-up needs before it looks: read, decide, digest."""
    fields = read_fields(BODY)
    assert fields is not None
    meaning = meaning_of(fields)
    assert is_cacheable(fields, meaning, generates=True, sampled=False)
    return cache_key(question(), fields, meaning)


def pure() -> None:
    asked = question()
    rng = random.Random(1)
    events = tuple(EVENT % "".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 9))).encode() for _ in range(300))
    made = Recording(RequestId("req_1"), "m", True, 200, b"text/event-stream", events, Tokens(900, 300), "stop")
    written = codec.write(made)
    salts = Salts(b"secret" * 6)
    print(f"body of {len(BODY)} bytes; stream of {made.size_bytes} bytes, {len(written)} in Redis")
    for name, work in (
        ("read + is_cacheable + key", key_of_request),
        ("fingerprint of a body", lambda: fingerprint(asked)),
        ("salt a body", lambda: salts.salted(BODY, ORG)),
        ("pack a stream", lambda: codec.write(made)),
        ("unpack a stream", lambda: codec.read(written, most_bytes=10**7)),
    ):
        print(f"{name:44} {median_us(work):8.1f} µs")


async def measure(name: str, at_once: int, count: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Run `one` `count` times, `at_once` at a time; print CPU and wall time of each."""
    waits_us: list[float] = []

    async def caller(start: int) -> None:
        for number in range(start, count, at_once):
            began_s = time.perf_counter()
            await one(number)
            waits_us.append((time.perf_counter() - began_s) * 1e6)

    cpu_s = time.process_time()
    await asyncio.gather(*(caller(start) for start in range(at_once)))
    cpu_us = (time.process_time() - cpu_s) / count * 1e6
    waits_us.sort()
    p50, p99 = waits_us[count // 2], waits_us[count * 99 // 100]
    print(f"{name:38} x{at_once:<4} {cpu_us:8.1f} µs CPU   p50 {p50:7.0f} µs  p99 {p99:7.0f} µs")


async def whole(where: str, cache: ResponseCache, slots: Slots, count: int) -> None:
    answers = Answers(cache, Idempotency(slots), SystemClock())
    policy = CachePolicy()
    run = secrets.token_hex(4)

    def plan(number: int, x_cache: bytes | None, key: bytes | None) -> Plan:
        made = answers.plan(lambda: question(number), policy, x_cache, key)
        assert isinstance(made, Plan)
        return made

    async def neither(_: int) -> object:
        return answers.plan(question, policy, None, None)

    async def hit(number: int) -> object:
        found = await answers.find(plan(number, b"use", None), lambda: True)
        assert isinstance(found, Found)
        return found

    async def miss_and_keep(number: int) -> None:
        made = plan(number, b"refresh", None)
        assert await answers.find(made, lambda: True) is None
        await answers.keep(made, answered())

    async def first_with_key(number: int) -> None:
        made = plan(number, None, b"%s-%d" % (run.encode(), number))
        assert await answers.find(made, lambda: True) is None
        await answers.keep(made, answered())

    async def repeat_with_key(number: int) -> object:
        found = await answers.find(plan(number + count, None, b"%s-%d" % (run.encode(), number)), lambda: True)
        assert isinstance(found, Found)
        return found

    await measure(f"{where}: neither header", 1, 50_000, neither)
    for at_once in (1, 32):
        await measure(f"{where}: keep an answer", at_once, count, miss_and_keep)
        await asyncio.sleep(0.1)
        await measure(f"{where}: hit", at_once, count, hit)
    await measure(f"{where}: first with a key", 32, count, first_with_key)
    await measure(f"{where}: repeat on the same worker", 32, count, repeat_with_key)
    await cache.clear(ORG)
    await answers.close()


async def main(url: str) -> None:
    pure()
    clock = SystemClock()
    await whole("memory", MemoryCache(clock), MemorySlots(clock), 5000)
    connection = await RedisConnection.connect(url)
    prefix = f"bench:{secrets.token_hex(4)}:"
    cache = RedisCache(connection, clock, prefix=prefix, wait_s=1.0)
    await whole("redis", cache, RedisSlots(connection, clock, prefix=f"{prefix}slot:", wait_s=1.0, ttl_s=60.0), 3000)
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://127.0.0.1:6379"))
