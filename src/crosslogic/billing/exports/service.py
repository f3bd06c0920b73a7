"""Exports: seals hours into windows, sends them in order, and finds out what became of those that are unsure.

Invariants: windows and the cursor they end at commit together, so no usage is told in none or in two; a window is
written down as sending before it is sent, and by one process at a time; an identifier that the provider may have
forgotten is never sent again. A provider that is away costs nothing but time: nobody else waits for this job.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.exports import sql, windows
from crosslogic.billing.exports.model import COUNTING, Mode, OrgExport, Window, WindowStatus
from crosslogic.billing.exports.ports import MeterEvent, MeterSink
from crosslogic.billing.exports.windows import Step
from crosslogic.billing.payments.ports import OutcomeUnknown, ProviderRefused
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import Conflict, InvalidRequest, Unavailable
from crosslogic.kernel.ids import OrgId
from crosslogic.tenancy.audit_sql import AuditTrail

CHARGES_AT_ONCE = 20_000
ROUNDS = 500  # of one run, so that a long backlog drains over several
_log = logging.getLogger(__name__)


class Counters(Protocol):
    """The documents' metrics of billing."""

    def billing_pushed(self, records: int, tokens: int) -> None: ...
    def billing_failed(self, records: int) -> None: ...


class NoCounters:
    """Where nobody reads metrics."""

    def billing_pushed(self, records: int, tokens: int) -> None:
        return

    def billing_failed(self, records: int) -> None:
        return


