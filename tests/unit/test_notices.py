"""What decides about notices: who wants them, when they are tried again, how they look and how they are signed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from crosslogic.insight.notices.model import Channel, ChannelKind, ChannelStatus, Notice, NoticeKind, Severity
from crosslogic.insight.notices.rendering import as_email, as_slack, as_webhook
from crosslogic.insight.notices.retries import PAUSES_S, pause_after
from crosslogic.insight.notices.signing import new_secret, signed_headers

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOTICE = Notice(
    id="notice_1",
    org_id="org_1",
    kind=NoticeKind.BUDGET,
    severity=Severity.WARNING,
    once="budget:org_1:2026-03:80",
    title="80 % of the budget is spent",
    text="80.00 of 100.00 USD.",
    facts={"spent_usd": "80.00"},
    at=NOW,
)
CHANNEL = Channel("chan_1", "org_1", "us", ChannelKind.EMAIL, "a@b.example", None, (), ChannelStatus.ACTIVE, NOW)


@pytest.mark.parametrize(
    ("changed", "wants"),
    [
        ({}, True),
        ({"org_id": None}, True),  # operators hear of every org
        ({"org_id": "org_2"}, False),
        ({"notices": (NoticeKind.BUDGET,)}, True),
        ({"notices": (NoticeKind.INVOICE,)}, False),
        ({"status": ChannelStatus.SUSPENDED}, False),
        ({"status": ChannelStatus.REMOVED}, False),
    ],
)
def test_a_channel_wants_what_concerns_its_owner_and_was_chosen(changed: dict[str, Any], wants: bool) -> None:
    assert msgspec.structs.replace(CHANNEL, **changed).wants(NOTICE) is wants


def test_an_org_is_not_told_what_is_for_operators() -> None:
    assert not CHANNEL.wants(msgspec.structs.replace(NOTICE, org_id=None))


def test_a_failed_delivery_is_tried_at_growing_intervals_for_three_days_and_then_given_up() -> None:
    pauses = [pause_after(attempts) for attempts in range(1, len(PAUSES_S) + 2)]
    assert pauses[0] == timedelta(seconds=5)
    assert pauses[-1] is None
    assert sorted(PAUSES_S) == list(PAUSES_S)
    assert timedelta(days=3) <= sum((pause for pause in pauses if pause), timedelta()) < timedelta(days=4)


def test_signatures_are_those_of_the_specification() -> None:
    """The example of Standard Webhooks 1.0.0."""
    headers = signed_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_no_two_secrets_are_alike_and_each_signs() -> None:
    first, second = new_secret(), new_secret()
    assert first != second
    signatures = {signed_headers(secret, "m", 1, b"x")["webhook-signature"] for secret in (first, second)}
    assert len(signatures) == 2


def test_a_mail_has_one_subject_line_whatever_the_title_holds() -> None:
    hostile = msgspec.structs.replace(NOTICE, title="paid\r\nBcc: all@example.com\r\n\r\nbody")
    mail = as_email(hostile, "cloud@example.com", "a@b.example")
    assert mail["Subject"] == "paid Bcc: all@example.com body"
    assert mail["Bcc"] is None
    assert "80.00" in mail.get_content()


def test_a_mail_sent_twice_is_one_message() -> None:
    assert as_email(NOTICE, "c@d.example", "a@b.example")["Message-ID"] == "<notice_1@crosslogic.invalid>"


def test_slack_is_told_in_text_that_mentions_nobody() -> None:
    hostile = msgspec.structs.replace(NOTICE, text="<!channel> <https://evil.example|click> & more")
    assert "<" not in as_slack(hostile)["text"]
    assert "&lt;!channel&gt;" in as_slack(hostile)["text"]


def test_a_webhook_holds_type_time_and_data() -> None:
    body = msgspec.json.decode(as_webhook(NOTICE))
    assert body["type"] == "notice.budget"
    assert datetime.fromisoformat(body["timestamp"]) == NOW
    assert body["data"]["facts"] == {"spent_usd": "80.00"}
