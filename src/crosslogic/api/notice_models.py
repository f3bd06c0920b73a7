"""Bodies of notices and their channels."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from crosslogic.api.models import Body, View, Word
from crosslogic.insight.notices.model import Channel, ChannelKind, ChannelStatus, Notice, NoticeKind, Severity

Target = Annotated[str, StringConstraints(min_length=3, max_length=2000, pattern=r"^[^\x00-\x20\x7f]+$")]
Chosen = Literal[ChannelStatus.ACTIVE, ChannelStatus.SUSPENDED]


class ChannelCreate(Body):
    name: Word
    kind: ChannelKind
    target: Target = Field(description="e-mail address, https:// URL of a public host, or integration key of PagerDuty")
    notices: list[NoticeKind] = Field(default=[], description="empty: all")


class ChannelChange(Body):
    """What is left out stays as it is."""

    name: Word | None = None
    target: Target | None = None
    notices: list[NoticeKind] | None = None
    status: Chosen | None = None


class ChannelView(View):
    id: str
    name: str
    kind: ChannelKind
    target: str
    notices: tuple[NoticeKind, ...]
    status: ChannelStatus
    created_at: datetime

    @classmethod
    def of(cls, channel: Channel) -> "ChannelView":
        return cls.model_validate(channel)


class CreatedChannelView(ChannelView):
    secret: str | None = Field(description="signs webhooks (`whsec_…`, Standard Webhooks); shown now and never again")


class DeliveryView(View):
    notice_id: str
    kind: NoticeKind
    title: str
    status: str = Field(description="pending, sent or failed")
    attempts: int
    at: datetime
    sent_at: datetime | None
    problem: str | None = Field(description="of the last attempt that failed")


class NoticeView(View):
    id: str
    kind: NoticeKind
    severity: Severity
    title: str
    text: str
    facts: dict[str, Any]
    at: datetime

    @classmethod
    def of(cls, notice: Notice) -> "NoticeView":
        return cls.model_validate(notice)


class PlatformNoticeView(NoticeView):
    org_id: str | None = Field(description="null: it is about no org")
