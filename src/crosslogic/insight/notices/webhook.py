"""Channels that are called over HTTPS: signed webhooks, Slack's incoming ones, and PagerDuty."""

import json
from collections.abc import Callable
from datetime import datetime

from crosslogic.insight.notices.model import Channel, ChannelKind, Notice
from crosslogic.insight.notices.ports import NotDelivered
from crosslogic.insight.notices.rendering import as_pagerduty, as_slack, as_webhook
from crosslogic.insight.notices.signing import signed_headers
from crosslogic.net.outbound import AddressRefused, OutboundClient

_GONE = 410  # the receiver wants no more of them, says the specification
_JSON = {"content-type": "application/json", "user-agent": "CrossLogic-Notices"}


PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"


class WebhookSender:
    """`Sender` for webhooks, Slack and PagerDuty."""

    def __init__(self, client: OutboundClient, now: Callable[[], datetime], pagerduty_url: str = PAGERDUTY_URL) -> None:
        self._client = client
        self._now = now
        self._pagerduty_url = pagerduty_url

    async def send(self, notice: Notice, channel: Channel) -> None:
        headers, url = dict(_JSON), channel.target
        if channel.kind is ChannelKind.PAGERDUTY:
            url, body = self._pagerduty_url, json.dumps(as_pagerduty(notice, channel.target)).encode()
        elif channel.kind is ChannelKind.SLACK:
            body = json.dumps(as_slack(notice)).encode()
        else:
            body = as_webhook(notice)
            assert channel.secret is not None  # a webhook is never made without one
            headers |= signed_headers(channel.secret, notice.id, int(self._now().timestamp()), body)
        try:
            status, _ = await self._client.post(url, body, headers)
        except AddressRefused as error:
            raise NotDelivered(str(error)) from None  # not final: names may lead elsewhere tomorrow
        except (OSError, TimeoutError) as error:
            raise NotDelivered(f"it cannot be reached ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise NotDelivered(f"it answered {status}", final=status == _GONE)
