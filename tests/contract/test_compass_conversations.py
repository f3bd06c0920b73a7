"""Conversations and specifications on both databases: kept whole, apart for each org, edited with their history."""

import asyncio

import pytest
import pytest_asyncio
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.conversation.service import CompassService
from crosslogic.compass.specification.model import Priority, UseCase
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.store.tables.compass import compass_specification_revisions, compass_turns
from crosslogic.tenancy import keys
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql

HASH = keys.key_hasher(b"pepper")


@pytest_asyncio.fixture
async def orgs(engine: AsyncEngine) -> tuple[str, str]:
    tenancy = TenancyService(TenancySql(engine), HASH, ManualClock())
    return (await tenancy.create_org("acme")).id, (await tenancy.create_org("bolt")).id


@pytest.fixture
def compass(engine: AsyncEngine) -> CompassService:
    return CompassService(engine, HASH, ManualClock())


async def test_a_conversation_of_several_turns_becomes_one_specification_with_history(
    compass: CompassService, orgs: tuple[str, str]
) -> None:
    acme, _ = orgs
    started = await compass.start(acme)
    first = await compass.say(acme, started.id, "I need a chatbot on L40S")
    assert [question.field for question in first.understanding.questions] == ["user_count"]
    assert first.reply.asked == "user_count"
    second = await compass.say(acme, started.id, "about 750")
    assert second.specification.specification.users == 750
    assert second.understanding.questions == ()
    third = await compass.say(acme, started.id, "Sorry, 2000 users, and low latency is critical")
    spec = third.specification.specification
    assert (spec.use_case, spec.users, spec.priority) == (UseCase.CHATBOT_CONVERSATIONAL, 2000, Priority.LATENCY)
    assert spec.wishes.preferred_gpus == ("l40s",)
    assert third.specification.id == first.specification.id
    conversation, turns = await compass.conversation(acme, started.id)
    assert (conversation.turns, conversation.title) == (6, "I need a chatbot on L40S")
    assert [turn.content for turn in turns[::2]] == [
        "I need a chatbot on L40S",
        "about 750",
        "Sorry, 2000 users, and low latency is critical",
    ]
    history = await compass.history(acme, third.specification.id)
    assert [(each.revision, each.reason) for each in history] == [(n, "conversation") for n in (1, 2, 3)]
    assert history[2].changes["users"] == 2000


async def test_what_was_edited_by_hand_stays_unless_the_conversation_speaks_of_it(
    compass: CompassService, orgs: tuple[str, str]
) -> None:
    acme, _ = orgs
    started = await compass.start(acme)
    exchange = await compass.say(acme, started.id, "chatbot for 100 users")
    edited = {"slo.ttft_p95_ms": 321.0, "users": 150}
    await compass.edit(acme, exchange.specification.id, edited)
    kept = (await compass.say(acme, started.id, "on H100 please")).specification.specification
    assert (kept.slo.ttft_p95_ms, kept.users) == (321.0, 150)
    spoken = (await compass.say(acme, started.id, "for 900 users, that is")).specification.specification
    assert (spoken.slo.ttft_p95_ms, spoken.users) == (321.0, 900)


async def test_edits_are_kept_with_their_history_and_older_ones_do_not_overwrite(
    compass: CompassService, orgs: tuple[str, str]
) -> None:
    acme, _ = orgs
    stored, _ = await compass.specify(acme, "RAG for 200 users", {"priority": "cost"}, "wiki")
    assert stored.specification.priority is Priority.COST
    changed = await compass.edit(acme, stored.id, {"slo.ttft_p95_ms": 800}, revision=1)
    assert changed.revision == 2
    with pytest.raises(Conflict, match="at revision 2 by now, not 1"):
        await compass.edit(acme, stored.id, {"slo.ttft_p95_ms": 900}, revision=1)
    assert (await compass.edit(acme, stored.id, {"slo.ttft_p95_ms": 800})).revision == 2  # nothing changed
    history = await compass.history(acme, stored.id)
    assert [each.reason for each in history] == ["created", "edited"]
    assert history[1].changes == {"slo.ttft_p95_ms": 800}
    assert await compass.history(acme, stored.id, after=1) == history[1:]


