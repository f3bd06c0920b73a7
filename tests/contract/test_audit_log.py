"""The audit log on both databases: every action is in it, nobody can change it, and who did so all the same is seen."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import OperatorId
from crosslogic.limits.model import Limits
from crosslogic.store.engine import reading
from crosslogic.store.tables import audit_head, audit_log, orgs
from crosslogic.tenancy.audit import Actor, ActorKind, AuditEntry, Verdict
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Plan, Role, Status
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql

HASH = key_hasher(b"pepper")
ANN = Actor(ActorKind.OPERATOR, "op_ann", "req_1")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tenancy(engine: AsyncEngine, clock: ManualClock) -> TenancyService:
    return TenancyService(TenancySql(engine), HASH, clock).acting_as(ANN)


async def house(tenancy: TenancyService) -> tuple[str, str]:
    """A little of everything: ids of the org and its key."""
    org = await tenancy.create_org("acme")
    await tenancy.create_environment("acme", "prod")
    key = (await tenancy.create_key("acme", "prod", name="ci")).key
    await tenancy.users.create(org.id, "ann@acme.example", name="Ann")
    return org.id, key.id


async def test_each_action_is_written_down_with_who_when_before_and_after(
    tenancy: TenancyService, clock: ManualClock
) -> None:
    org_id, key_id = await house(tenancy)
    clock.advance(60)
    bob = tenancy.acting_as(Actor(ActorKind.KEY, "key_bob", "req_2"))
    await bob.change_org("acme", limits=Limits(concurrency=3))
    await bob.change_org("acme", status=Status.SUSPENDED)
    await bob.change_environment("acme", "prod", allowed_models=["m"])
    new = (await bob.rotate_key(key_id, grace_s=60)).key  # type: ignore[arg-type]
    await bob.change_key(new.id, status=Status.REVOKED)
    await bob.users.change(tenancy_org(org_id), "ann@acme.example", role=Role.ADMIN)
    await bob.plans.put(Plan("gold", "Gold"))
    await bob.plans.remove("gold")
    operator = (await bob.operators.create("eve")).operator
    await bob.operators.change(OperatorId(operator.id), status=Status.REVOKED)
    entries = (await tenancy.audit.entries())[::-1]
    assert [entry.action for entry in entries] == [
        "org.create",
        "environment.create",
        "key.create",
        "user.create",
        "org.change",
        "org.suspend",
        "environment.change",
        "key.create",
        "key.rotate",
        "key.revoke",
        "user.change",
        "plan.create",
        "plan.remove",
        "operator.create",
        "operator.revoke",
    ]
    assert {(e.actor_kind, e.actor_id, e.request_id) for e in entries[:4]} == {("operator", "op_ann", "req_1")}
    assert {(e.actor_kind, e.actor_id, e.request_id) for e in entries[4:]} == {("key", "key_bob", "req_2")}
    assert [entry.at for entry in entries[3:5]] == [clock.now() - timedelta(seconds=60), clock.now()]
    assert {entry.org_id for entry in entries} == {org_id, None}
    assert {entry.org_id for entry in entries[11:]} == {None}
    assert documents(entries[4]) == ({"limits": {}}, {"limits": {"concurrency": 3}})
    assert documents(entries[5]) == ({"status": "active"}, {"status": "suspended"})
    before, after = documents(entries[8])
    assert before == {"expires_at": None, "replaced_by": None}
    assert after["replaced_by"] == new.id
    assert [entry.entity_id for entry in entries[7:10]] == [new.id, key_id, new.id]


def tenancy_org(org_id: str) -> Any:
    return org_id


def documents(entry: AuditEntry) -> tuple[Any, Any]:
    return tuple(None if text is None else json.loads(text) for text in (entry.before, entry.after))  # type: ignore[return-value]


async def test_no_secret_and_no_hash_of_one_is_in_it(tenancy: TenancyService, engine: AsyncEngine) -> None:
    await tenancy.create_org("acme")
    await tenancy.create_environment("acme", "prod")
    created = await tenancy.create_key("acme", "prod", name="k")
    operator = await tenancy.operators.create("eve")
    rotated = await tenancy.rotate_key(created.key.id)
    async with reading(engine) as conn:
        everything = str([tuple(row) for row in await conn.execute(select(audit_log.c.before, audit_log.c.after))])
    for token in (created.token, operator.token, rotated.token):
        assert token is not None
        assert token not in everything
        assert HASH(token.encode()).hex() not in everything
        assert str(HASH(token.encode())) not in everything
    assert '"key_hash":"***"' in everything


async def test_what_is_not_done_is_not_written_down(tenancy: TenancyService) -> None:
    await tenancy.create_org("acme")
    with pytest.raises(Conflict):
        await tenancy.create_org("acme")
    assert len(await tenancy.audit.entries()) == 1
    assert (await tenancy.audit.verify()).intact


async def test_many_at_once_make_one_chain(tenancy: TenancyService) -> None:
    await tenancy.create_org("acme")
    await asyncio.gather(*(tenancy.create_environment("acme", f"env-{n}") for n in range(12)))
    entries = await tenancy.audit.entries()
    assert [entry.seq for entry in entries] == list(range(13, 0, -1))
    assert await tenancy.audit.verify() == Verdict(13, entries[0].hash.hex())


async def test_entries_are_found_by_org_actor_action_and_entity_in_pages(tenancy: TenancyService) -> None:
    org_id, key_id = await house(tenancy)
    await tenancy.create_org("other")

    async def seqs(**filters: Any) -> list[int]:
        return [entry.seq for entry in await tenancy.audit.entries(**filters)]

    assert await seqs() == [5, 4, 3, 2, 1]
    assert await seqs(org_id=org_id) == [4, 3, 2, 1]
    assert await seqs(action="org") == [5, 1]
    assert await seqs(action="org.create") == [5, 1]
    assert await seqs(action="or") == []
    assert await seqs(entity_id=key_id) == [3]
    assert await seqs(actor_id="op_ann", limit=2) == [5, 4]
    assert await seqs(cursor="4", limit=2) == [3, 2]
    assert await seqs(actor_id="nobody") == []


# what others do to it


@pytest.mark.parametrize(
    "statement", [update(audit_log).values(action="x"), delete(audit_log)], ids=["update", "delete"]
)
async def test_the_database_refuses_to_change_it(tenancy: TenancyService, engine: AsyncEngine, statement: Any) -> None:
    await house(tenancy)
    with pytest.raises(DBAPIError, match="only ever added to"):
        async with engine.begin() as conn:
            await conn.execute(statement)
    if engine.dialect.name == "postgresql":
        with pytest.raises(DBAPIError, match="only ever added to"):
            async with engine.begin() as conn:
                await conn.execute(text("TRUNCATE audit_log"))
    assert (await tenancy.audit.verify()).entries == 4


async def unguarded(engine: AsyncEngine) -> None:
    """What somebody with all rights on the database can do."""
    async with engine.begin() as conn:
        if engine.dialect.name == "postgresql":
            await conn.execute(text("ALTER TABLE audit_log DISABLE TRIGGER USER"))
        else:
            for name in ("immutable", "undeletable"):
                await conn.execute(text(f"DROP TRIGGER audit_log_{name}"))


async def test_a_hundred_random_mutations_are_all_found(tenancy: TenancyService, engine: AsyncEngine) -> None:
    _, key_id = await house(tenancy)
    for n in range(8):
        await tenancy.change_org("acme", limits=Limits(concurrency=n))
    await tenancy.change_key(key_id, status=Status.REVOKED)  # type: ignore[arg-type]
    await unguarded(engine)
    whole = await snapshot(engine)
    chance = random.Random(7)
    kinds: list[Callable[[AsyncConnection, random.Random], Awaitable[str]]] = [
        change_a_field,
        change_a_field,
        change_a_hash,
        delete_an_entry,
        swap_two_entries,
        add_an_entry,
        cut_the_end,
        renumber,
    ]
    assert (await tenancy.audit.verify()).intact
    for number in range(100):
        mutate = kinds[number % len(kinds)]
        async with engine.begin() as conn:
            what = await mutate(conn, chance)
        verdict = await tenancy.audit.verify()
        assert not verdict.intact, f"mutation {number} was not noticed: {what}"
        assert verdict.wrong_seq is not None
        await restore(engine, whole)
    assert (await tenancy.audit.verify()).entries == len(whole[0])


async def snapshot(engine: AsyncEngine) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    async with reading(engine) as conn:
        rows = [dict(row) for row in (await conn.execute(select(audit_log))).mappings()]
        return rows, dict((await conn.execute(select(audit_head))).mappings().one())


async def restore(engine: AsyncEngine, whole: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    async with engine.begin() as conn:
        await conn.execute(delete(audit_log))
        await conn.execute(insert(audit_log), whole[0])
        await conn.execute(update(audit_head).values(whole[1]))


async def some_seq(conn: AsyncConnection, chance: random.Random) -> int:
    return chance.randint(1, int(await conn.scalar(select(func.max(audit_log.c.seq))) or 0))


async def change_a_field(conn: AsyncConnection, chance: random.Random) -> str:
    seq = await some_seq(conn, chance)
    column = chance.choice([column for column in audit_log.c if column.name not in ("seq", "hash")])
    here = audit_log.c.seq == seq
    old = await conn.scalar(select(column).where(here))
    new = old + timedelta(microseconds=1) if column.name == "at" else (old or "") + chance.choice([" ", "x", "\u200b"])
    await conn.execute(update(audit_log).where(here).values({column: new}))
    return f"{column.name} of {seq}"


async def change_a_hash(conn: AsyncConnection, chance: random.Random) -> str:
    seq = await some_seq(conn, chance)
    await conn.execute(update(audit_log).where(audit_log.c.seq == seq).values(hash=chance.randbytes(32)))
    return f"hash of {seq}"


async def delete_an_entry(conn: AsyncConnection, chance: random.Random) -> str:
    seq = await some_seq(conn, chance)
    await conn.execute(delete(audit_log).where(audit_log.c.seq == seq))
    if chance.random() < 0.5:  # and close the gap
        for later in range(seq + 1, 100):
            await conn.execute(update(audit_log).where(audit_log.c.seq == later).values(seq=later - 1))
    return f"without {seq}"


async def swap_two_entries(conn: AsyncConnection, chance: random.Random) -> str:
    one = await some_seq(conn, chance)
    other = next(seq for seq in iter(lambda: chance.randint(1, 13), 0) if seq != one)
    for old, new in ((one, 1_000), (other, one), (1_000, other)):
        await conn.execute(update(audit_log).where(audit_log.c.seq == old).values(seq=new))
    return f"{one} and {other} swapped"


async def add_an_entry(conn: AsyncConnection, chance: random.Random) -> str:
    seq = await some_seq(conn, chance)
    row = dict((await conn.execute(select(audit_log).where(audit_log.c.seq == seq))).mappings().one())
    last = int(await conn.scalar(select(func.max(audit_log.c.seq))) or 0)
    await conn.execute(insert(audit_log).values({**row, "seq": last + 1}))
    return f"{seq} again at the end"


async def cut_the_end(conn: AsyncConnection, chance: random.Random) -> str:
    seq = await some_seq(conn, chance)
    await conn.execute(delete(audit_log).where(audit_log.c.seq >= seq))
    return f"cut at {seq}"


async def renumber(conn: AsyncConnection, chance: random.Random) -> str:
    seq = await some_seq(conn, chance)
    await conn.execute(update(audit_log).where(audit_log.c.seq == seq).values(seq=5_000))
    return f"{seq} renumbered"


async def test_a_forged_end_is_found_as_well(tenancy: TenancyService, engine: AsyncEngine) -> None:
    await house(tenancy)
    for values in ({"hash": b"x" * 32}, {"seq": 3}, {"seq": 5}):
        whole = await snapshot(engine)
        async with engine.begin() as conn:
            await conn.execute(update(audit_head).values(values))
        assert not (await tenancy.audit.verify()).intact
        async with engine.begin() as conn:
            await conn.execute(update(audit_head).values(whole[1]))
    async with engine.begin() as conn:
        await conn.execute(delete(audit_head))
    assert not (await tenancy.audit.verify()).intact


async def test_without_the_pepper_the_chain_cannot_be_forged(tenancy: TenancyService, engine: AsyncEngine) -> None:
    """Somebody who knows this program and the database, but not the pepper, writes the chain anew."""
    await house(tenancy)
    stranger = TenancyService(TenancySql(engine), key_hasher(b"guessed"), ManualClock())
    await stranger.create_org("forged")
    verdict = await tenancy.audit.verify()
    assert (verdict.intact, verdict.wrong_seq) == (False, 5)


async def test_an_empty_log_is_intact(tenancy: TenancyService) -> None:
    assert await tenancy.audit.verify() == Verdict(0, "")


async def test_a_long_log_is_followed_page_by_page(
    tenancy: TenancyService, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crosslogic.tenancy.audit_sql._PAGE", 3)
    await house(tenancy)
    for n in range(7):
        await tenancy.change_org("acme", limits=Limits(concurrency=n))
    assert (await tenancy.audit.verify()).entries == 11
    async with engine.begin() as conn:  # what happened before there was a log leaves no entry, and breaks nothing
        await conn.execute(update(orgs).values(billing_plan="pro"))
    assert (await tenancy.audit.verify()).intact
