"""Orgs, environments and keys on both databases: what is stored, refused, and announced."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import KeyId
from crosslogic.limits.model import NO_LIMITS, Dimension, Limits
from crosslogic.store.engine import reading
from crosslogic.store.tables import api_keys, changes, usage_records
from crosslogic.tenancy.keys import KeyKind, key_hasher, kind_of
from crosslogic.tenancy.model import Environment, Org, Role, Status
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.contract.test_store_tables import ARRIVAL, usage_row

LIMITS = Limits(requests_per_minute=60, tokens_per_minute=10**12, concurrency=4)
HASH = key_hasher(b"pepper")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def tenancy(engine: AsyncEngine, clock: ManualClock) -> TenancyService:
    return TenancyService(TenancySql(engine), HASH, clock)


async def house(tenancy: TenancyService, name: str = "acme") -> tuple[Org, Environment]:
    org = await tenancy.create_org(name)
    return org, await tenancy.create_environment(org.id, "prod")


async def announced(engine: AsyncEngine) -> list[tuple[str, str]]:
    async with reading(engine) as conn:
        rows = await conn.execute(select(changes.c.kind, changes.c.entity_id).order_by(changes.c.seq).offset(1))
        return [(row.kind, row.entity_id) for row in rows]


# orgs


async def test_an_org_comes_back_as_it_was_created_by_id_and_by_name(tenancy: TenancyService) -> None:
    org = await tenancy.create_org("acme", billing_plan="pro", limits=LIMITS, allowed_models=["b", "a", "b"])
    assert org.allowed_models == ("b", "a")
    assert await tenancy.org(org.id) == org
    assert await tenancy.org("acme") == org


async def test_an_org_s_name_is_taken_once(tenancy: TenancyService, engine: AsyncEngine) -> None:
    org = await tenancy.create_org("acme")
    with pytest.raises(Conflict, match="acme"):
        await tenancy.create_org("acme")
    assert await announced(engine) == [("org", org.id)]


async def test_of_two_who_take_a_name_at_once_one_gets_it(tenancy: TenancyService) -> None:
    outcomes = await asyncio.gather(*(tenancy.create_org("acme") for _ in range(4)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 3 + ["Org"]


@pytest.mark.parametrize("name", ["", "Acme", "a b", "-a", "a-", "a/b", "org_1", "a" * 64, "admin", "v1", "é", "a\x00"])
async def test_a_name_that_cannot_stand_in_a_url_is_refused(tenancy: TenancyService, name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await tenancy.create_org(name)
    assert refused.value.param == "name"


@pytest.mark.parametrize("name", ["a", "9", "acme-2", "a" * 63])
async def test_ordinary_names_are_taken(tenancy: TenancyService, name: str) -> None:
    assert (await tenancy.create_org(name)).name == name


@pytest.mark.parametrize("ceiling", [-1, 10**19])
async def test_ceilings_out_of_range_are_refused(tenancy: TenancyService, ceiling: int) -> None:
    for dimension in Dimension:
        with pytest.raises(InvalidRequest) as refused:
            await tenancy.create_org("acme", limits=Limits(**{dimension.field: ceiling}))
        assert refused.value.param == f"limits.{dimension.field}"


@pytest.mark.parametrize("share", [0, -1.0, 1.1, float("nan")])
async def test_a_burst_share_that_is_no_share_is_refused(tenancy: TenancyService, share: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await tenancy.create_org("acme", limits=Limits(requests_per_day=1, burst_share=share))
    assert refused.value.param == "limits.burst_share"


async def test_every_field_of_limits_is_kept(tenancy: TenancyService) -> None:
    every = Limits(**{dimension.field: n for n, dimension in enumerate(Dimension)}, burst_share=0.25, shadow=True)
    assert None not in msgspec.structs.astuple(every)
    org = await tenancy.create_org("acme", limits=every)
    assert (await tenancy.org(org.id)).limits == every


@pytest.mark.parametrize("ref", ["absent", "org_absent", "", "a\x00", "org_\x00", "%", "\ud800"])
async def test_an_unknown_org_is_not_found_whatever_its_name(tenancy: TenancyService, ref: str) -> None:
    await tenancy.create_org("acme")
    with pytest.raises(NotFound):
        await tenancy.org(ref)


async def test_only_what_is_given_changes_and_it_is_announced(tenancy: TenancyService, engine: AsyncEngine) -> None:
    org = await tenancy.create_org("acme", limits=LIMITS, allowed_models=["a"])
    suspended = await tenancy.change_org("acme", status=Status.SUSPENDED)
    assert (suspended.status, suspended.limits, suspended.allowed_models) == (Status.SUSPENDED, LIMITS, ("a",))
    freed = await tenancy.change_org(org.id, limits=NO_LIMITS, allowed_models=[], billing_plan="pro")
    assert (freed.status, freed.limits, freed.allowed_models) == (Status.SUSPENDED, NO_LIMITS, ())
    assert freed == await tenancy.org(org.id)
    assert await tenancy.change_org(org.id) == freed  # nothing given, nothing announced
    assert await announced(engine) == [("org", org.id)] * 3


async def test_orgs_are_listed_in_pages_in_order_of_creation(tenancy: TenancyService) -> None:
    created = [(await tenancy.create_org(f"org-{n}")).id for n in range(7)]
    pages, after = [], None
    while page := await tenancy.orgs(limit=3, after=after):
        pages.append([org.id for org in page])
        after = page[-1].id
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [org_id for page in pages for org_id in page] == sorted(created)


async def test_orgs_are_filtered_by_name_and_status(tenancy: TenancyService) -> None:
    for name in ("acme-1", "acme-2", "zeta"):
        await tenancy.create_org(name)
    await tenancy.change_org("acme-2", status=Status.SUSPENDED)
    assert {org.name for org in await tenancy.orgs(name_prefix="acme")} == {"acme-1", "acme-2"}
    assert [org.name for org in await tenancy.orgs(status=Status.SUSPENDED)] == ["acme-2"]
    assert await tenancy.orgs(name_prefix="%") == []
    assert await tenancy.orgs(name_prefix="_cme") == []


@pytest.mark.parametrize("limit", [0, -1, 501])
async def test_a_page_has_a_bound(tenancy: TenancyService, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        await tenancy.orgs(limit=limit)


# environments


async def test_an_environment_comes_back_as_it_was_created(tenancy: TenancyService) -> None:
    org = await tenancy.create_org("acme")
    env = await tenancy.create_environment("acme", "dev", region="eu", limits=LIMITS, allowed_models=["m"])
    assert env.org_id == org.id
    assert await tenancy.environment(org.id, env.id) == env
    assert await tenancy.environment("acme", "dev") == env
    assert await tenancy.environments("acme") == [env]


async def test_an_environment_s_name_is_taken_once_in_each_org(tenancy: TenancyService) -> None:
    await house(tenancy, "one")
    await house(tenancy, "two")
    with pytest.raises(Conflict):
        await tenancy.create_environment("one", "prod")
    with pytest.raises(NotFound):
        await tenancy.create_environment("absent", "prod")


async def test_another_org_s_environment_is_not_found(tenancy: TenancyService) -> None:
    one, _ = await house(tenancy, "one")
    _, of_two = await house(tenancy, "two")
    for attempt in (
        tenancy.environment(one.id, of_two.id),
        tenancy.change_environment(one.id, of_two.id, status=Status.SUSPENDED),
        tenancy.create_key(one.id, of_two.id, name="k"),
        tenancy.keys(org=one.id, env=of_two.id),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_environments_change_are_filtered_and_announced(tenancy: TenancyService, engine: AsyncEngine) -> None:
    org, prod = await house(tenancy)
    dev = await tenancy.create_environment("acme", "dev")
    changed = await tenancy.change_environment("acme", "dev", status=Status.SUSPENDED, limits=LIMITS)
    assert (changed.status, changed.limits) == (Status.SUSPENDED, LIMITS)
    assert await tenancy.environments(org.id, status=Status.ACTIVE) == [prod]
    assert await tenancy.environments(org.id, name_prefix="d") == [changed]
    assert (await announced(engine))[1:] == [("environment", env) for env in (prod.id, dev.id, dev.id)]


# keys


async def test_a_key_is_shown_once_and_stored_as_a_hash(tenancy: TenancyService, engine: AsyncEngine) -> None:
    org, env = await house(tenancy)
    created = await tenancy.create_key("acme", "prod", name=" ci ", role=Role.ADMIN, region="eu", limits=LIMITS)
    assert created.key.name == "ci"
    assert (created.key.org_id, created.key.env_id) == (org.id, env.id)
    assert await tenancy.key(created.key.id) == created.key
    assert created.token.startswith(created.key.prefix)
    assert created.token not in repr(created)
    async with reading(engine) as conn:
        row = (await conn.execute(select(api_keys))).one()
    assert bytes(row.key_hash) == HASH(created.token.encode())
    assert all(created.token not in str(value) for value in row)


async def test_keys_of_prod_are_live_and_others_test(tenancy: TenancyService) -> None:
    await house(tenancy)
    await tenancy.create_environment("acme", "dev")
    assert kind_of((await tenancy.create_key("acme", "prod", name="k")).token) is KeyKind.LIVE
    assert kind_of((await tenancy.create_key("acme", "dev", name="k")).token) is KeyKind.TEST


async def test_the_database_itself_keeps_keys_within_their_org(tenancy: TenancyService, engine: AsyncEngine) -> None:
    _, env = await house(tenancy, "one")
    other, _ = await house(tenancy, "two")
    created = await tenancy.create_key("one", "prod", name="k")
    async with reading(engine) as conn:
        row: dict[str, Any] = dict((await conn.execute(select(api_keys))).mappings().one())
    row |= {"id": "key_forged", "org_id": other.id, "key_hash": b"x", "env_id": env.id}
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        async with engine.begin() as conn:
            await conn.execute(insert(api_keys).values(row))
    assert [key.id for key in await tenancy.keys()] == [created.key.id]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "k", "expires_at": ManualClock().now()}, "expires_at"),
        ({"name": "k", "expires_at": ManualClock().now().replace(tzinfo=None, year=2030)}, "expires_at"),
        ({"name": "k", "token": "sk-mine"}, "token"),
    ],
)
async def test_a_key_against_the_rules_is_refused(tenancy: TenancyService, wrong: dict[str, Any], param: str) -> None:
    await house(tenancy)
    with pytest.raises(InvalidRequest) as refused:
        await tenancy.create_key("acme", "prod", **wrong)
    assert refused.value.param == param
    assert await tenancy.keys() == []


async def test_an_expiry_is_kept(tenancy: TenancyService, clock: ManualClock) -> None:
    await house(tenancy)
    expiry = clock.now() + timedelta(days=1)
    created = await tenancy.create_key("acme", "prod", name="k", expires_at=expiry)
    assert (await tenancy.key(created.key.id)).expires_at == expiry


async def test_a_key_is_suspended_taken_up_again_and_limited(tenancy: TenancyService, engine: AsyncEngine) -> None:
    await house(tenancy)
    key_id = (await tenancy.create_key("acme", "prod", name="k")).key.id
    assert (await tenancy.change_key(key_id, status=Status.SUSPENDED)).status is Status.SUSPENDED
    taken_up = await tenancy.change_key(key_id, status=Status.ACTIVE, limits=LIMITS)
    assert (taken_up.status, taken_up.limits) == (Status.ACTIVE, LIMITS)
    assert (await announced(engine))[2:] == [("key", key_id)] * 3


async def test_revoking_is_final_and_may_be_repeated(tenancy: TenancyService, engine: AsyncEngine) -> None:
    await house(tenancy)
    key_id = (await tenancy.create_key("acme", "prod", name="k")).key.id
    await tenancy.change_key(key_id, status=Status.REVOKED)
    before = await announced(engine)
    assert (await tenancy.change_key(key_id, status=Status.REVOKED)).status is Status.REVOKED
    for attempt in (
        tenancy.change_key(key_id, status=Status.ACTIVE),
        tenancy.change_key(key_id, limits=LIMITS),
        tenancy.rotate_key(key_id),
    ):
        with pytest.raises(Conflict, match="final"):
            await attempt
    stored = await tenancy.key(key_id)
    assert (stored.status, stored.limits) == (Status.REVOKED, NO_LIMITS)
    assert await announced(engine) == before


@pytest.mark.parametrize("key_id", ["key_absent", "", "\x00", "\ud800"])
async def test_an_unknown_key_is_not_found(tenancy: TenancyService, key_id: str) -> None:
    for attempt in (
        tenancy.key(KeyId(key_id)),
        tenancy.rotate_key(KeyId(key_id)),
        tenancy.change_key(KeyId(key_id), status=Status.REVOKED),
        tenancy.change_key(KeyId(key_id), limits=LIMITS),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_rotation_replaces_the_key_and_keeps_its_settings(tenancy: TenancyService) -> None:
    await house(tenancy)
    old = await tenancy.create_key("acme", "prod", name="k", role=Role.READ_ONLY, region="eu", limits=LIMITS)
    new = await tenancy.rotate_key(old.key.id)
    assert new.token != old.token
    assert kind_of(new.token) is KeyKind.LIVE
    assert (new.key.name, new.key.role, new.key.region, new.key.limits) == ("k", Role.READ_ONLY, "eu", LIMITS)
    assert (await tenancy.key(old.key.id)).status is Status.REVOKED
    assert (await tenancy.key(new.key.id)).status is Status.ACTIVE


async def test_of_two_rotations_at_once_one_succeeds(tenancy: TenancyService) -> None:
    await house(tenancy)
    key_id = (await tenancy.create_key("acme", "prod", name="k")).key.id
    outcomes = await asyncio.gather(*(tenancy.rotate_key(key_id) for _ in range(3)), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Conflict", "RotatedKey"]
    assert len(await tenancy.keys(status=Status.ACTIVE)) == 1


async def test_keys_are_listed_with_filters_pages_and_last_use(tenancy: TenancyService, engine: AsyncEngine) -> None:
    await house(tenancy, "one")
    await house(tenancy, "two")
    await tenancy.create_environment("one", "dev")
    a = (await tenancy.create_key("one", "prod", name="ci-a")).key.id
    b = (await tenancy.create_key("one", "dev", name="ci-b")).key.id
    c = (await tenancy.create_key("two", "prod", name="app")).key.id
    await tenancy.change_key(b, status=Status.SUSPENDED)
    async with engine.begin() as conn:
        rows = [usage_row("r1", key_id=a), usage_row("r2", key_id=a, timestamp=ARRIVAL - timedelta(days=1))]
        await conn.execute(insert(usage_records), rows)

    async def ids(**filters: Any) -> set[str]:
        return {key.id for key in await tenancy.keys(**filters)}

    assert await ids() == {a, b, c}
    assert await ids(org="one") == {a, b}
    assert await ids(org="one", env="dev") == {b}
    assert await ids(status=Status.SUSPENDED) == {b}
    assert await ids(name_prefix="ci-") == {a, b}
    first = await tenancy.keys(limit=2)
    assert {key.id for key in first} | await ids(after=first[-1].id) == {a, b, c}
    assert {key.id: key.last_used_at for key in await tenancy.keys()} == {a: ARRIVAL, b: None, c: None}
    with pytest.raises(InvalidRequest):
        await tenancy.keys(env="dev")


async def test_a_key_is_found_by_its_plain_text(tenancy: TenancyService) -> None:
    await house(tenancy)
    created = await tenancy.create_key("acme", "prod", name="k")
    assert await tenancy.key_of_token(created.token) == created.key
    assert await tenancy.key_of_token(created.token[:-1]) is None


async def test_the_same_key_is_stored_once(tenancy: TenancyService) -> None:
    await house(tenancy)
    created = await tenancy.create_key("acme", "prod", name="k")
    with pytest.raises(Conflict):
        await tenancy.create_key("acme", "prod", name="again", token=created.token)
