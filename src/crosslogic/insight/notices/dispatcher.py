"""Takes due deliveries and hands them to the senders.

Invariant: at least once. A process that dies between sending and writing that down has it sent again, under the same
message id, by which receivers know it; no notice is lost, and a channel that hangs holds up no other.
"""

import asyncio
import logging
from collections.abc import Mapping

from crosslogic.insight.notices.model import Channel, ChannelKind, ChannelStatus, Delivery
from crosslogic.insight.notices.outbox import TAKEN_FOR, Outbox
from crosslogic.insight.notices.ports import NotDelivered, Sender
from crosslogic.insight.notices.retries import pause_after
from crosslogic.kernel.clock import Clock

_DEADLINE_S = TAKEN_FOR.total_seconds() / 2

_log = logging.getLogger(__name__)


class Dispatcher:
    """Run as a leased job."""

    def __init__(self, outbox: Outbox, senders: Mapping[ChannelKind, Sender], clock: Clock) -> None:
        self._outbox = outbox
        self._senders = senders
        self._clock = clock

    async def round(self) -> int:
        """Deliver what is due now; returns how many arrived."""
        taken = await self._outbox.take(self._clock.now())
        return sum(await asyncio.gather(*map(self._deliver, taken)))

    async def _deliver(self, delivery: Delivery) -> bool:
        try:
            await self._send(delivery)
        except NotDelivered as error:
            pause = None if error.final else pause_after(delivery.attempts + 1)
            again_at = None if pause is None else self._clock.now() + pause
            await self._outbox.failed(delivery, str(error), again_at)
            level = logging.INFO if again_at is not None else logging.WARNING
            _log.log(level, "notice %s did not reach %s: %s", delivery.notice.id, delivery.channel.id, error)
            return False
        await self._outbox.sent(delivery, self._clock.now())
        return True

    async def _send(self, delivery: Delivery) -> None:
        channel: Channel = delivery.channel
        if channel.status is not ChannelStatus.ACTIVE:
            raise NotDelivered("the channel was suspended meanwhile", final=True)
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await self._senders[channel.kind].send(delivery.notice, channel)
        except TimeoutError:
            raise NotDelivered("it did not answer in time") from None
