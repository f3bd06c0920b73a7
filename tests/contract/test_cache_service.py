"""What the request path gets of cache and idempotency together: plan, find, keep or drop."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from crosslogic.cache.idempotency.memory import MemorySlots
from crosslogic.cache.idempotency.redis import RedisSlots
from crosslogic.cache.idempotency.service import Idempotency, Problem
from crosslogic.cache.memory import MemoryCache
from crosslogic.cache.model import CachePolicy, Form, Question, Use
from crosslogic.cache.redis import RedisCache
from crosslogic.cache.service import Answers, Found, Plan
from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.net.redis import RedisConnection
from tests.cache_samples import CHAT, EVENTS, OTHER_ORG, answered, question
from tests.contract.limits_rig import eventually

POLICIES = {
    "asks": CachePolicy(),
    "all": CachePolicy(Use.ON),
    "none": CachePolicy(Use.OFF),
    "sampled": CachePolicy(sampled=True),
}


@pytest_asyncio.fixture(params=["memory", "redis"])
async def answers(request: pytest.FixtureRequest) -> AsyncIterator[Answers]:
    if request.param == "memory":
        clock = ManualClock()
        service = Answers(MemoryCache(clock), Idempotency(MemorySlots(clock)), clock)
        yield service
        await service.close()
        return
    prefix = request.getfixturevalue("redis_prefix")
    connection = await RedisConnection.connect(request.getfixturevalue("redis_url"))
    real = SystemClock()
    cache = RedisCache(connection, real, prefix=f"{prefix}c:", wait_s=5.0)
    slots = RedisSlots(connection, real, prefix=f"{prefix}i:", wait_s=5.0, ttl_s=20.0)
    service = Answers(cache, Idempotency(slots), real)
    yield service
    await service.close()
    await connection.execute("DEL", *await connection.execute("KEYS", f"{prefix}*"), f"{prefix}none")
    await connection.close()


def always() -> bool:
    return True


def planned(
    answers: Answers,
    asked: Question,
    *,
    env: str = "asks",
    x_cache: bytes | None = None,
    idempotency_key: bytes | None = None,
) -> Plan:
    plan = answers.plan(lambda: asked, POLICIES[env], x_cache, idempotency_key)
    assert isinstance(plan, Plan)
    return plan


async def ran(answers: Answers, plan: Plan, body: bytes = b'{"ok":true}') -> None:
    """As if a node had answered."""
    assert await answers.find(plan, always) is None
    streamed = plan.question.form is not Form.WHOLE
    for event in EVENTS if streamed else ():
        plan.tap.take(event)
    await answers.keep(plan, answered(b"data: [DONE]\n\n" if streamed else body, streamed=streamed))
    answers.drop(plan)


def never_asked() -> Question:
    raise AssertionError("nothing needed to be known of this request")


async def test_a_request_without_headers_costs_nothing(answers: Answers) -> None:
    assert answers.plan(never_asked, POLICIES["asks"], None, None) is None
    assert answers.plan(never_asked, POLICIES["none"], None, None) is None


@pytest.mark.parametrize("form", list(Form))
async def test_a_miss_then_a_hit_in_the_same_form(answers: Answers, form: Form) -> None:
    first = planned(answers, question(form=form), x_cache=b"use")
    assert first.headers.startswith(b"x-cache: miss\r\nx-cache-key: ")
    await ran(answers, first)
    again = planned(answers, question(form=form, request_id="req_2"), x_cache=b"use")
    found = await _found(answers, again)
    assert found.headers.startswith(b"x-cache: hit\r\nx-cache-key: ")
    assert b"\r\nage: 0\r\n" in found.headers
    assert not found.replayed
    assert found.recording.request_id == "req_1"
    expected = (b'{"ok":true}',) if form is Form.WHOLE else (*EVENTS, b"data: [DONE]\n\n")
    assert found.recording.pieces == expected
    for other in set(Form) - {form}:
        assert await answers.find(planned(answers, question(form=other), x_cache=b"use"), always) is None


async def _found(answers: Answers, plan: Plan) -> Found:
    found = await answers.find(plan, always)
    for _ in range(100):
        if found is not None:
            break
        await asyncio.sleep(0.01)  # nobody waits for an answer to be kept
        found = await answers.find(plan, always)
    assert isinstance(found, Found)
    return found


async def test_refresh_runs_again_and_replaces(answers: Answers) -> None:
    await ran(answers, planned(answers, question(), x_cache=b"use"), b"old")
    refreshing = planned(answers, question(), x_cache=b"refresh")
    assert refreshing.headers.startswith(b"x-cache: refresh\r\n")
    await ran(answers, refreshing, b"new")

    async def is_new() -> bool:
        found = await answers.find(planned(answers, question(), x_cache=b"use"), always)
        return isinstance(found, Found) and found.recording.pieces == (b"new",)

    await eventually(is_new)


@pytest.mark.parametrize(
    ("env", "x_cache", "body"),
    [
        ("asks", b"no-store", CHAT),
        ("none", b"use", CHAT),
        ("asks", b"use", {**CHAT, "temperature": 1}),
        ("asks", b"use", {**CHAT, "store": True}),
        ("asks", b"use", {**CHAT, "temperature": 0, "n": 2}),
    ],
)
async def test_what_is_not_to_be_cached_is_told_and_runs(
    answers: Answers, env: str, x_cache: bytes, body: dict[str, object]
) -> None:
    for _ in range(2):
        plan = planned(answers, question(body), env=env, x_cache=x_cache)
        assert plan.headers == b"x-cache: bypass\r\n"
        await ran(answers, plan)


async def test_an_environment_may_cache_without_being_asked(answers: Answers) -> None:
    await ran(answers, planned(answers, question(), env="all"))
    await _found(answers, planned(answers, question(), env="all"))
    sampled = planned(answers, question({**CHAT, "temperature": 1}), env="all")
    assert (sampled.key, sampled.headers) == (None, b"")


async def test_another_org_asking_the_same_is_not_answered_from_ours(answers: Answers) -> None:
    await ran(answers, planned(answers, question(), x_cache=b"use"))
    await _found(answers, planned(answers, question(), x_cache=b"use"))
    assert await answers.find(planned(answers, question(org=OTHER_ORG), x_cache=b"use"), always) is None


@pytest.mark.parametrize(
    "unfit", [answered(by_engine=False), answered(model="fallback"), answered(finish_reason="abort")]
)
async def test_an_unfit_answer_is_replayed_to_its_own_key_but_not_cached(answers: Answers, unfit: object) -> None:
    plan = planned(answers, question(), x_cache=b"use", idempotency_key=b"k")
    assert await answers.find(plan, always) is None
    await answers.keep(plan, unfit)  # type: ignore[arg-type]
    assert isinstance(await answers.find(planned(answers, question(), idempotency_key=b"k"), always), Found)
    await asyncio.sleep(0.05)
    assert await answers.find(planned(answers, question(), x_cache=b"use"), always) is None


@pytest.mark.parametrize("form", list(Form))
async def test_a_repeat_is_told_what_the_first_was_told_and_whose_it_was(answers: Answers, form: Form) -> None:
    sampled = {**CHAT, "temperature": 1.3}
    await ran(answers, planned(answers, question(sampled, form=form), idempotency_key=b"k"))
    repeat = planned(answers, question(sampled, form=form, request_id="req_2"), idempotency_key=b"k")
    found = await answers.find(repeat, always)
    assert isinstance(found, Found)
    assert found.replayed
    assert found.headers == b"idempotent-replayed: true\r\nx-original-request-id: req_1\r\n"
    assert found.recording.streamed == (form is not Form.WHOLE)


async def test_a_repeat_while_it_runs_joins(answers: Answers) -> None:
    first = planned(answers, question(), idempotency_key=b"k")
    assert await answers.find(first, always) is None
    repeats = [
        asyncio.create_task(
            answers.find(planned(answers, question(request_id=f"req_r{n}"), idempotency_key=b"k"), always)
        )
        for n in range(5)
    ]
    await asyncio.sleep(0.05)
    assert not any(repeat.done() for repeat in repeats)
    await answers.keep(first, answered(b"once"))
    found = await asyncio.gather(*repeats)
    assert all(isinstance(one, Found) and one.recording.pieces == (b"once",) for one in found)


async def test_a_failed_run_lets_the_next_run(answers: Answers) -> None:
    first = planned(answers, question(), idempotency_key=b"k")
    assert await answers.find(first, always) is None
    answers.drop(first)
    answers.drop(first)  # a second time does nothing

    async def runs() -> bool:
        return await answers.find(planned(answers, question(request_id="req_2"), idempotency_key=b"k"), always) is None

    await eventually(runs)


async def test_another_body_under_the_same_key_is_refused_but_another_spelling_is_the_same(answers: Answers) -> None:
    await ran(answers, planned(answers, question(), idempotency_key=b"k"))
    other = planned(answers, question({**CHAT, "max_tokens": 5}, request_id="req_2"), idempotency_key=b"k")
    assert await answers.find(other, always) is Problem.REUSED
    turned = json.dumps(dict(reversed(CHAT.items())), indent=2).encode()
    assert isinstance(await answers.find(planned(answers, question(turned), idempotency_key=b"k"), always), Found)


async def test_a_hit_answers_the_idempotency_key_too(answers: Answers) -> None:
    await ran(answers, planned(answers, question(), x_cache=b"use"))
    await _found(answers, planned(answers, question(), x_cache=b"use"))
    with_key = planned(answers, question(request_id="req_2"), x_cache=b"use", idempotency_key=b"k")
    hit = await answers.find(with_key, always)
    assert isinstance(hit, Found)
    assert not hit.replayed
    repeat = await answers.find(
        planned(answers, question(request_id="req_3"), x_cache=b"use", idempotency_key=b"k"), always
    )
    assert isinstance(repeat, Found)
    assert repeat.replayed
    assert b"x-original-request-id: req_2\r\n" in repeat.headers  # whose usage record says "cached"


async def test_an_answer_too_long_to_keep_is_refused_the_second_time() -> None:
    clock = ManualClock()
    answers = Answers(MemoryCache(clock), Idempotency(MemorySlots(clock)), clock, most_answer_bytes=100)
    plan = planned(answers, question(), x_cache=b"use", idempotency_key=b"k")
    assert await answers.find(plan, always) is None
    await answers.keep(plan, answered(b"x" * 101))
    assert await answers.find(planned(answers, question(), idempotency_key=b"k"), always) is Problem.NOT_KEPT
    assert await answers.find(planned(answers, question(), x_cache=b"use"), always) is None
    await answers.close()


@pytest.mark.parametrize("name", [b"", b"x" * 256, "schlüssel".encode()])
async def test_a_malformed_key_is_refused_before_anything_is_read(answers: Answers, name: bytes) -> None:
    assert answers.plan(never_asked, POLICIES["asks"], None, name) is Problem.INVALID


async def test_a_key_of_255_characters_is_good(answers: Answers) -> None:
    await ran(answers, planned(answers, question(), idempotency_key=b"x" * 255))


async def test_where_idempotency_is_off_the_header_means_nothing() -> None:
    clock = ManualClock()
    answers = Answers(MemoryCache(clock), None, clock)
    assert answers.plan(never_asked, POLICIES["asks"], None, b"x" * 999) is None
    await answers.close()


async def test_who_is_cancelled_while_looking_holds_nothing() -> None:
    clock = ManualClock()

    class Slow(MemoryCache):
        """A cache whose look-up takes its time."""

        async def get(self, key: object) -> None:  # type: ignore[override]
            await asyncio.sleep(60)

    answers = Answers(Slow(clock), Idempotency(MemorySlots(clock)), clock)
    looking = asyncio.create_task(
        answers.find(planned(answers, question(), x_cache=b"use", idempotency_key=b"k"), always)
    )
    await asyncio.sleep(0.01)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert await answers.find(planned(answers, question(request_id="req_2"), idempotency_key=b"k"), always) is None
    await answers.close()