class Exports:
    """`customer` gives the provider's name of an org, and makes it known there."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        meters: MeterSink | None,
        customer: Callable[[OrgId], Awaitable[str]],
        trail: AuditTrail,
        *,
        default: Mode = Mode.STRIPE_INVOICE,
        counters: Counters | None = None,
    ) -> None:
        self.engine = engine
        self.default = default
        self._clock = clock
        self._meters = meters
        self._customer = customer
        self._trail = trail
        self._counters = counters or NoCounters()

    def recording(self, trail: AuditTrail) -> "Exports":
        return Exports(
            self.engine,
            self._clock,
            self._meters,
            self._customer,
            trail,
            default=self.default,
            counters=self._counters,
        )

    # which way

    async def mode(self, org_id: OrgId) -> OrgExport:
        await sql.give_modes(self.engine, self.default, self._clock.now())
        async with self.engine.begin() as conn:
            found = await sql.locked_mode(conn, org_id)
        assert found is not None
        return found

    async def set_mode(self, org_id: OrgId, mode: Mode) -> OrgExport:
        """From now on; what was used until now stays with the way that it had. Raises Conflict while some of it is
        under way, InvalidRequest for a way that there is not."""
        if mode is Mode.STRIPE_METER and self._meters is None:
            raise InvalidRequest("stripe_meter needs payments.provider: stripe", param="mode")
        before = await self.mode(org_id)
        if before.mode is mode:
            return before
        await self.seal(org_id)
        here = (sql.table.c.org_id == org_id, sql.table.c.status.in_(sql.UNRESOLVED))
        if await sql.find(self.engine, *here, limit=1):
            raise Conflict("exports of this organisation are under way; wait for them, or retry those that failed")
        async with self.engine.begin() as conn:
            locked = await sql.locked_mode(conn, org_id)
            assert locked is not None
            last = await sql.last_seq(conn, org_id)
            if locked.mode is Mode.STRIPE_METER and locked.sealed_seq < last:
                raise Conflict("usage of this hour is not exported yet; try again when it is over")
            after = OrgExport(org_id, mode, self._clock.now(), last)
            await sql.put_mode(conn, after)
            await self._trail.append(
                conn,
                "export.mode",
                org_id,
                org_id=org_id,
                before={"mode": before.mode.value},
                after={"mode": mode.value, "from_seq": last},
            )
            return after

    # sealing

    async def seal_due(self) -> int:
        """Seal the hours that are over, of every org that is exported by meters. Returns how many windows it made."""
        await sql.give_modes(self.engine, self.default, self._clock.now())
        return sum([await self.seal(each.org_id) for each in await sql.of_mode(self.engine, Mode.STRIPE_METER)])

    async def seal(self, org_id: OrgId) -> int:
        made = 0
        while True:
            async with self.engine.begin() as conn:
                found = await self._seal_some(conn, org_id)
            if found is None:
                return made
            reach("export.sealed")
            made += found

    async def _seal_some(self, conn: AsyncConnection, org_id: OrgId) -> int | None:
        """How many windows were made; None where there is nothing to seal."""
        now = self._clock.now()
        export = await sql.locked_mode(conn, org_id)
        if export is None or export.mode is not Mode.STRIPE_METER:
            return None
        charges = await sql.charges_behind(conn, org_id, export.sealed_seq, CHARGES_AT_ONCE)
        sums, through = windows.sealed(charges, now)
        if through is None:
            return None
        for (meter, hour), quantity in sorted(sums.items()):
            n = await sql.next_n(conn, org_id, meter, hour)
            window = Window(
                id=windows.identifier(org_id, meter, hour, n),
                org_id=org_id,
                mode=Mode.STRIPE_METER,
                meter=meter,
                hour=hour,
                n=n,
                quantity=quantity,
                from_seq=export.sealed_seq,
                through_seq=through,
                status=WindowStatus.SEALED,
                created_at=now,
                next_step_at=now,
            )
            await sql.add(conn, window)
        await sql.advance(conn, org_id, through)
        return len(sums)

    # sending

    async def drive(self) -> int:
        """Take a step for each window whose turn it is, until none is left or the provider is away."""
        if self._meters is None:
            return 0
        taken = 0
        for _ in range(ROUNDS):
            by_org: dict[str, list[Window]] = {}
            for window in await sql.waiting(self.engine, Mode.STRIPE_METER):
                by_org.setdefault(window.org_id, []).append(window)
            ready = [
                window
                for mine in by_org.values()
                for window in windows.in_order(mine)
                if windows.next_step(window, self._clock.now()) is not Step.NOTHING
            ]
            if not ready:
                return taken
            for window in ready:
                if not await self._step(window):
                    return taken
                taken += 1
        return taken

    async def _step(self, seen: Window) -> bool:
        """False when the provider is away, so that the rest had better wait."""
        now = self._clock.now()
        async with self.engine.begin() as conn:
            window = await sql.locked(conn, seen.id)
            step = windows.next_step(window, now)
            if step is Step.DOUBT:
                later = max(now, (window.last_sent_at or now) + windows.SUMS_SETTLE)
                await sql.change(conn, window.id, status=WindowStatus.DOUBTFUL, next_step_at=later)
                return True
            if step is Step.REPLACE:
                await self._replace(conn, window)
                return True
            if step is Step.SEND:
                at = window.event_time or windows.event_time(window.hour, now)
                window = await sql.change(
                    conn,
                    window.id,
                    status=WindowStatus.SENDING,
                    event_time=at,
                    first_sent_at=window.first_sent_at or now,
                    last_sent_at=now,
                    sendings=window.sendings + 1,
                    next_step_at=now + windows.CLAIM,
                )
        if step is Step.SEND:
            reach("export.claimed")
            return await self._send(window)
        return await self._compare(window) if step is Step.COMPARE else True

    async def _send(self, window: Window) -> bool:
        assert self._meters is not None
        assert window.event_time is not None
        try:
            customer = await self._customer(window.org_id)
            event = MeterEvent(window.id, window.meter, customer, window.quantity, window.event_time)
            await self._meters.send(event)
            reach("export.sent")
        except (OutcomeUnknown, Unavailable) as error:
            await self._failed(window, str(error), windows.pause(window.sendings))
            return False
        except ProviderRefused as refused:
            _log.error("export %s was refused (%s)", window.id, refused.code)
            await self._failed(window, refused.code, windows.RETRY)
            return True
        async with self.engine.begin() as conn:
            now = await sql.locked(conn, window.id)
            if now.status is WindowStatus.SENDING:
                await sql.change(
                    conn,
                    window.id,
                    status=WindowStatus.SENT,
                    billing_failed=False,
                    failure=None,
                    next_step_at=None,
                    resolved_at=self._clock.now(),
                )
        self._counters.billing_pushed(1, window.quantity)
        return True

    async def _failed(self, window: Window, why: str, pause: timedelta) -> None:
        self._counters.billing_failed(1)
        async with self.engine.begin() as conn:
            await sql.locked(conn, window.id)
            await sql.change(
                conn,
                window.id,
                billing_failed=True,
                failure=why[:300],
                next_step_at=self._clock.now() + pause,
            )

    async def _compare(self, window: Window) -> bool:
        """Let the provider's sum of the hour decide about the doubtful windows of it."""
        assert self._meters is not None
        assert window.event_time is not None
        here = (
            sql.table.c.org_id == window.org_id,
            sql.table.c.meter == window.meter,
            sql.table.c.event_time == window.event_time,
        )
        now = self._clock.now()
        mates = await sql.find(self.engine, *here)
        unsettled = [each for each in mates if each.last_sent_at and now - each.last_sent_at < windows.SUMS_SETTLE]
        if unsettled or any(each.status is WindowStatus.SENDING for each in mates):
            await self._look_again(window, None, windows.RETRY)
            return True
        try:
            total = await self._meters.total(window.meter, await self._customer(window.org_id), window.event_time)
        except ProviderRefused as refused:
            await self._look_again(window, refused.code, windows.RETRY)
            return True
        except Unavailable as error:
            await self._look_again(window, str(error), windows.RETRY)
            return False
        counted = windows.told_apart(mates, total)
        if counted is None:
            await self._look_again(window, f"its hour sums up to {total} there", windows.HOUR)
            return True
        async with self.engine.begin() as conn:
            for each in mates:
                locked = await sql.locked(conn, each.id)
                if locked.status is not each.status:
                    return True  # somebody else has been here
            for each in mates:
                if each.id not in counted:
                    continue
                if counted[each.id]:
                    await self._verified(conn, each, now)
                else:
                    await self._replace(conn, each)
        return True

    async def _verified(self, conn: AsyncConnection, window: Window, now: datetime) -> None:
        await sql.change(
            conn,
            window.id,
            status=WindowStatus.VERIFIED,
            billing_failed=False,
            failure=None,
            next_step_at=None,
            resolved_at=now,
        )
        self._counters.billing_pushed(1, window.quantity)

    async def _look_again(self, window: Window, why: str | None, pause: timedelta) -> None:
        async with self.engine.begin() as conn:
            await sql.change(conn, window.id, next_step_at=self._clock.now() + pause, billing_failed=True, failure=why)

    async def _replace(self, conn: AsyncConnection, window: Window) -> Window:
        """What never counted is told by another window, under a new identifier."""
        now = self._clock.now()
        n = await sql.next_n(conn, window.org_id, window.meter, window.hour)
        new = msgspec.structs.replace(
            window,
            id=windows.identifier(window.org_id, window.meter, window.hour, n),
            n=n,
            status=WindowStatus.SEALED,
            created_at=now,
            event_time=None,
            first_sent_at=None,
            last_sent_at=None,
            sendings=0,
            next_step_at=now,
            billing_failed=False,
            failure=None,
            replaces=window.id,
            resolved_at=None,
        )
        await sql.change(conn, window.id, status=WindowStatus.REPLACED, next_step_at=None, resolved_at=now)
        await sql.add(conn, new)
        return new

    # what comes back

    async def on_meter_report(self, event_ref: str) -> None:
        """Events that Stripe took and then found wrong: they never counted, and are told again when it is put right."""
        if self._meters is None:
            return
        for identifier, code in await self._meters.rejected(event_ref):
            found = await sql.find(self.engine, sql.table.c.id == identifier)
            if not found:
                continue  # another system's
            tries = await _rejections(self.engine, found[0])
            async with self.engine.begin() as conn:
                window = await sql.locked(conn, identifier)
                if window.status not in (*COUNTING, WindowStatus.SENDING):
                    continue
                await sql.change(
                    conn,
                    identifier,
                    status=WindowStatus.REJECTED,
                    billing_failed=True,
                    failure=code,
                    next_step_at=self._clock.now() + windows.RETRY * 2 ** min(tries, 5),
                )
            self._counters.billing_failed(1)
            _log.error("export %s was rejected (%s)", identifier, code)

    async def retry(self, window_id: str) -> Window:
        """Take the next step of a window now. Raises NotFound, Conflict for one that waits for nothing."""
        async with self.engine.begin() as conn:
            window = await sql.locked(conn, window_id)
            if window.next_step_at is None:
                raise Conflict(f"the window is {window.status.value}; there is nothing to be done")
            changed = await sql.change(conn, window_id, next_step_at=self._clock.now())
            await self._trail.append(
                conn,
                "export.retry",
                window_id,
                org_id=window.org_id,
                before=None,
                after={"status": window.status.value},
            )
        return changed

    async def run(self) -> None:
        """The job: seal what is over, send what waits."""
        await self.seal_due()
        await self.drive()


async def _rejections(engine: AsyncEngine, window: Window) -> int:
    """How often the same quantity was told in vain before."""
    count = 0
    while window.replaces is not None and count < 10:
        (window,) = await sql.find(engine, sql.table.c.id == window.replaces)
        count += 1
    return count
