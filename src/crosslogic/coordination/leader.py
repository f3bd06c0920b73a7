"""Leads while its lease holds, and knows by itself when it no longer does.

Invariant: `leads` is never true in two processes at once, as long as their clocks run equally fast: a lease is
counted from before it was asked for, and given up `MARGIN` of its time early. A process that was frozen and wakes up
finds its time over before it does anything else.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from random import Random

from crosslogic.coordination.ports import LeaseStore
from crosslogic.kernel.clock import Clock

TTL_S = 6.0  # a leader that dies is followed within this and one round of asking: 8 s
MARGIN = 0.1  # of the time to live: for clocks that run unequally fast
ROUNDS = 3  # how often a leader keeps its lease within its time to live

_log = logging.getLogger(__name__)


class Leader:
    """One candidate. `on_change(True)` is told when it begins to lead, `on_change(False)` when it ends."""

    def __init__(
        self,
        store: LeaseStore,
        name: str,
        holder: str,
        clock: Clock,
        random: Random,
        *,
        ttl_s: float = TTL_S,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        self.name = name
        self.holder = holder
        self.fence = 0
        self._store = store
        self._now_s = clock.monotonic_s
        self._random = random
        self._ttl_s = ttl_s
        self._on_change = on_change
        self._until_s = float("-inf")
        self._told = False
        self._failing = False

    @property
    def leads(self) -> bool:
        """Ask right before each thing that only a leader may do."""
        return self._now_s() < self._until_s

    async def run(self) -> None:
        """Ask for the lease, keep it, and give it back when cancelled."""
        try:
            while True:
                await self.ask()
                # Spread, so that candidates who were started together do not ask together for ever.
                await asyncio.sleep(self._ttl_s / ROUNDS * self._random.uniform(0.8, 1.0))
        finally:
            await self._give_back()

    async def ask(self) -> bool:
        """One round: take the lease or keep it; whether we lead after it."""
        asked_s = self._now_s()
        try:
            async with asyncio.timeout(self._ttl_s / ROUNDS):
                fence = await self._store.acquire(self.name, self.holder, self._ttl_s)
        except Exception as error:
            # Whatever is wrong with the store: what we hold, we hold until its time is over, and no longer.
            if not self._failing:
                self._failing = True
                _log.warning("the store of leases does not answer (%s); trying on", type(error).__name__)
        else:
            self._failing = False
            if fence is None:
                self._until_s = float("-inf")
            else:
                self.fence = fence
                self._until_s = asked_s + self._ttl_s * (1.0 - MARGIN)
        self._tell()
        return self.leads

    def _tell(self) -> None:
        leads = self.leads
        if leads is self._told:
            return
        self._told = leads
        _log.info("this process %s %s", "leads" if leads else "no longer leads", self.name)
        if self._on_change is not None:
            self._on_change(leads)

    async def _give_back(self) -> None:
        held, self._until_s = self.leads, float("-inf")
        self._tell()
        if held:
            with contextlib.suppress(Exception):  # it would expire by itself
                async with asyncio.timeout(1.0):
                    await self._store.release(self.name, self.holder)
