"""How a gateway learns what is reserved, on both databases."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.capacity.guarantees import Guarantees
from crosslogic.capacity.service import CapacityService
from crosslogic.capacity.sync import CapacitySync
from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.store.changes import Following
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.contract.test_api_admin import HASH


class Gateway:
    """What a gateway worker knows."""

    def __init__(self, engine: AsyncEngine, clock: ManualClock | SystemClock) -> None:
        self.guarantees = Guarantees(lambda: clock.now().timestamp())
        self.told = 0
        self.capacity = CapacitySync(engine, self.guarantees, clock, self._tell)
        self.sync = Following(engine, [self.capacity])

    def _tell(self) -> None:
        self.told += 1

    def units(self, org_id: OrgId) -> int:
        return self.guarantees.tokens_per_s("m", org_id)


@pytest_asyncio.fixture
async def org_id(engine: AsyncEngine) -> AsyncIterator[OrgId]:
    yield (await TenancyService(TenancySql(engine), HASH, ManualClock()).create_org("acme")).id


async def test_what_is_reserved_changed_and_cancelled_arrives(engine: AsyncEngine, org_id: OrgId) -> None:
    clock = ManualClock()
    service = CapacityService(engine, HASH, clock)
    before = (await service.reserve(org_id, "m", 5, lasts=timedelta(hours=1), force=True)).reservation
    gateway = Gateway(engine, clock)
    await gateway.sync.start()
    assert gateway.units(org_id) == 5
    await service.reserve(org_id, "m", 7, lasts=timedelta(days=1), force=True)
    await gateway.sync.poll()
    assert gateway.units(org_id) == 12
    await service.change(before.id, units=6, force=True)
    await gateway.sync.poll()
    assert gateway.units(org_id) == 13
    await service.cancel(before.id)
    await gateway.sync.poll()
    assert gateway.units(org_id) == 7
    assert gateway.told == 4
    clock.advance(86_401)
    assert gateway.units(org_id) == 0


async def test_a_change_is_in_force_within_a_second_and_an_end_on_time_without_any_request(
    engine: AsyncEngine, org_id: OrgId
) -> None:
    clock = SystemClock()
    service = CapacityService(engine, HASH, clock)
    gateway = Gateway(engine, clock)
    await gateway.sync.start()
    following = asyncio.gather(gateway.sync.run(), gateway.capacity.follow_time())
    try:
        ends_at = clock.now() + timedelta(seconds=1.5)
        made = (await service.reserve(org_id, "m", 5, expires_at=ends_at, force=True)).reservation
        async with asyncio.timeout(1.0):
            while not gateway.units(org_id):
                await asyncio.sleep(0.02)
        told = gateway.told
        await asyncio.sleep(max(0.0, (ends_at - clock.now()).total_seconds()))
        async with asyncio.timeout(1.0):
            while gateway.told == told:  # who dedicates nodes must hear of the end
                await asyncio.sleep(0.02)
        assert not gateway.guarantees
        assert (await service.reservation(made.id)).expires_at == ends_at
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


async def test_a_scheduled_one_waits_for_its_start(engine: AsyncEngine, org_id: OrgId) -> None:
    clock = ManualClock()
    service = CapacityService(engine, HASH, clock)
    start = clock.now() + timedelta(hours=1)
    await service.reserve(org_id, "m", 5, starts_at=start, lasts=timedelta(hours=1), force=True)
    gateway = Gateway(engine, clock)
    await gateway.sync.start()
    assert (gateway.units(org_id), gateway.guarantees.next_change_s) == (0, start.timestamp())
    clock.advance(3600)
    assert (gateway.units(org_id), gateway.guarantees.dedicated_nodes()) == (5, dict[NodeId, OrgId]())
