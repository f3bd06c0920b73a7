"""Every `ResourceAllocator` alike: in memory and in the database, on both databases, also when many ask at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import func, select

from crosslogic.capacity.allocations.memory import MemoryAllocator
from crosslogic.capacity.allocations.model import NOTHING, Resources, Totals
from crosslogic.capacity.allocations.null import NullAllocator
from crosslogic.capacity.allocations.ports import ResourceAllocator
from crosslogic.capacity.allocations.sql import SqlAllocator
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import AllocationId, OrgId
from crosslogic.store.engine import create_engine, reading
from crosslogic.store.tables import resource_allocations
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.contract.test_api_admin import HASH

MB = 1000
TOTALS = Totals(gpu_memory_mb=100 * MB, cpu_cores=8.0, concurrency=50)


class Rig:
    """An allocator, its clock, and two orgs."""

    def __init__(self, allocator: ResourceAllocator, clock: ManualClock, orgs: tuple[OrgId, OrgId]) -> None:
        self.allocator = allocator
        self.clock = clock
        self.one, self.two = orgs


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def rig_url(request: pytest.FixtureRequest) -> str | None:
    """Where its allocations are; None: in memory."""
    if request.param == "memory":
        return None
    name = "sqlite_url" if request.param == "sqlite" else "postgres_database_url"
    return str(request.getfixturevalue(name))


@pytest_asyncio.fixture
async def rig(rig_url: str | None) -> AsyncIterator[Rig]:
    clock = ManualClock()
    if rig_url is None:
        yield Rig(MemoryAllocator(lambda: TOTALS, clock), clock, (OrgId("org_1"), OrgId("org_2")))
        return
    engine = create_engine(rig_url, pool_size=10)
    tenancy = TenancyService(TenancySql(engine), HASH, clock)
    orgs = ((await tenancy.create_org("one")).id, (await tenancy.create_org("two")).id)
    yield Rig(SqlAllocator(engine, HASH, clock, TOTALS, 1), clock, orgs)
    await engine.dispose()


def memory(mb: int) -> Resources:
    return Resources(gpu_memory_mb=mb)


async def test_what_is_allocated_is_gone_until_it_is_released(rig: Rig) -> None:
    made = await rig.allocator.allocate(rig.one, Resources(80 * MB, 2.5, 10), lasts_s=60)
    standing = await rig.allocator.available(rig.two)
    assert standing.available == Totals(20 * MB, 5.5, 40)
    assert (await rig.allocator.available(rig.one)).allocated == made.resources
    with pytest.raises(Conflict, match="only 20000 MB"):
        await rig.allocator.allocate(rig.two, memory(20 * MB + 1), lasts_s=60)
    assert await rig.allocator.release(made.id) == made
    with pytest.raises(NotFound):
        await rig.allocator.release(made.id)
    await rig.allocator.allocate(rig.two, memory(100 * MB), lasts_s=60)


async def test_each_kind_of_resource_is_counted_and_cores_in_fractions(rig: Rig) -> None:
    for _ in range(80):
        await rig.allocator.allocate(rig.one, Resources(cpu_cores=0.1), lasts_s=60)
    with pytest.raises(Conflict, match="CPU cores"):
        await rig.allocator.allocate(rig.one, Resources(cpu_cores=0.1), lasts_s=60)
    await rig.allocator.allocate(rig.one, Resources(concurrency=50), lasts_s=60)
    with pytest.raises(Conflict, match="requests at once"):
        await rig.allocator.allocate(rig.two, Resources(concurrency=1), lasts_s=60)


async def test_an_allocation_expires_by_time_alone_and_is_swept_later(rig: Rig) -> None:
    made = await rig.allocator.allocate(rig.one, memory(100 * MB), lasts_s=10)
    rig.clock.advance(9.9)
    with pytest.raises(Conflict):
        await rig.allocator.allocate(rig.two, memory(1), lasts_s=10)
    rig.clock.advance(0.1)
    await rig.allocator.allocate(rig.two, memory(100 * MB), lasts_s=10)
    assert [each.org_id for each in await rig.allocator.allocations()] == [rig.two]
    with pytest.raises(NotFound):
        await rig.allocator.release(made.id)
    assert await rig.allocator.sweep() == 1
    assert await rig.allocator.sweep() == 0


async def test_a_reserve_can_always_be_taken_in_full_whatever_others_do(rig: Rig) -> None:
    await rig.allocator.reserve(rig.one, memory(60 * MB))
    with pytest.raises(Conflict):
        await rig.allocator.allocate(rig.two, memory(40 * MB + 1), lasts_s=60)
    await rig.allocator.allocate(rig.two, memory(40 * MB), lasts_s=60)
    standing = await rig.allocator.available(rig.one)
    assert (standing.reserved, standing.available.gpu_memory_mb) == (memory(60 * MB), 60 * MB)
    await rig.allocator.allocate(rig.one, memory(60 * MB), lasts_s=60)
    assert (await rig.allocator.available(rig.one)).available.gpu_memory_mb == 0


async def test_more_is_not_reserved_than_the_others_leave(rig: Rig) -> None:
    await rig.allocator.reserve(rig.one, memory(60 * MB))
    with pytest.raises(Conflict, match="only 40000 MB"):
        await rig.allocator.reserve(rig.two, memory(40 * MB + 1))
    await rig.allocator.reserve(rig.one, memory(70 * MB))  # in the place of the one before
    await rig.allocator.reserve(rig.two, memory(30 * MB))
    await rig.allocator.reserve(rig.one, NOTHING)
    assert (await rig.allocator.available(rig.two)).available.gpu_memory_mb == 100 * MB


async def test_a_reserve_ends_on_time(rig: Rig) -> None:
    await rig.allocator.reserve(rig.one, memory(100 * MB), expires_at=rig.clock.now() + timedelta(seconds=10))
    with pytest.raises(Conflict):
        await rig.allocator.allocate(rig.two, memory(1), lasts_s=60)
    rig.clock.advance(10)
    await rig.allocator.allocate(rig.two, memory(100 * MB), lasts_s=60)
    assert await rig.allocator.sweep() == 1
    with pytest.raises(InvalidRequest):
        await rig.allocator.reserve(rig.one, memory(1), expires_at=rig.clock.now())


@pytest.mark.parametrize(
    ("wanted", "lasts_s"),
    [(NOTHING, 60), (memory(-1), 60), (memory(10**13), 60), (memory(1), 0), (memory(1), -1), (memory(1), 1e12)],
)
async def test_what_makes_no_sense_is_refused(rig: Rig, wanted: Resources, lasts_s: float) -> None:
    with pytest.raises(InvalidRequest):
        await rig.allocator.allocate(rig.one, wanted, lasts_s=lasts_s)


async def test_lists_are_filtered_and_paged(rig: Rig) -> None:
    made = []
    for number in range(4):
        made.append((await rig.allocator.allocate((rig.one, rig.two)[number % 2], memory(1), lasts_s=60)).id)
        await asyncio.sleep(0.002)  # ids sort by the millisecond
    assert [each.id for each in await rig.allocator.allocations(limit=3)] == made[:3]
    assert [each.id for each in await rig.allocator.allocations(after=made[2])] == made[3:]
    assert [each.id for each in await rig.allocator.allocations(org_id=rig.two)] == made[1::2]


async def test_many_who_ask_at_once_never_get_more_than_there_is(rig: Rig) -> None:
    async def one(number: int) -> bool:
        try:
            await rig.allocator.allocate((rig.one, rig.two)[number % 2], memory(30 * MB), lasts_s=60)
        except Conflict:
            return False
        return True

    granted = await asyncio.gather(*(one(number) for number in range(20)))
    assert sum(granted) == 3


async def test_several_processes_on_one_database_never_give_more_than_there_is(postgres_database_url: str) -> None:
    """Each with connections of its own, allocating and releasing as they can; what stands is looked at all the time."""
    clock = ManualClock()
    engines = [create_engine(postgres_database_url, pool_size=3) for _ in range(4)]
    org = (await TenancyService(TenancySql(engines[0]), HASH, clock).create_org("one")).id
    allocators = [SqlAllocator(engine, HASH, clock, Totals(gpu_memory_mb=100), 1) for engine in engines]
    most_seen = refused = 0

    async def churn(allocator: SqlAllocator, number: int) -> None:
        nonlocal refused
        for step in range(12):
            try:
                made = await allocator.allocate(org, memory(17 + number + step), lasts_s=60)
            except Conflict:
                refused += 1
                continue
            await asyncio.sleep(0)
            await allocator.release(made.id)

    async def watch(stop: asyncio.Event) -> None:
        nonlocal most_seen
        query = select(func.coalesce(func.sum(resource_allocations.c.gpu_memory_mb), 0))
        while not stop.is_set():
            async with reading(engines[0]) as conn:
                most_seen = max(most_seen, int((await conn.execute(query)).scalar_one()))
            await asyncio.sleep(0.001)

    stop = asyncio.Event()
    watching = asyncio.create_task(watch(stop))
    await asyncio.gather(*(churn(allocator, n) for allocator in allocators for n in range(3)))
    stop.set()
    await watching
    assert refused
    assert 17 < most_seen <= 100
    assert (await allocators[0].available(org)).allocated == NOTHING
    for engine in engines:
        await engine.dispose()


async def test_what_nodes_have_is_what_there_is_to_share(database_url: str) -> None:
    clock = ManualClock()
    engine = create_engine(database_url)
    org = (await TenancyService(TenancySql(engine), HASH, clock).create_org("one")).id
    registry = Registry(engine, clock)
    for port, vram_mb in ((1, 80_000), (2, 40_000), (3, None)):
        await registry.register(Registration(f"http://10.1.2.3:{port}", ("m",), vram_total_mb=vram_mb))
    allocator = SqlAllocator(engine, HASH, clock, Totals(), 16)
    assert (await allocator.available(org)).available == Totals(120_000, None, 48)
    with pytest.raises(Conflict):
        await allocator.reserve(org, memory(120_001))
    await allocator.reserve(org, Resources(120_000, 1e6, 48))
    with pytest.raises(InvalidRequest, match="no such org"):
        await allocator.allocate(OrgId("org_absent"), Resources(cpu_cores=1.0), lasts_s=60)
    await engine.dispose()


@pytest.mark.parametrize(
    "ask",
    [
        lambda house: house.allocate(OrgId("o"), memory(1), lasts_s=60),
        lambda house: house.release(AllocationId("a")),
        lambda house: house.available(OrgId("o")),
        lambda house: house.reserve(OrgId("o"), memory(1)),
    ],
)
async def test_where_it_is_off_the_refusal_says_what_to_set(ask: Callable[[ResourceAllocator], object]) -> None:
    with pytest.raises(Conflict, match=r"resources\.enable_reservations"):
        await ask(NullAllocator())  # type: ignore[misc]
    assert (await NullAllocator().allocations(), await NullAllocator().sweep()) == ([], 0)
