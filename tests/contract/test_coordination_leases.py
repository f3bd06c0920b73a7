"""A lease has one holder, whoever keeps it: the database, etcd, Kubernetes."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from crosslogic.coordination.etcd import EtcdLeases
from crosslogic.coordination.kubernetes import KubernetesLeases
from crosslogic.coordination.ports import LeaseStore
from crosslogic.coordination.sql import SqlLeases
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import Unavailable
from crosslogic.store.engine import create_engine
from tests.etcd_server import etcd_program, etcd_server
from tests.lease_api import TOKEN, lease_api

TTL_S = 2.0  # etcd counts whole seconds, and keeps none shorter than two
HELD_S = 60.0  # longer than any of these tests


@pytest.fixture(scope="session")
def etcd_url() -> Iterator[str]:
    program = etcd_program()
    if program is None:
        pytest.skip("there is no etcd here: tools/etcd/install.sh .etcd")
    with etcd_server(program) as url:
        yield url


@pytest.fixture(scope="session")
def kubernetes_url() -> Iterator[str]:
    with lease_api() as url:
        yield url


@pytest.fixture(params=["sqlite_url", "postgres_database_url", "etcd_url", "kubernetes_url"])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    """What keeps the leases, and where it is."""
    return request.param, request.getfixturevalue(request.param)


@pytest_asyncio.fixture
async def store(place: tuple[str, str], tmp_path: Path) -> AsyncIterator[LeaseStore]:
    kind, url = place
    async with AsyncExitStack() as stack:
        if kind == "etcd_url":
            store: LeaseStore = EtcdLeases((url,))
        elif kind == "kubernetes_url":
            token_file = tmp_path / "token"
            token_file.write_text(TOKEN)
            store = KubernetesLeases(SystemClock(), namespace="cloud", url=url, token_file=token_file)
        else:
            engine = create_engine(url)
            stack.push_async_callback(engine.dispose)
            store = SqlLeases(engine)
        stack.push_async_callback(store.close)
        yield store


@pytest.fixture
def name() -> str:
    return f"lease-{secrets.token_hex(4)}"


async def test_the_first_has_it_and_keeps_it(store: LeaseStore, name: str) -> None:
    fence = await store.acquire(name, "a", HELD_S)
    assert fence is not None
    assert await store.acquire(name, "b", HELD_S) is None
    assert await store.acquire(name, "a", HELD_S) == fence
    assert await store.holder(name) == "a"


async def test_of_many_who_ask_at_once_one_gets_it(store: LeaseStore, name: str) -> None:
    answers = await asyncio.gather(*(store.acquire(name, f"candidate-{n}", HELD_S) for n in range(10)))
    assert sum(fence is not None for fence in answers) == 1


async def test_what_is_given_back_is_free_and_its_fence_rises(store: LeaseStore, name: str) -> None:
    first = await store.acquire(name, "a", HELD_S)
    await store.release(name, "a")
    assert await store.holder(name) is None
    second = await store.acquire(name, "b", HELD_S)
    assert first is not None
    assert second is not None
    assert second > first


async def test_giving_back_what_somebody_else_has_changes_nothing(store: LeaseStore, name: str) -> None:
    await store.acquire(name, "a", HELD_S)
    await store.release(name, "b")
    assert await store.holder(name) == "a"


async def test_who_no_longer_keeps_it_loses_it_and_is_told(store: LeaseStore, name: str) -> None:
    first = await store.acquire(name, "a", TTL_S)
    second = None
    async with asyncio.timeout(4 * TTL_S):
        while second is None:
            await asyncio.sleep(0.1)
            second = await store.acquire(name, "b", HELD_S)
    assert first is not None
    assert second > first
    assert await store.acquire(name, "a", HELD_S) is None
    assert await store.holder(name) == "b"


async def test_leases_of_different_names_have_nothing_to_do_with_each_other(store: LeaseStore, name: str) -> None:
    assert await store.acquire(name, "a", HELD_S) is not None
    assert await store.acquire(f"{name}-other", "b", HELD_S) is not None


async def test_an_etcd_that_is_away_is_unavailable_and_another_endpoint_takes_over(etcd_url: str, name: str) -> None:
    nowhere = "http://127.0.0.1:1"
    alone = EtcdLeases((nowhere,))
    with pytest.raises(Unavailable):
        await alone.acquire(name, "a", HELD_S)
    either = EtcdLeases((nowhere, etcd_url))
    assert await either.acquire(name, "a", HELD_S) is not None
    await alone.close()
    await either.close()


async def test_a_kubernetes_that_does_not_know_us_says_which_right_is_missing(
    kubernetes_url: str, name: str, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("of somebody else")
    store = KubernetesLeases(SystemClock(), namespace="cloud", url=kubernetes_url, token_file=token_file)
    with pytest.raises(Unavailable, match=r"leases\.coordination\.k8s\.io"):
        await store.acquire(name, "a", HELD_S)
    await store.close()
