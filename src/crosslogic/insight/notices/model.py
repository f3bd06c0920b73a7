"""What a notice is, and where it goes."""

from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec

from crosslogic.kernel.ids import new_id


class NoticeKind(StrEnum):
    """What channels choose from (product documentation, document 4 §9)."""

    BUDGET = "budget"  # 50, 80 or 100 % of a month's spending cap
    SPEND_SPIKE = "spend_spike"  # a day costs more than ten times its usual
    PAYMENT_FAILED = "payment_failed"
    CHARGEBACK = "chargeback"  # a payer disputes a payment; for operators alone
    CREDIT_EXPIRING = "credit_expiring"
    CAPACITY_EXCEEDED = "capacity_exceeded"  # an hour took more than what is reserved
    SUSPENDED = "suspended"  # at the cap, or after the last reminder; and taken up again
    INVOICE = "invoice"  # issued, due, overdue
    FORECAST_DRIFT = "forecast_drift"  # a deployment has left what was forecast for it, for windows in a row
    CAPACITY_FORECAST = "capacity_forecast"  # what is forecast exceeds what the nodes carry; for operators
    ANOMALY = "anomaly"  # usage or service unlike what is usual; for operators
    LICENCE = "licence"  # a bound of the site's licence is near or passed; for operators alone
    TEST = "test"  # somebody asked whether the channel works; goes to every channel


class Severity(StrEnum):
    """Interface document, phase 4."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Notice(msgspec.Struct, frozen=True):
    """One thing to tell. For the same `once` there is never a second notice, whoever raises it how often."""

    org_id: str | None  # None: for the operators alone
    kind: NoticeKind
    severity: Severity
    once: str
    title: str
    text: str
    facts: dict[str, Any]  # the numbers, for programs
    at: datetime
    id: str = msgspec.field(default_factory=partial(new_id, "notice"))


class ChannelKind(StrEnum):
    EMAIL = "email"
    SLACK = "slack"  # an incoming webhook of Slack, or of what understands the same
    PAGERDUTY = "pagerduty"  # its Events API v2; the target is the integration key
    WEBHOOK = "webhook"  # signed, by the Standard Webhooks specification 1.0.0


class ChannelStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REMOVED = "removed"  # for good; the row stays, for what was sent


class Channel(msgspec.Struct, frozen=True):
    """Where an org (None: the operators) wants to be told."""

    id: str
    org_id: str | None
    name: str
    kind: ChannelKind
    target: str
    secret: str | None
    notices: tuple[NoticeKind, ...]  # empty: all
    status: ChannelStatus
    created_at: datetime

    def wants(self, notice: Notice) -> bool:
        """Operators hear of every org's notices, an org of its own only."""
        if self.status is not ChannelStatus.ACTIVE or (self.org_id is not None and self.org_id != notice.org_id):
            return False
        return not self.notices or notice.kind in self.notices or notice.kind is NoticeKind.TEST


class DeliveryStatus(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"  # given up


class Delivery(msgspec.Struct, frozen=True):
    """A notice on its way to one channel."""

    notice: Notice
    channel: Channel
    attempts: int
