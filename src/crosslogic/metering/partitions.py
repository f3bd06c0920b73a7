"""Keeps PostgreSQL's monthly partitions of the ledger made ahead of time. SQLite has none.

Invariant: rows always have a place. Where a month has no partition yet, they go to the default one and stay there: then
that month is left out, for its partition could not take them.
"""

import logging

from sqlalchemy import Date, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import Clock

MONTHS_AHEAD = 2
_CHECK_VIOLATION = "23514"

_log = logging.getLogger(__name__)


class Partitions:
    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def make_ahead(self) -> int:
        """Make this month's partition and the next ones; returns how many were made. Raises DATABASE_ERRORS."""
        if self._engine.dialect.name != "postgresql":
            return 0
        today = self._clock.now().date()
        make = text("SELECT usage_records_partition(:month)").bindparams(bindparam("month", type_=Date()))
        made = 0
        for ahead in range(MONTHS_AHEAD + 1):
            year, month = divmod(today.year * 12 + today.month - 1 + ahead, 12)
            first = today.replace(year=year, month=month + 1, day=1)
            try:
                async with self._engine.begin() as conn:
                    await conn.execute(text("SET LOCAL lock_timeout = '5s'"))  # nobody waits behind us for long
                    made += bool(await conn.scalar(make, {"month": first}))
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _CHECK_VIOLATION:
                    raise
                _log.warning("rows of %s are in the default partition already", first.strftime("%Y-%m"))
        return made
