"""Where an org, or the platform, wants to be told: made, listed, changed, tried and removed.

Invariants: a channel of another org is as unknown as one that does not exist; the secret of a webhook is shown when it
is made and never again; an address is checked when it is given, and where it leads whenever it is connected to.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.notices.model import Channel, ChannelKind, ChannelStatus, Notice, NoticeKind, Severity
from crosslogic.insight.notices.outbox import Outbox, raise_in, to_channel
from crosslogic.insight.notices.signing import new_secret
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import new_id
from crosslogic.net.outbound import check_url
from crosslogic.store.tables import notification_channels as table
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.writing import Writer, check_ref, locked, not_found

CHANNEL = "channel"
MOST_CHANNELS = 20  # of one org
_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
_EMAIL = re.compile(r"[^@\s<>,;:\"]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class ChannelService:
    """Raises InvalidRequest, NotFound, Conflict."""

    def __init__(
        self, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, *, private: bool = False, actor: Actor = SYSTEM
    ) -> None:
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._private = private  # may tenants' webhooks go to hosts of the site
        self._rows = Writer(engine, AuditTrail(actor, hash_key, clock))
        self.outbox = Outbox(engine)

    def acting_as(self, actor: Actor) -> "ChannelService":
        """The same service; what it changes is written down as done by `actor`."""
        return ChannelService(self._engine, self._hash_key, self._clock, private=self._private, actor=actor)

    async def add(
        self, org_id: str | None, name: str, kind: ChannelKind, target: str, wanted: Sequence[NoticeKind] = ()
    ) -> Channel:
        channel = Channel(
            id=new_id("chan"),
            org_id=org_id,
            name=name,
            kind=kind,
            target=self._checked(kind, target),
            secret=new_secret() if kind is ChannelKind.WEBHOOK else None,
            notices=tuple(dict.fromkeys(wanted)),
            status=ChannelStatus.ACTIVE,
            created_at=self._clock.now(),
        )
        async with self._engine.begin() as conn:
            count = (await conn.execute(select(func.count()).where(*_standing(org_id)).select_from(table))).scalar_one()
            if count >= MOST_CHANNELS:
                raise Conflict(f"there are {MOST_CHANNELS} channels already; remove one first")
            await self._rows.add_in(conn, table, _columns(channel), CHANNEL)
        return channel

    async def channel(self, channel_id: str, org_id: str | None) -> Channel:
        """Of the org; of the platform when `org_id` is None."""
        check_ref(channel_id, CHANNEL)
        channel = to_channel(await self._rows.one(select(table).where(table.c.id == channel_id), CHANNEL))
        if channel.org_id != org_id or channel.status is ChannelStatus.REMOVED:
            raise not_found(CHANNEL)
        return channel

    async def channels(
        self,
        org_id: str | None,
        *,
        kind: ChannelKind | None = None,
        status: ChannelStatus | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Channel]:
        """In order of id, which is order of creation."""
        query = select(table).where(*_standing(org_id)).order_by(table.c.id).limit(limit)
        if kind is not None:
            query = query.where(table.c.kind == kind.value)
        if status is not None:
            query = query.where(table.c.status == status.value)
        if after is not None:
            query = query.where(table.c.id > after)
        return [to_channel(row) for row in await self._rows.all(query)]

    async def change(
        self,
        channel_id: str,
        org_id: str | None,
        *,
        name: str | None = None,
        target: str | None = None,
        wanted: Sequence[NoticeKind] | None = None,
        status: ChannelStatus | None = None,
    ) -> Channel:
        """Change what is given; None leaves as it is."""
        before = await self.channel(channel_id, org_id)
        given: dict[str, Any] = {
            "name": name,
            "target": None if target is None else self._checked(before.kind, target),
            "notices": None if wanted is None else [kind.value for kind in dict.fromkeys(wanted)],
            "status": None if status is None else status.value,
        }
        old = _columns(before)
        values = {key: value for key, value in given.items() if value is not None and value != old[key]}
        return to_channel(await self._rows.change(table, channel_id, values, CHANNEL))

    async def rotate_secret(self, channel_id: str, org_id: str | None) -> Channel:
        """A new secret, from the next notice on."""
        channel = await self.channel(channel_id, org_id)
        if channel.kind is not ChannelKind.WEBHOOK:
            raise InvalidRequest("only webhooks have a secret", param="channel")
        secret = new_secret()
        row = await self._rows.change(table, channel_id, {"secret": secret}, CHANNEL)
        return msgspec.structs.replace(to_channel(row), secret=secret)

    async def remove(self, channel_id: str, org_id: str | None) -> None:
        """Nothing is sent there any more. The row stays, for what was sent; its secret goes."""
        await self.channel(channel_id, org_id)
        async with self._engine.begin() as conn:
            before = await locked(conn, table, channel_id, CHANNEL)
            values = {"status": ChannelStatus.REMOVED.value, "secret": None}
            await self._rows.change_in(conn, table, before, values, CHANNEL, "remove")

    async def test(self, channel_id: str, org_id: str | None) -> Notice:
        """Send a notice to this channel alone; what became of it is among its deliveries."""
        channel = await self.channel(channel_id, org_id)
        notice_id = new_id("notice")
        notice = Notice(
            id=notice_id,
            org_id=channel.org_id,
            kind=NoticeKind.TEST,
            severity=Severity.INFO,
            once=f"test:{notice_id}",
            title="CrossLogic can reach this channel",
            text=f"Somebody asked for this notice, to see whether the channel {channel.name} works.",
            facts={},
            at=self._clock.now(),
        )
        async with self._engine.begin() as conn:
            await raise_in(conn, notice, only=channel)
        return notice

    def now(self) -> datetime:
        return self._clock.now()

    def _checked(self, kind: ChannelKind, target: str) -> str:
        if kind is ChannelKind.PAGERDUTY:
            if not _ROUTING_KEY.fullmatch(target):
                raise InvalidRequest("this is no integration key of PagerDuty: 32 letters and digits", param="target")
            return target
        if kind is not ChannelKind.EMAIL:
            return check_url(target, private=self._private)
        if not _EMAIL.fullmatch(target) or not target.isascii():
            raise InvalidRequest("this is no e-mail address; write one, such as billing@example.com", param="target")
        return target


def _standing(org_id: str | None) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Channels of this owner that were not removed."""
    owner = table.c.org_id.is_(None) if org_id is None else table.c.org_id == org_id
    return owner, table.c.status != ChannelStatus.REMOVED.value


def _columns(channel: Channel) -> dict[str, Any]:
    columns: dict[str, Any] = msgspec.structs.asdict(channel)
    return columns | {
        "kind": channel.kind.value,
        "status": channel.status.value,
        "notices": [kind.value for kind in channel.notices],
    }
