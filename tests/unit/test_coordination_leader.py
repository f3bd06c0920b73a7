"""A leader knows by itself when its time is over: two never lead at once, whatever happens to the store."""

import asyncio
from random import Random

import pytest

from crosslogic.coordination.leader import MARGIN, Leader
from crosslogic.kernel.clock import ManualClock

TTL_S = 6.0


class ClockedLeases:
    """Leases on the test's own clock; `away` makes every call fail."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._held: tuple[str, float] | None = None
        self._fence = 0
        self.away = False

    async def acquire(self, name: str, holder: str, ttl_s: float) -> int | None:
        if self.away:
            raise OSError("away")
        now_s = self._clock.monotonic_s()
        if self._held is None or self._held[1] <= now_s:
            self._fence += 1
        elif self._held[0] != holder:
            return None
        self._held = (holder, now_s + ttl_s)
        return self._fence

    async def release(self, name: str, holder: str) -> None:
        if self._held is not None and self._held[0] == holder:
            self._held = None

    async def holder(self, name: str) -> str | None:
        return self._held[0] if self._held is not None else None

    async def close(self) -> None:
        self._held = None


class Two:
    """Two candidates for one lease, and what the first was told."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = ClockedLeases(self.clock)
        self.told: list[bool] = []
        self.first, self.second = (
            Leader(self.store, "control", holder, self.clock, Random(1), ttl_s=TTL_S, on_change=tell)
            for holder, tell in (("first", self.told.append), ("second", None))
        )


async def test_one_leads_and_the_other_waits() -> None:
    two = Two()
    assert await two.first.ask()
    assert not await two.second.ask()
    assert two.told == [True]


async def test_a_dead_leader_is_followed_when_its_time_is_over() -> None:
    two = Two()
    await two.first.ask()
    two.clock.advance(TTL_S)
    assert not two.first.leads
    assert await two.second.ask()
    assert two.second.fence > two.first.fence


async def test_it_stops_leading_before_the_store_lets_anybody_follow() -> None:
    two = Two()
    await two.first.ask()
    two.clock.advance(TTL_S * (1.0 - MARGIN) - 0.01)
    assert two.first.leads
    two.clock.advance(0.02)
    assert not two.first.leads
    assert not await two.second.ask()


async def test_who_was_frozen_wakes_up_without_the_lead() -> None:
    two = Two()
    await two.first.ask()
    two.clock.advance(60.0)
    await two.second.ask()
    assert not two.first.leads  # before it has asked anybody
    assert not await two.first.ask()
    assert two.told == [True, False]


async def test_a_store_that_is_away_for_a_moment_costs_nobody_the_lead_and_for_longer_everybody() -> None:
    two = Two()
    await two.first.ask()
    two.store.away = True
    two.clock.advance(TTL_S / 3)
    assert await two.first.ask()
    two.clock.advance(TTL_S)
    assert not await two.first.ask()
    assert not await two.second.ask()
    two.store.away = False
    assert await two.second.ask()


async def test_a_leader_that_ends_gives_the_lease_back() -> None:
    two = Two()
    task = asyncio.create_task(two.first.run())
    await asyncio.sleep(0.01)
    assert two.first.leads
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not two.first.leads
    assert await two.second.ask()