async def test_an_edit_that_is_none_changes_nothing(compass: CompassService, orgs: tuple[str, str]) -> None:
    acme, _ = orgs
    stored, _ = await compass.specify(acme, "chatbot", {})
    for changes in ({"slo.nothing": 1}, {"priority": "speed"}, {"traffic.mean_qps": float("inf")}, {"users": 2**70}):
        with pytest.raises(InvalidRequest):
            await compass.edit(acme, stored.id, changes)
    assert await compass.specification(acme, stored.id) == stored


async def test_another_org_is_told_that_nothing_is_there(compass: CompassService, orgs: tuple[str, str]) -> None:
    acme, bolt = orgs
    started = await compass.start(acme)
    exchange = await compass.say(acme, started.id, "chatbot for 100 users")
    spec_id = exchange.specification.id
    said = []
    for conversation_id, specification_id in ((started.id, spec_id), ("conv_none", "spec_none"), ("\u00e9", "\x00")):
        for attempt in (
            compass.conversation(bolt, conversation_id),
            compass.say(bolt, conversation_id, "hello"),
            compass.forget(bolt, conversation_id),
            compass.specification(bolt, specification_id),
            compass.edit(bolt, specification_id, {"priority": "cost"}),
            compass.history(bolt, specification_id),
            compass.discard(bolt, specification_id),
        ):
            with pytest.raises(NotFound) as refused:
                await attempt
            said.append(str(refused.value))
    assert len(set(said)) == 2
    assert await compass.conversations(bolt) == await compass.specifications(bolt) == []
    assert len(await compass.conversations(acme)) == len(await compass.specifications(acme)) == 1


async def test_two_messages_at_once_are_heard_one_after_the_other_or_refused(
    compass: CompassService, orgs: tuple[str, str], engine: AsyncEngine
) -> None:
    acme, _ = orgs
    started = await compass.start(acme)
    outcomes = await asyncio.gather(
        *(compass.say(acme, started.id, f"chatbot for {n}00 users") for n in range(1, 5)), return_exceptions=True
    )
    heard = [each for each in outcomes if not isinstance(each, BaseException)]
    assert heard
    assert all(isinstance(each, Conflict) for each in outcomes if isinstance(each, BaseException))
    conversation, turns = await compass.conversation(acme, started.id)
    assert conversation.turns == len(turns) == 2 * len(heard)
    async with engine.connect() as conn:
        revisions = await conn.scalar(select(func.count()).select_from(compass_specification_revisions))
    assert revisions == len(heard)  # a refused message left nothing behind


async def test_a_conversation_is_forgotten_with_all_that_was_said_and_its_specification_stays(
    compass: CompassService, orgs: tuple[str, str], engine: AsyncEngine
) -> None:
    acme, _ = orgs
    started = await compass.start(acme)
    exchange = await compass.say(acme, started.id, "a secret project: a chatbot for 10 users")
    await compass.forget(acme, started.id)
    async with engine.connect() as conn:
        assert await conn.scalar(select(func.count()).select_from(compass_turns)) == 0
    assert (await compass.specification(acme, exchange.specification.id)).revision == 1
    await compass.discard(acme, exchange.specification.id)
    assert await compass.specifications(acme) == []


@pytest.mark.parametrize("content", ["", "  \n ", "x" * 100_001])
async def test_what_is_no_message_is_refused(compass: CompassService, orgs: tuple[str, str], content: str) -> None:
    acme, _ = orgs
    started = await compass.start(acme)
    with pytest.raises(InvalidRequest):
        await compass.say(acme, started.id, content)


@pytest.mark.parametrize("content", ["\x00\x01 chatbot", "\ud800 chatbot", "😀 chatbot", "chatbot " + "y" * 90_000])
async def test_any_text_is_stored(compass: CompassService, orgs: tuple[str, str], content: str) -> None:
    acme, _ = orgs
    started = await compass.start(acme)
    exchange = await compass.say(acme, started.id, content)
    assert exchange.specification.specification.use_case is UseCase.CHATBOT_CONVERSATIONAL


async def test_a_full_conversation_says_so(compass: CompassService, orgs: tuple[str, str], engine: AsyncEngine) -> None:
    acme, _ = orgs
    started = await compass.start(acme)
    for _ in range(100):
        await compass.say(acme, started.id, "chatbot for 10 users")
    with pytest.raises(Conflict, match="full"):
        await compass.say(acme, started.id, "chatbot for 20 users")
