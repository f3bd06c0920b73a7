"""Tells the limits what the ledger knows of the month's spend, off the request path; writes down which caps were met.

Invariants: where a month's budget stands, no request is admitted at the start before the ledger was asked; so neither
a restart nor a Redis that lost its memory gives back what was spent. While the database is away, counting goes on.
"""

import asyncio
import logging
from collections import defaultdict

from crosslogic.kernel.clock import Clock
from crosslogic.limits.budget import month_at
from crosslogic.limits.model import Layer
from crosslogic.limits.ports import Limiter
from crosslogic.metering.spend import CapHit, SpendBook, month_of
from crosslogic.store.engine import DATABASE_ERRORS
from crosslogic.tenancy.directory import Directory

TICK_S = 0.2
INTERVAL_S = 2.0

_log = logging.getLogger(__name__)


class SpendFloors:
    """One for each gateway process."""

    def __init__(
        self, spend: SpendBook, directory: Directory, limiter: Limiter, clock: Clock, interval_s: float = INTERVAL_S
    ) -> None:
        self._spend = spend
        self._directory = directory
        self._limiter = limiter
        self._clock = clock
        self._interval_s = interval_s
        self._met: set[CapHit] = set()
        self._seen_version = -1
        self._read_s = float("-inf")
        self._failing = False

    async def start(self) -> None:
        """Before anything is served. Raises `store.engine.DATABASE_ERRORS`."""
        await self._read()

    def met(self, layer: Layer, entity_id: str) -> None:
        """A month's cap of this org or environment has refused a request. Returns at once."""
        self._met.add(CapHit(layer.value, entity_id))

    async def run(self) -> None:
        """Until cancelled. A changed budget is known within a fraction of a second, new spend within `interval_s`."""
        while True:
            await asyncio.sleep(TICK_S)
            due = self._clock.monotonic_s() - self._read_s >= self._interval_s
            try:
                if self._met:
                    await self._report()
                if due or self._directory.version != self._seen_version:
                    await self._read()
                self._failing = False
            except DATABASE_ERRORS as error:
                self._read_s = self._clock.monotonic_s()
                if not self._failing:
                    _log.warning("the month's spend cannot be read (%s); counting on", type(error).__name__)
                self._failing = True

    async def _read(self) -> None:
        version, now = self._directory.version, self._clock.now()
        capped = self._directory.budgeted_orgs()
        sums: dict[tuple[Layer, str], int] = defaultdict(int)
        for one in await self._spend.of_orgs(month_of(now), capped) if capped else ():
            sums[Layer.ORG, one.org_id] += one.cost_pusd
            sums[Layer.ENV, one.env_id] += one.cost_pusd
            sums[Layer.KEY, one.key_id] += one.cost_pusd
        month = month_at(now).number
        for (layer, entity_id), cost_pusd in sums.items():
            self._limiter.spent(layer, entity_id, month, cost_pusd)
        self._seen_version, self._read_s = version, self._clock.monotonic_s()

    async def _report(self) -> None:
        now = self._clock.now()
        met = set(self._met)
        await self._spend.report(month_of(now), met, now)
        self._met -= met
