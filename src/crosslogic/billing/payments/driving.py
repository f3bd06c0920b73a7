"""Carries payments and refunds to their end: each step is written down before it is taken.

Invariants: between two steps the row says all that is known, so that a process may be killed at any line and another
goes on; what is sent is claimed first, and everybody who sends uses the same key; what is final stays as it is; whom it
concerns is told until they have taken note. No transaction is open while a provider is asked.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import RowMapping, Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.payments.model import Payment, Refund, Result, Status
from crosslogic.billing.payments.ports import OutcomeUnknown, PaymentProcessor, ProviderRefused
from crosslogic.billing.payments.states import (
    ACTION_TIME,
    CLAIM,
    PENDING_LOOK,
    Step,
    absent_means_failed,
    may_move,
    next_step,
    pause,
)
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import CrossLogicError, NotFound, Unavailable
from crosslogic.store.engine import reading

_log = logging.getLogger(__name__)
T = TypeVar("T", bound=Payment | Refund)
_FINAL = (Status.SUCCEEDED, Status.FAILED)


class Course(Protocol[T]):
    """What payments and refunds do each in their own way."""

    table: Table
    refund: bool
    processor: PaymentProcessor

    def value(self, row: RowMapping) -> T: ...
    async def send(self, value: T) -> Result: ...
    async def find(self, value: T) -> Result | None: ...
    async def refresh(self, value: T, provider_ref: str, *, give_up: bool) -> Result: ...
    async def moved(self, conn: AsyncConnection, before: T, after: T) -> None:
        """In the transaction of a change of status."""
        ...

    async def apply(self, value: T) -> None:
        """Tell whom it concerns that it has ended; may be repeated."""
        ...


class Driver(Generic[T]):
    def __init__(self, engine: AsyncEngine, clock: Clock, course: Course[T]) -> None:
        self._engine = engine
        self._clock = clock
        self._course = course
        self._table = course.table

    async def drive(self, entity_id: str) -> T:
        """Take the next step, if it is time for one and nobody else is at it. Raises NotFound."""
        began_s = self._clock.monotonic_s()
        value, step = await self._claim(entity_id)
        if step is not Step.NOTHING:
            reach("payment.claimed")
            value = await self._take(value, step, began_s)
        return await self._apply(value)

    async def look_at(self, entity_id: str, provider_ref: str) -> T:
        """The provider says that something has happened to it: ask what. Raises NotFound, Unavailable."""
        value = await self.get(entity_id)
        if value.status is Status.FAILED or (value.status is Status.SUCCEEDED and not self._course.refund):
            return await self._apply(value)
        try:
            result = await self._course.refresh(value, provider_ref, give_up=False)
        except ProviderRefused:
            return value  # it is not ours
        return await self._apply(await self._record(value, result))

    async def tell(self, entity_id: str) -> T:
        """Tell whom it concerns once more that it has ended. Raises NotFound."""
        value = await self.get(entity_id)
        if value.status in _FINAL:
            await self._course.apply(value)
        return value

    async def due(self, limit: int = 100) -> list[str]:
        """Those for which it is time to look again, oldest first."""
        t = self._table.c
        query = select(t.id).where(t.next_step_at <= self._clock.now()).order_by(t.next_step_at, t.id).limit(limit)
        async with reading(self._engine) as conn:
            return list((await conn.execute(query)).scalars())

    async def drive_due(self) -> int:
        """One step for each that waits; what fails is left for the next time."""
        taken = 0
        for entity_id in await self.due():
            try:
                await self.drive(entity_id)
                taken += 1
            except CrossLogicError as error:
                _log.warning("%s %s waits (%s)", self._table.name, entity_id, type(error).__name__)
        return taken

    async def get(self, entity_id: str) -> T:
        async with reading(self._engine) as conn:
            row = (await conn.execute(select(self._table).where(self._table.c.id == entity_id))).mappings().first()
        if row is None:
            raise NotFound(f"there is no such {'refund' if self._course.refund else 'payment'}")
        return self._course.value(row)

    async def _claim(self, entity_id: str) -> tuple[T, Step]:
        now = self._clock.now()
        async with self._engine.begin() as conn:
            value = await self._locked(conn, entity_id)
            step = next_step(
                value.status, value.first_sent_at, value.answered, now, self._course.processor.resend_within
            )
            if step is Step.NOTHING or (value.next_step_at is not None and value.next_step_at > now):
                return value, Step.NOTHING
            changed: dict[str, Any] = {"next_step_at": now + CLAIM}
            if step is Step.SEND:
                changed |= {
                    "status": Status.SENDING.value,
                    "first_sent_at": value.first_sent_at or now,
                    "last_sent_at": now,
                    "sendings": value.sendings + 1,
                    "answered": False,
                }
            return await self._changed(conn, entity_id, changed), step

    async def _take(self, value: T, step: Step, began_s: float) -> T:
        course = self._course
        try:
            if step is Step.REFRESH:
                assert value.provider_ref is not None
                late = self._clock.now() - (value.first_sent_at or value.created_at) >= ACTION_TIME
                result = await course.refresh(value, value.provider_ref, give_up=late)
            elif step is Step.READ_BACK:
                found = await course.find(value)
                if found is None and not absent_means_failed(value.last_sent_at, self._clock.now()):
                    return await self._left_unknown(value, answered=True)
                result = found or Result(
                    Status.FAILED, failure_code="not_carried_out", failure_message="the provider does not know it"
                )
            else:
                if self._clock.monotonic_s() - began_s > CLAIM.total_seconds() / 2:
                    return value  # this process stood still; somebody else may be at it by now
                result = await course.send(value)
                reach("payment.sent")
        except OutcomeUnknown as unknown:
            return await self._left_unknown(value, answered=unknown.answered or value.answered)
        except Unavailable:
            return await self._left_unknown(value, answered=value.answered)
        except ProviderRefused as refused:
            _log.error("%s %s: the provider refuses to tell (%s)", self._table.name, value.id, refused.code)
            return await self._left_unknown(value, answered=True)
        recorded = await self._record(value, result)
        reach("payment.recorded")
        return recorded

    async def _left_unknown(self, value: T, *, answered: bool) -> T:
        async with self._engine.begin() as conn:
            before = await self._locked(conn, value.id)
            if before.status not in (Status.SENDING, Status.UNKNOWN, Status.PENDING):
                return before
            changed: dict[str, Any] = {"next_step_at": self._clock.now() + pause(before.sendings)}
            if before.status is not Status.PENDING:
                changed |= {"status": Status.UNKNOWN.value, "answered": answered}
            return await self._changed(conn, value.id, changed)

    async def _record(self, value: T, result: Result) -> T:
        now = self._clock.now()
        async with self._engine.begin() as conn:
            before = await self._locked(conn, value.id)
            if not may_move(before.status, result.status, refund=self._course.refund):
                if result.status is not before.status:
                    _log.error(
                        "%s %s is %s, and the provider says %s; reconciliation lists it",
                        self._table.name, value.id, before.status.value, result.status.value,
                    )  # fmt: skip
                return before
            final = result.status in _FINAL
            changed: dict[str, Any] = {
                "status": result.status.value,
                "provider_ref": result.provider_ref or before.provider_ref,
                "failure_code": result.failure_code,
                "failure_message": (result.failure_message or "")[:500] or None,
                "next_step_at": now if final else now + _pending_pause(before.first_sent_at, now),
                "resolved_at": now if final else None,
                "applied_at": None,
            }
            if not self._course.refund:
                changed |= {
                    "charge_ref": result.charge_ref,
                    "captured_minor": result.captured_minor if result.status is Status.SUCCEEDED else 0,
                    "action_url": None if final else result.action_url,
                }
            after = await self._changed(conn, value.id, changed)
            await self._course.moved(conn, before, after)
            return after

    async def _apply(self, value: T) -> T:
        if value.status not in _FINAL or value.applied_at is not None:
            return value
        await self._course.apply(value)
        reach("payment.applied")
        async with self._engine.begin() as conn:
            now = await self._locked(conn, value.id)
            if now.status is not value.status:
                return now
            return await self._changed(conn, value.id, {"applied_at": self._clock.now(), "next_step_at": None})

    async def _locked(self, conn: AsyncConnection, entity_id: str) -> T:
        query = select(self._table).where(self._table.c.id == entity_id).with_for_update()
        row = (await conn.execute(query)).mappings().first()
        if row is None:
            raise NotFound(f"there is no such {'refund' if self._course.refund else 'payment'}")
        return self._course.value(row)

    async def _changed(self, conn: AsyncConnection, entity_id: str, values: dict[str, Any]) -> T:
        here = self._table.c.id == entity_id
        await conn.execute(update(self._table).where(here).values(**values))
        rows: Sequence[RowMapping] = (await conn.execute(select(self._table).where(here))).mappings().all()
        return self._course.value(rows[0])


def _pending_pause(first_sent_at: datetime | None, now: datetime) -> timedelta:
    """Webhooks tell at once; this is for those that never come."""
    age = timedelta(0) if first_sent_at is None else now - first_sent_at
    return min(max(age / 4, timedelta(minutes=1)), PENDING_LOOK)
