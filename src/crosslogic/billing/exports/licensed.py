"""How a site stands at the bounds of its licence, looked at again and again.

Invariant: a licence stops no request: what it may refuse is that the site grows, and that not before its grace is over.
"""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.exports.licence import Bound, Licence, Stage, Used, bounds, worst
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Forbidden
from crosslogic.store.engine import reading
from crosslogic.store.tables import nodes, usage_daily


class LicensedSite:
    def __init__(self, engine: AsyncEngine, licence: Licence, clock: Clock) -> None:
        self.licence = licence
        self._engine = engine
        self._clock = clock
        self._found: list[Bound] = []

    async def look(self) -> list[Bound]:
        """Raises `store.engine.DATABASE_ERRORS`."""
        now = self._clock.now()
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        self._found = bounds(self.licence, await self._used(month), now)
        return self._found

    async def standing(self) -> list[Bound]:
        """As it was found last, or now."""
        return self._found or await self.look()

    async def check_growth(self) -> None:
        """Raises Forbidden where a bound is exceeded and its grace over."""
        found = await self.look()
        if worst(found) is Stage.EXCEEDED:
            names = ", ".join(each.name.replace("_", " ") for each in found if each.stage is Stage.EXCEEDED)
            raise Forbidden(
                f"the licence is exceeded ({names}); renew it before the site grows", code="licence_exceeded"
            )

    async def _used(self, month: datetime) -> Used:
        async with reading(self._engine) as conn:
            count = await conn.scalar(select(func.count()).select_from(nodes))
            tokens = await conn.scalar(select(func.sum(usage_daily.c.total_tokens)).where(usage_daily.c.at >= month))
        return Used(int(count or 0), int(tokens or 0))
