"""Notices on both databases: raised once, delivered by real mail and HTTP servers, tried again, never lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from aiosmtpd.smtp import SMTP, Envelope, Session
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.notices.channels import ChannelService
from crosslogic.insight.notices.dispatcher import Dispatcher
from crosslogic.insight.notices.email import EmailSender, NoMailServer, SmtpServer
from crosslogic.insight.notices.model import ChannelKind, Notice, NoticeKind, Severity
from crosslogic.insight.notices.outbox import TAKEN_FOR, Outbox
from crosslogic.insight.notices.retries import PAUSES_S
from crosslogic.insight.notices.signing import signed_headers
from crosslogic.insight.notices.webhook import WebhookSender
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import new_id
from crosslogic.net.outbound import OutboundClient
from crosslogic.store.tables import orgs
from crosslogic.tenancy.keys import key_hasher

HASH = key_hasher(None)
ACME, BOLT = "org_acme", "org_bolt"


class Receiver:
    """A real HTTP server that answers as told and keeps what came."""

    def __init__(self) -> None:
        self.answers: list[int] = []  # statuses of the next requests; then 204
        self.received: list[tuple[dict[str, str], bytes]] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.received.append((headers, body))
        status = self.answers.pop(0) if self.answers else 204
        writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()


class Mailbox:
    """What aiosmtpd hands over; `refuse` answers with this reply instead."""

    def __init__(self) -> None:
        self.refuse: str | None = None
        self.mails: list[tuple[list[str], str]] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refuse is not None:
            return self.refuse
        assert isinstance(envelope.content, bytes)
        self.mails.append((list(envelope.rcpt_tos), envelope.content.decode()))
        return "250 OK"


class Post:
    """Channels, outbox and dispatcher as control has them, with servers that are real."""

    def __init__(self, engine: AsyncEngine, url: str, receiver: Receiver, mailbox: Mailbox, smtp_port: int) -> None:
        self.clock = ManualClock()
        self.url = url
        self.receiver = receiver
        self.mailbox = mailbox
        self.channels = ChannelService(engine, HASH, self.clock, private=True)
        self.outbox = Outbox(engine)
        self.client = OutboundClient(allow=lambda _: True)
        urls = WebhookSender(self.client, self.clock.now, pagerduty_url=url + "/v2/enqueue")
        mail = EmailSender(SmtpServer("127.0.0.1", smtp_port, "cloud@example.com"))
        self.dispatcher = Dispatcher(
            self.outbox,
            {kind: mail if kind is ChannelKind.EMAIL else urls for kind in ChannelKind},
            self.clock,
        )

    def notice(self, org: str | None = ACME, once: str | None = None, **changed: Any) -> Notice:
        fields: dict[str, Any] = {
            "id": new_id("notice"),
            "org_id": org,
            "kind": NoticeKind.BUDGET,
            "severity": Severity.WARNING,
            "title": "80 % of the budget is spent",
            "text": "80.00 of 100.00 USD.",
            "facts": {"percent": 80},
            "at": self.clock.now(),
        }
        fields |= changed
        return Notice(**fields, once=once or fields["id"])

    async def webhook(self, org: str | None = ACME, path: str = "/hook", **wanted: Any) -> str:
        channel = await self.channels.add(org, "hook", ChannelKind.WEBHOOK, self.url + path, **wanted)
        return channel.id

    async def state(self, channel_id: str) -> list[tuple[str, int]]:
        return [(row["status"], row["attempts"]) for row in await self.outbox.deliveries(channel_id, limit=50)]


@pytest_asyncio.fixture
async def post(engine: AsyncEngine) -> AsyncIterator[Post]:
    async with engine.begin() as conn:
        for org in (ACME, BOLT):
            row = {"id": org, "name": org, "status": "active", "billing_plan": "pro", "limits": {}}
            await conn.execute(insert(orgs).values(row | {"allowed_models": [], "created_at": ManualClock().now()}))
    receiver, mailbox = Receiver(), Mailbox()
    smtp = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox), "127.0.0.1", 0)
    post = Post(engine, await receiver.start(), receiver, mailbox, smtp.sockets[0].getsockname()[1])
    yield post
    await post.client.close()
    smtp.close()
    await receiver.close()


class TestRaising:
    async def test_for_the_same_thing_there_is_never_a_second_notice(self, post: Post) -> None:
        channel = await post.webhook()
        first, again = post.notice(once="budget:80"), post.notice(once="budget:80")
        assert await post.outbox.raise_all([first, again]) == 1
        assert await post.outbox.raise_all([again]) == 0
        assert await post.dispatcher.round() == 1
        assert await post.state(channel) == [("sent", 1)]

    async def test_many_that_raise_it_at_once_raise_it_once(self, post: Post) -> None:
        raised = await asyncio.gather(*(post.outbox.raise_all([post.notice(once="one")]) for _ in range(8)))
        assert sum(raised) == 1

    async def test_it_goes_to_every_channel_that_wants_it_and_to_nobody_elses(self, post: Post) -> None:
        mine, budgets, invoices = (
            await post.webhook(),
            await post.webhook(wanted=[NoticeKind.BUDGET]),
            await post.webhook(wanted=[NoticeKind.INVOICE]),
        )
        theirs, operators = await post.webhook(BOLT), await post.webhook(None)
        await post.outbox.raise_all([post.notice()])
        assert await post.dispatcher.round() == 3
        states = [await post.state(each) for each in (mine, budgets, invoices, theirs, operators)]
        assert states == [[("sent", 1)], [("sent", 1)], [], [], [("sent", 1)]]

    async def test_an_org_sees_its_own_newest_first(self, post: Post) -> None:
        for org in (ACME, BOLT, None, ACME):
            await post.outbox.raise_all([post.notice(org)])
        mine = await post.outbox.raised(ACME, kind=None, after=None, limit=10)
        assert [each.org_id for each in mine] == [ACME, ACME]
        assert mine[0].id > mine[1].id
        assert await post.outbox.raised(ACME, kind=None, after=mine[0].id, limit=10) == mine[1:]
        assert len(await post.outbox.raised(None, kind=NoticeKind.BUDGET, after=None, limit=10)) == 4


class TestDelivering:
    async def test_a_webhook_can_be_verified_by_its_receiver(self, post: Post) -> None:
        channel = await post.channels.add(ACME, "hook", ChannelKind.WEBHOOK, post.url + "/hook")
        assert channel.secret is not None
        notice = post.notice()
        await post.outbox.raise_all([notice])
        await post.dispatcher.round()
        ((headers, body),) = post.receiver.received
        expected = signed_headers(channel.secret, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
        assert headers["webhook-signature"] == expected["webhook-signature"]
        assert headers["webhook-id"] == notice.id
        assert json.loads(body)["data"]["facts"] == {"percent": 80}

    async def test_mail_and_slack_are_told_in_words(self, post: Post) -> None:
        await post.channels.add(ACME, "mail", ChannelKind.EMAIL, "ann@acme.example")
        await post.channels.add(ACME, "slack", ChannelKind.SLACK, post.url + "/services/T0/B0/x")
        await post.outbox.raise_all([post.notice()])
        assert await post.dispatcher.round() == 2
        ((recipients, mail),) = post.mailbox.mails
        assert recipients == ["ann@acme.example"]
        assert "Subject: 80 % of the budget is spent" in mail
        ((_, body),) = post.receiver.received
        assert "80.00 of 100.00 USD." in json.loads(body)["text"]

    async def test_pagerduty_gets_an_event_with_its_key(self, post: Post) -> None:
        with pytest.raises(InvalidRequest, match="integration key"):
            await post.channels.add(None, "pager", ChannelKind.PAGERDUTY, "https://events.example/v2")
        await post.channels.add(None, "pager", ChannelKind.PAGERDUTY, "R0" * 16)
        post.receiver.answers = [202]
        notice = post.notice()
        await post.outbox.raise_all([notice])
        assert await post.dispatcher.round() == 1
        ((_, body),) = post.receiver.received
        event = json.loads(body)
        assert (event["routing_key"], event["event_action"], event["dedup_key"]) == ("R0" * 16, "trigger", notice.id)
        assert event["payload"]["summary"] == notice.title
        assert event["payload"]["severity"] == "warning"
        assert event["payload"]["custom_details"] == {"text": notice.text, "percent": 80}

    async def test_what_fails_is_tried_again_later_under_the_same_id(self, post: Post) -> None:
        channel = await post.webhook()
        post.receiver.answers = [500, 302]
        await post.outbox.raise_all([post.notice()])
        assert await post.dispatcher.round() == 0
        assert await post.dispatcher.round() == 0  # not due yet
        assert await post.state(channel) == [("pending", 1)]
        for pause_s, state in ((PAUSES_S[0], ("pending", 2)), (PAUSES_S[1], ("sent", 3))):
            post.clock.advance(pause_s)
            await post.dispatcher.round()
            assert await post.state(channel) == [state]
        assert len({headers["webhook-id"] for headers, _ in post.receiver.received}) == 1

    async def test_after_the_last_attempt_it_is_given_up_and_the_owner_sees_why(self, post: Post) -> None:
        channel = await post.webhook()
        post.receiver.answers = [503] * (len(PAUSES_S) + 1)
        await post.outbox.raise_all([post.notice()])
        for pause_s in (*PAUSES_S, 0):
            await post.dispatcher.round()
            post.clock.advance(pause_s)
        (row,) = await post.outbox.deliveries(channel, limit=5)
        assert (row["status"], row["problem"]) == ("failed", "it answered 503")

    async def test_a_receiver_that_is_gone_is_not_asked_again(self, post: Post) -> None:
        channel = await post.webhook()
        post.receiver.answers = [410]
        await post.outbox.raise_all([post.notice()])
        await post.dispatcher.round()
        assert await post.state(channel) == [("failed", 1)]

    @pytest.mark.parametrize(("reply", "state"), [("451 later", "pending"), ("550 no such user", "failed")])
    async def test_a_mail_server_says_whether_it_is_worth_another_try(self, post: Post, reply: str, state: str) -> None:
        channel = await post.channels.add(ACME, "mail", ChannelKind.EMAIL, "ann@acme.example")
        post.mailbox.refuse = reply
        await post.outbox.raise_all([post.notice()])
        await post.dispatcher.round()
        assert await post.state(channel.id) == [(state, 1)]

    async def test_without_a_mail_server_mail_waits_for_one(self, post: Post) -> None:
        channel = await post.channels.add(ACME, "mail", ChannelKind.EMAIL, "ann@acme.example")
        await post.outbox.raise_all([post.notice()])
        await Dispatcher(post.outbox, {ChannelKind.EMAIL: NoMailServer()}, post.clock).round()
        assert await post.state(channel.id) == [("pending", 1)]

    async def test_what_a_process_took_with_it_is_sent_by_the_next(self, post: Post) -> None:
        """It died between taking and sending, or between sending and writing that down."""
        channel = await post.webhook()
        await post.outbox.raise_all([post.notice()])
        assert len(await post.outbox.take(post.clock.now())) == 1
        assert await post.dispatcher.round() == 0
        post.clock.advance((TAKEN_FOR + timedelta(seconds=1)).total_seconds())
        assert await post.dispatcher.round() == 1
        assert await post.state(channel) == [("sent", 1)]

    async def test_two_dispatchers_at_once_send_each_notice_once(self, post: Post) -> None:
        await post.webhook()
        for _ in range(20):
            await post.outbox.raise_all([post.notice()])
        assert sum(await asyncio.gather(*(post.dispatcher.round() for _ in range(4)))) == 20
        assert len({headers["webhook-id"] for headers, _ in post.receiver.received}) == 20
        assert len(post.receiver.received) == 20


class TestChannels:
    async def test_a_foreign_channel_is_as_unknown_as_none(self, post: Post) -> None:
        theirs = await post.webhook(BOLT)
        attempts: list[Callable[[str], Any]] = [
            lambda ref: post.channels.channel(ref, ACME),
            lambda ref: post.channels.change(ref, ACME, name="mine"),
            lambda ref: post.channels.rotate_secret(ref, ACME),
            lambda ref: post.channels.test(ref, ACME),
            lambda ref: post.channels.remove(ref, ACME),
        ]
        for attempt in attempts:
            messages = []
            for ref in (theirs, "chan_absent"):
                with pytest.raises(NotFound) as raised:
                    await attempt(ref)
                messages.append(str(raised.value))
            assert messages[0] == messages[1]

    async def test_what_is_removed_is_told_nothing_more(self, post: Post) -> None:
        channel = await post.webhook()
        await post.outbox.raise_all([post.notice()])
        await post.channels.remove(channel, ACME)
        assert await post.dispatcher.round() == 0
        await post.outbox.raise_all([post.notice()])
        assert await post.dispatcher.round() == 0
        assert post.receiver.received == []
        assert await post.channels.channels(ACME) == []

    async def test_a_new_secret_signs_from_then_on(self, post: Post) -> None:
        channel = await post.webhook()
        fresh = await post.channels.rotate_secret(channel, ACME)
        await post.outbox.raise_all([post.notice()])
        await post.dispatcher.round()
        ((headers, body),) = post.receiver.received
        assert fresh.secret is not None
        signed = signed_headers(fresh.secret, headers["webhook-id"], int(headers["webhook-timestamp"]), body)
        assert headers["webhook-signature"] == signed["webhook-signature"]

    async def test_a_test_reaches_that_channel_alone_whatever_it_chose(self, post: Post) -> None:
        tried, other = await post.webhook(wanted=[NoticeKind.INVOICE]), await post.webhook()
        await post.channels.test(tried, ACME)
        assert await post.dispatcher.round() == 1
        assert (await post.state(tried), await post.state(other)) == ([("sent", 1)], [])

    async def test_no_org_has_channels_without_end(self, post: Post) -> None:
        for _ in range(20):
            await post.webhook()
        with pytest.raises(Conflict):
            await post.webhook()
        await post.webhook(BOLT)

    @pytest.mark.parametrize("target", ["x", "a@b@c", "a b@c.d", "<a@b.c>", "a@b.c,d@e.f", "a@b.c\r\nBcc: d@e.f", "@b"])
    async def test_what_is_no_address_is_refused(self, post: Post, target: str) -> None:
        with pytest.raises(InvalidRequest):
            await post.channels.add(ACME, "mail", ChannelKind.EMAIL, target)
