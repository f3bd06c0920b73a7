"""Keeps a process's guarantees equal to the database, and lets them begin and end on time.

Invariant: a committed change is in force within the feed's interval and one query; `on_change` is called after each
change of what is in force, whether it was written or came with time. While the database is away the last picture
stands, and reservations still begin and end.
"""

import asyncio
from collections.abc import Callable, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.capacity import sql
from crosslogic.capacity.guarantees import Guarantees
from crosslogic.capacity.model import Reservation
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import ReservationId
from crosslogic.store.changes import Change

_LONGEST_SLEEP_S = 60.0  # wall clocks are set: look again


class CapacitySync:
    """`store.changes.Following` drives it, and `follow_time` beside it."""

    def __init__(
        self, engine: AsyncEngine, guarantees: Guarantees, clock: Clock, on_change: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._guarantees = guarantees
        self._clock = clock
        self._on_change = on_change
        self._reservations: dict[ReservationId, Reservation] = {}
        self._changed = asyncio.Event()

    async def load(self) -> None:
        found = await sql.in_question(self._engine, self._clock.now())
        self._reservations = {reservation.id: reservation for reservation in found}
        self._take_over()

    async def apply(self, changes: Sequence[Change]) -> None:
        ids = list(dict.fromkeys(change.entity_id for change in changes if change.kind == sql.RESERVATION_CHANGED))
        if not ids:
            return
        now = self._clock.now()
        found = {reservation.id: reservation for reservation in await sql.in_question(self._engine, now, ids)}
        for reservation_id in map(ReservationId, ids):
            if reservation_id in found:
                self._reservations[reservation_id] = found[reservation_id]
            else:
                self._reservations.pop(reservation_id, None)
        self._reservations = {key: kept for key, kept in self._reservations.items() if kept.expires_at > now}
        self._take_over()

    def _take_over(self) -> None:
        self._guarantees.replace(self._reservations.values())
        self._changed.set()
        self._on_change()

    async def follow_time(self) -> None:
        """Until cancelled. Dedicated nodes change hands on time, also when no request comes that would notice."""
        version = self._guarantees.version
        while True:
            left_s = self._guarantees.next_change_s - self._clock.now().timestamp()
            self._changed.clear()
            try:
                async with asyncio.timeout(min(max(left_s, 0.01), _LONGEST_SLEEP_S)):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._guarantees.refresh()
            if self._guarantees.version != version:
                version = self._guarantees.version
                self._on_change()
