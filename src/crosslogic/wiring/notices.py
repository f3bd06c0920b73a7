"""Builds what raises notices and what sends them."""

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.alerts.budgets import Budgets
from crosslogic.insight.alerts.figures import Figures
from crosslogic.insight.notices.channels import ChannelService
from crosslogic.insight.notices.dispatcher import Dispatcher
from crosslogic.insight.notices.email import EmailSender, NoMailServer, SmtpServer
from crosslogic.insight.notices.model import ChannelKind
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.insight.notices.ports import Sender
from crosslogic.insight.notices.webhook import WebhookSender
from crosslogic.jobs.alerts import AlertsJob
from crosslogic.kernel.clock import Clock
from crosslogic.net.outbound import OutboundClient, is_not_metadata, is_public
from crosslogic.settings.model import Settings
from crosslogic.settings.notifications import SmtpSettings
from crosslogic.tenancy.directory import LayerLimits
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.service import TenancyService


class Notices:
    """One for each process that has the management API; its job runs where the lead is."""

    def __init__(
        self,
        settings: Settings,
        engine: AsyncEngine,
        hash_key: KeyHasher,
        clock: Clock,
        tenancy: TenancyService,
        limits: Callable[[], LayerLimits],
    ) -> None:
        notifications = settings.notifications
        self.channels = ChannelService(engine, hash_key, clock, private=notifications.private_targets)
        self._client = OutboundClient(is_not_metadata if notifications.private_targets else is_public)
        urls = WebhookSender(self._client, clock.now)
        senders: dict[ChannelKind, Sender] = {
            ChannelKind.EMAIL: _email(notifications.smtp),
            ChannelKind.SLACK: urls,
            ChannelKind.PAGERDUTY: urls,
            ChannelKind.WEBHOOK: urls,
        }
        outbox = Outbox(engine)
        self.dispatcher = Dispatcher(outbox, senders, clock)
        self.alerts = AlertsJob(Budgets(engine, tenancy, limits), Figures(engine), outbox, clock)

    async def close(self) -> None:
        await self._client.close()


def _email(smtp: SmtpSettings) -> Sender:
    if smtp.host is None:
        return NoMailServer()
    password = None if smtp.password is None else smtp.password.get_secret_value()
    return EmailSender(
        SmtpServer(smtp.host, smtp.port, smtp.sender, smtp.username, password, tls=smtp.tls, start_tls=smtp.start_tls)
    )
