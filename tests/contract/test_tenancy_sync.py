"""A directory follows the database: everything at start, every change after, and the first start of all."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.kernel.ids import KeyId
from crosslogic.limits.model import Layer, Limits, Scope
from crosslogic.store.changes import Following, append_change
from crosslogic.tenancy import keys
from crosslogic.tenancy.bootstrap import ensure_bootstrap
from crosslogic.tenancy.directory import Directory
from crosslogic.tenancy.model import Status
from crosslogic.tenancy.service import CreatedKey, TenancyService
from crosslogic.tenancy.sql import TenancySql
from crosslogic.tenancy.sync import DirectorySync

HASH = keys.key_hasher()


@pytest.fixture
def tenancy(engine: AsyncEngine) -> TenancyService:
    return TenancyService(TenancySql(engine), HASH, ManualClock())


@pytest.fixture
def directory() -> Directory:
    return Directory(HASH)


@pytest_asyncio.fixture
async def key(tenancy: TenancyService) -> CreatedKey:
    await tenancy.create_org("acme")
    await tenancy.create_environment("acme", "prod")
    return await tenancy.create_key("acme", "prod", name="first")


@pytest_asyncio.fixture
async def sync(engine: AsyncEngine, directory: Directory, key: CreatedKey) -> AsyncIterator[Following]:
    sync = Following(engine, [DirectorySync(engine, directory)])
    await sync.start()
    yield sync


def refusal(directory: Directory, created: CreatedKey) -> str | None:
    principal = directory.resolve(created.token.encode())
    assert principal is not None
    return principal.refusal


async def test_what_was_there_at_the_start_resolves(sync: Following, directory: Directory, key: CreatedKey) -> None:
    principal = directory.resolve(key.token.encode())
    assert principal is not None
    assert (principal.org_name, principal.env_name, principal.key_id) == ("acme", "prod", key.key.id)
    assert await sync.poll() == 0


async def test_all_keys_are_loaded_over_many_pages(
    engine: AsyncEngine, directory: Directory, tenancy: TenancyService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crosslogic.tenancy.sync._FIRST_PAGE", 3)
    await tenancy.create_org("acme")
    await tenancy.create_environment("acme", "prod")
    created = [await tenancy.create_key("acme", "prod", name=str(n)) for n in range(7)]
    await Following(engine, [DirectorySync(engine, directory)]).start()
    assert all(refusal(directory, key) is None for key in created)
    assert len(directory) == 7


async def test_every_kind_of_change_arrives(
    sync: Following, directory: Directory, tenancy: TenancyService, key: CreatedKey
) -> None:
    await tenancy.change_key(key.key.id, status=Status.SUSPENDED)
    await sync.poll()
    assert refusal(directory, key) == "key_suspended"
    await tenancy.change_environment("acme", "prod", status=Status.SUSPENDED)
    await sync.poll()
    assert refusal(directory, key) == "tenant_suspended"
    await tenancy.change_environment("acme", "prod", status=Status.ACTIVE)
    org = await tenancy.change_org("acme", limits=Limits(concurrency=2))
    new = await tenancy.rotate_key(key.key.id)
    await sync.poll()
    assert refusal(directory, key) == "key_revoked"
    principal = directory.resolve(new.token.encode())
    assert principal is not None
    assert principal.refusal == "key_suspended"  # rotation does not lift a suspension
    assert principal.scopes == (Scope(Layer.ORG, org.id, Limits(concurrency=2)),)


async def test_a_new_tenant_arrives_whole(sync: Following, directory: Directory, tenancy: TenancyService) -> None:
    await tenancy.create_org("zeta")
    await tenancy.create_environment("zeta", "dev")
    created = await tenancy.create_key("zeta", "dev", name="k")
    await sync.poll()
    assert refusal(directory, created) is None


async def test_a_key_that_is_gone_from_the_database_is_nobody(
    sync: Following, directory: Directory, key: CreatedKey, engine: AsyncEngine
) -> None:
    async with engine.begin() as conn:
        await conn.execute(text("DELETE FROM api_keys"))
        await append_change(conn, "key", KeyId(key.key.id))
    await sync.poll()
    assert directory.resolve(key.token.encode()) is None


async def test_after_a_gap_everything_is_loaded_anew(
    sync: Following, directory: Directory, tenancy: TenancyService, key: CreatedKey, engine: AsyncEngine
) -> None:
    await tenancy.change_key(key.key.id, status=Status.REVOKED)
    async with engine.begin() as conn:  # as pruning does to one who was away for too long
        await conn.execute(text("DELETE FROM changes WHERE seq < (SELECT max(seq) FROM changes)"))
    await sync.poll()
    assert refusal(directory, key) == "key_revoked"


async def test_a_revocation_takes_effect_within_a_second(
    engine: AsyncEngine, directory: Directory, tenancy: TenancyService, key: CreatedKey
) -> None:
    sync = Following(engine, [DirectorySync(engine, directory)])  # with the interval of production
    await sync.start()
    running = asyncio.create_task(sync.run())
    await asyncio.sleep(0.1)
    await tenancy.change_key(key.key.id, status=Status.REVOKED)
    revoked = time.monotonic()
    while refusal(directory, key) is None:
        assert time.monotonic() - revoked < 5.0  # how soon it is on a free machine: tests/flow/test_suspension.py
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


# the first start


async def test_the_first_start_makes_a_tenant_whose_key_works(
    engine: AsyncEngine, directory: Directory, tenancy: TenancyService
) -> None:
    made = await ensure_bootstrap(tenancy)
    await Following(engine, [DirectorySync(engine, directory)]).start()
    principal = directory.resolve(made.token.encode())
    assert principal is not None
    assert (principal.org_name, principal.refusal) == ("default", None)
    assert [env.name for env in made.environments] == ["dev", "staging", "prod"]
    assert made.token not in repr(made)


async def test_a_second_start_keeps_what_there_is(tenancy: TenancyService) -> None:
    first = await ensure_bootstrap(tenancy)
    second = await ensure_bootstrap(tenancy, first.token)
    assert (second.org, second.environments, second.token) == (first.org, first.environments, first.token)
    assert len(await tenancy.keys()) == 1


async def test_a_remembered_key_survives_the_loss_of_the_database(tenancy: TenancyService) -> None:
    remembered = keys.generate(keys.KeyKind.TEST)
    assert (await ensure_bootstrap(tenancy, remembered)).token == remembered
    assert await tenancy.key_of_token(remembered) is not None


@pytest.mark.parametrize("remembered", ["", "garbage", "clsk_test_" + "0" * 33])
async def test_a_damaged_memory_is_replaced_by_a_new_key(tenancy: TenancyService, remembered: str) -> None:
    made = await ensure_bootstrap(tenancy, remembered)
    assert made.token != remembered
    assert keys.looks_valid(made.token)


async def test_a_revoked_first_key_is_followed_by_a_new_one(tenancy: TenancyService) -> None:
    first = await ensure_bootstrap(tenancy)
    (key,) = await tenancy.keys()
    await tenancy.change_key(key.id, status=Status.REVOKED)
    second = await ensure_bootstrap(tenancy, first.token)
    assert second.token != first.token
    assert len(await tenancy.keys(status=Status.ACTIVE)) == 1


async def test_the_system_clock_serves_as_well(engine: AsyncEngine) -> None:
    tenancy = TenancyService(TenancySql(engine), HASH, SystemClock())
    made = await ensure_bootstrap(tenancy)
    assert made.org == await tenancy.org("default")
