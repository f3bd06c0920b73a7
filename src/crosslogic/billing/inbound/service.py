"""Takes webhooks in and acts on them.

Invariants: a webhook is answered with success only once its event is stored; every stored event is acted on until that
has worked; acting on one twice, late, or after the others changes nothing more, since it only makes us look.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.inbound import sql
from crosslogic.billing.inbound.model import InboundEvent, StoredEvent
from crosslogic.billing.inbound.reading import About, Notice, notice_of
from crosslogic.billing.payments.service import PaymentService
from crosslogic.billing.payments.sql import org_of_customer
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import CrossLogicError, NotFound
from crosslogic.kernel.ids import OrgId

BATCH = 200
LONGEST_PAUSE = timedelta(minutes=15)
GIVE_UP_AFTER = 100  # attempts, about a day

_log = logging.getLogger(__name__)


class Verifier(Protocol):
    async def __call__(self, body: bytes, headers: dict[str, str], now: datetime) -> InboundEvent: ...


class Inbound:
    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        payments: PaymentService,
        verifiers: Mapping[str, Verifier],
        on_meter_report: Callable[[str], Awaitable[None]] | None = None,
        chargebacks: ChargebackService | None = None,
    ) -> None:
        self.engine = engine
        self._clock = clock
        self._payments = payments
        self._verifiers = verifiers
        self._on_meter_report = on_meter_report
        self._chargebacks = chargebacks

    async def take(self, provider: str, body: bytes, headers: dict[str, str]) -> bool:
        """Verify and store; False for an event that was known. Raises NotFound for a provider that is not ours,
        InvalidRequest for what is not signed by it."""
        verified = self._verifiers.get(provider)
        if verified is None:
            raise NotFound("there is nothing at this address")
        event = await verified(body, headers, self._clock.now())
        return await sql.store(self.engine, event, self._clock.now())

    async def act(self) -> int:
        """See to the events that wait; a job's. Returns how many were seen to."""
        done = 0
        for event in await sql.waiting(self.engine, self._clock.now(), BATCH):
            done += await self._see_to(event)
        return done

    async def _see_to(self, event: StoredEvent) -> bool:
        now = self._clock.now()
        # First, so that a crash in the middle leaves one that comes again.
        await sql.change(
            self.engine, event, attempts=event.attempts + 1, next_attempt_at=now + _pause(event.attempts + 1)
        )
        reach("webhook.claimed")
        try:
            told = InboundEvent(event.provider, event.event_id, event.type, event.payload)
            await self._look(event.provider, notice_of(told))
        except CrossLogicError as error:
            _log.warning("event %s of %s waits (%s)", event.event_id, event.provider, type(error).__name__)
            given_up = event.attempts + 1 >= GIVE_UP_AFTER
            ended = {"next_attempt_at": None} if given_up else {}
            await sql.change(self.engine, event, error=type(error).__name__, **ended)
            return False
        reach("webhook.acted")
        await sql.change(self.engine, event, processed_at=self._clock.now(), next_attempt_at=None, error=None)
        return True

    async def _look(self, provider: str, notice: Notice) -> None:
        payments = self._payments
        if provider != payments.processor.provider:
            return
        match notice.about:
            case About.PAYMENT if notice.our_id and notice.provider_ref:
                await _known(payments.payment_driver.look_at(notice.our_id, notice.provider_ref))
            case About.REFUND if notice.our_id and notice.provider_ref:
                await _known(payments.refund_driver.look_at(notice.our_id, notice.provider_ref))
            case About.CHARGEBACK if notice.provider_ref and self._chargebacks is not None:
                await self._chargebacks.look_at(notice.provider_ref)
            case About.SETUP | About.METHOD if notice.customer_ref:
                org = await org_of_customer(self.engine, provider, notice.customer_ref)
                if org is not None:
                    await payments.methods.sync(OrgId(org))
            case About.METER if notice.provider_ref and self._on_meter_report is not None:
                await self._on_meter_report(notice.provider_ref)
            case _:
                return


async def _known(look: Awaitable[object]) -> None:
    """What is not ours (another system's payments at the same provider) is nothing to wait for."""
    try:
        await look
    except NotFound:
        return


def _pause(attempts: int) -> timedelta:
    return min(timedelta(seconds=2 << min(attempts, 16)), LONGEST_PAUSE)
