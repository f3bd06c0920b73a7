"""Notices in the database: raised once each, and on their way to every channel that wants them.

Invariants: a notice and its deliveries are written together or not at all; the same `once` is never raised twice,
by however many processes; a delivery that was taken is not lost with the process that took it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import RowMapping, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.insight.notices.model import (
    Channel,
    ChannelKind,
    ChannelStatus,
    Delivery,
    DeliveryStatus,
    Notice,
    NoticeKind,
    Severity,
)
from crosslogic.store.engine import reading
from crosslogic.store.tables import notice_deliveries, notices, notification_channels

TAKEN_FOR = timedelta(seconds=90)  # longer than any sender's deadline
AT_ONCE = 50
_LOOKED_UP = 500


async def raise_in(
    conn: AsyncConnection, notice: Notice, only: Channel | None = None, kinds: Sequence[ChannelKind] = ()
) -> bool:
    """Write the notice down, in the transaction of what it tells of; False when it was raised before.

    `only` is the channel that is tried, where the notice is a test; `kinds` are those of channels that
    hear of it, all when there are none.
    """
    into = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    row = msgspec.structs.asdict(notice) | {"kind": notice.kind.value, "severity": notice.severity.value}
    added = await conn.execute(into(notices).values(row).on_conflict_do_nothing(index_elements=["once"]))
    if added.rowcount == 0:
        return False
    channels = [only] if only is not None else await _channels_of(conn, notice.org_id)
    wanted = [channel for channel in channels if channel.wants(notice) and (not kinds or channel.kind in kinds)]
    if wanted:
        await conn.execute(insert(notice_deliveries), [_delivery_row(notice, channel) for channel in wanted])
    return True


class Outbox:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def raise_all(self, found: Iterable[Notice]) -> int:
        """How many of them were new. What is known costs a look at the index, for most are, round after round."""
        notices_found = list(found)
        known = await self._known([notice.once for notice in notices_found])
        new = 0
        for notice in notices_found:
            if notice.once not in known:
                async with self._engine.begin() as conn:
                    new += await raise_in(conn, notice)
        return new

    async def _known(self, onces: Sequence[str]) -> set[str]:
        known: set[str] = set()
        async with reading(self._engine) as conn:
            for start in range(0, len(onces), _LOOKED_UP):
                some = onces[start : start + _LOOKED_UP]
                query = select(notices.c.once).where(notices.c.once.in_(some))
                known |= {row.once for row in await conn.execute(query)}
        return known

    async def take(self, now: datetime, most: int = AT_ONCE) -> list[Delivery]:
        """Deliveries that are due; nobody else takes them for `TAKEN_FOR`. What is not settled by then is due again."""
        table = notice_deliveries
        due = (
            select(table.c.notice_id, table.c.channel_id)
            .where(table.c.status == DeliveryStatus.PENDING.value, table.c.due_at <= now)
            .order_by(table.c.due_at)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        async with self._engine.begin() as conn:
            keys = [(row.notice_id, row.channel_id) for row in await conn.execute(due)]
            taken = []
            for notice_id, channel_id in keys:
                await conn.execute(_at(notice_id, channel_id).values(due_at=now + TAKEN_FOR))
                taken.append(await _read(conn, notice_id, channel_id))
        return taken

    async def sent(self, delivery: Delivery, now: datetime) -> None:
        await self._settle(
            delivery, status=DeliveryStatus.SENT.value, sent_at=now, attempts=delivery.attempts + 1, problem=None
        )

    async def failed(self, delivery: Delivery, problem: str, again_at: datetime | None) -> None:
        """Tried once more at `again_at`; None: given up."""
        values: dict[str, Any] = {"attempts": delivery.attempts + 1, "problem": problem}
        if again_at is None:
            values["status"] = DeliveryStatus.FAILED.value
        else:
            values["due_at"] = again_at
        await self._settle(delivery, **values)

    async def _settle(self, delivery: Delivery, **values: Any) -> None:
        async with self._engine.begin() as conn:
            await conn.execute(_at(delivery.notice.id, delivery.channel.id).values(values))

    async def raised(
        self, org_id: str | None, *, kind: NoticeKind | None, after: str | None, limit: int
    ) -> list[Notice]:
        """Newest first; of one org, or of all when `org_id` is None. `after` is the last id of the page before."""
        query = select(notices).order_by(notices.c.id.desc()).limit(limit)
        if org_id is not None:
            query = query.where(notices.c.org_id == org_id)
        if kind is not None:
            query = query.where(notices.c.kind == kind.value)
        if after is not None:
            query = query.where(notices.c.id < after)
        async with reading(self._engine) as conn:
            return [to_notice(row) for row in (await conn.execute(query)).mappings()]

    async def deliveries(
        self, channel_id: str, *, status: DeliveryStatus | None = None, after: str | None = None, limit: int
    ) -> list[RowMapping]:
        """What became of the notices for a channel, newest first; `after` is the last notice of the page before."""
        query = (
            select(notice_deliveries, notices.c.title, notices.c.kind, notices.c.at)
            .join(notices, notices.c.id == notice_deliveries.c.notice_id)
            .where(notice_deliveries.c.channel_id == channel_id)
            .order_by(notice_deliveries.c.notice_id.desc())
            .limit(limit)
        )
        if status is not None:
            query = query.where(notice_deliveries.c.status == status.value)
        if after is not None:
            query = query.where(notice_deliveries.c.notice_id < after)
        async with reading(self._engine) as conn:
            return list((await conn.execute(query)).mappings())


async def _channels_of(conn: AsyncConnection, org_id: str | None) -> list[Channel]:
    table = notification_channels
    query = select(table).where(or_(table.c.org_id.is_(None), table.c.org_id == org_id))
    return [to_channel(row) for row in (await conn.execute(query)).mappings()]


async def _read(conn: AsyncConnection, notice_id: str, channel_id: str) -> Delivery:
    notice = (await conn.execute(select(notices).where(notices.c.id == notice_id))).mappings().one()
    channels = select(notification_channels).where(notification_channels.c.id == channel_id)
    channel = (await conn.execute(channels)).mappings().one()
    here = notice_deliveries.c
    attempts = select(here.attempts).where(here.notice_id == notice_id, here.channel_id == channel_id)
    return Delivery(to_notice(notice), to_channel(channel), (await conn.execute(attempts)).scalar_one())


def _at(notice_id: str, channel_id: str) -> Any:
    here = notice_deliveries.c
    return update(notice_deliveries).where(here.notice_id == notice_id, here.channel_id == channel_id)


def _delivery_row(notice: Notice, channel: Channel) -> dict[str, Any]:
    return {
        "notice_id": notice.id,
        "channel_id": channel.id,
        "status": DeliveryStatus.PENDING.value,
        "attempts": 0,
        "due_at": notice.at,
    }


def to_notice(row: RowMapping) -> Notice:
    return Notice(**{**row, "kind": NoticeKind(row["kind"]), "severity": Severity(row["severity"])})


def to_channel(row: RowMapping) -> Channel:
    return Channel(
        **{
            **row,
            "kind": ChannelKind(row["kind"]),
            "status": ChannelStatus(row["status"]),
            "notices": tuple(map(NoticeKind, row["notices"])),
        }
    )
