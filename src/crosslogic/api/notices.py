"""`/api/v1/notices` and `/api/v1/notification-channels`: what an org was told, and where it wants to be told;
`/admin/…`: the same for operators, who are told of every org."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends

from crosslogic.api.auth import OwnHome, Services, require_operator
from crosslogic.api.models import Limit, Page, Word, page_of
from crosslogic.api.notice_models import (
    ChannelChange,
    ChannelCreate,
    ChannelView,
    CreatedChannelView,
    DeliveryView,
    NoticeView,
    PlatformNoticeView,
)
from crosslogic.insight.notices.channels import ChannelService
from crosslogic.insight.notices.model import ChannelKind, ChannelStatus, DeliveryStatus, NoticeKind
from crosslogic.tenancy.audit import Actor

router = APIRouter(prefix="/admin", tags=["notices"])
own_router = APIRouter(prefix="/api/v1", tags=["notices"])

_CHANNELS = "/notification-channels"


class Desk:
    """The channels of one owner: an org, or (None) the operators. Every route of both paths acts through one."""

    def __init__(self, service: ChannelService, org_id: str | None) -> None:
        self._service = service
        self._org_id = org_id

    async def add(self, body: ChannelCreate) -> CreatedChannelView:
        channel = await self._service.add(self._org_id, body.name, body.kind, body.target, body.notices)
        return CreatedChannelView.model_validate(channel)

    async def channels(
        self, kind: ChannelKind | None, status: ChannelStatus | None, cursor: str | None, limit: int
    ) -> Page[ChannelView]:
        found = await self._service.channels(self._org_id, kind=kind, status=status, after=cursor, limit=limit)
        return page_of([ChannelView.of(each) for each in found], [each.id for each in found], limit)

    async def channel(self, channel_id: str) -> ChannelView:
        return ChannelView.of(await self._service.channel(channel_id, self._org_id))

    async def change(self, channel_id: str, body: ChannelChange) -> ChannelView:
        changed = await self._service.change(
            channel_id,
            self._org_id,
            name=body.name,
            target=body.target,
            wanted=body.notices,
            status=body.status,
        )
        return ChannelView.of(changed)

    async def rotate(self, channel_id: str) -> CreatedChannelView:
        return CreatedChannelView.model_validate(await self._service.rotate_secret(channel_id, self._org_id))

    async def remove(self, channel_id: str) -> None:
        await self._service.remove(channel_id, self._org_id)

    async def test(self, channel_id: str) -> NoticeView:
        return NoticeView.of(await self._service.test(channel_id, self._org_id))

    async def deliveries(
        self, channel_id: str, status: DeliveryStatus | None, cursor: str | None, limit: int
    ) -> Page[DeliveryView]:
        await self._service.channel(channel_id, self._org_id)
        found = await self._service.outbox.deliveries(channel_id, status=status, after=cursor, limit=limit)
        views = [DeliveryView.model_validate(dict(row)) for row in found]
        return page_of(views, [row["notice_id"] for row in found], limit)


def _operators_desk(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> Desk:
    return Desk(services.channels.acting_as(actor), None)


def _own_desk(home: OwnHome, services: Services) -> Desk:
    return Desk(services.channels.acting_as(home.actor), home.org.id)


@router.get("/notices")
async def list_notices(
    services: Services, kind: NoticeKind | None = None, cursor: Word | None = None, limit: Limit = 100
) -> Page[PlatformNoticeView]:
    """Newest first, of all orgs and of none."""
    found = await services.channels.outbox.raised(None, kind=kind, after=cursor, limit=limit)
    return page_of([PlatformNoticeView.model_validate(each) for each in found], [each.id for each in found], limit)


@own_router.get("/notices")
async def list_own_notices(
    home: OwnHome,
    services: Services,
    kind: NoticeKind | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[NoticeView]:
    """Newest first."""
    found = await services.channels.outbox.raised(home.org.id, kind=kind, after=cursor, limit=limit)
    return page_of([NoticeView.of(each) for each in found], [each.id for each in found], limit)


def _offer(routes: APIRouter, desk_of: Callable[..., Desk], whose: str) -> None:
    """The routes of channels, once for each kind of owner."""
    owned = Depends(desk_of)

    @routes.post(_CHANNELS, status_code=201, name=f"add {whose} channel")
    async def add_channel(body: ChannelCreate, desk: Desk = owned) -> CreatedChannelView:
        """Be told there. The secret of a webhook is in this answer and in no other."""
        return await desk.add(body)

    @routes.get(_CHANNELS, name=f"list {whose} channels")
    async def list_channels(
        kind: ChannelKind | None = None,
        status: ChannelStatus | None = None,
        cursor: Word | None = None,
        limit: Limit = 100,
        desk: Desk = owned,
    ) -> Page[ChannelView]:
        return await desk.channels(kind, status, cursor, limit)

    @routes.get(_CHANNELS + "/{channel_id}", name=f"get {whose} channel")
    async def get_channel(channel_id: Word, desk: Desk = owned) -> ChannelView:
        return await desk.channel(channel_id)

    @routes.patch(_CHANNELS + "/{channel_id}", name=f"change {whose} channel")
    async def change_channel(channel_id: Word, body: ChannelChange, desk: Desk = owned) -> ChannelView:
        return await desk.change(channel_id, body)

    @routes.delete(_CHANNELS + "/{channel_id}", status_code=204, name=f"remove {whose} channel")
    async def remove_channel(channel_id: Word, desk: Desk = owned) -> None:
        """Nothing is sent there any more."""
        await desk.remove(channel_id)

    @routes.post(_CHANNELS + "/{channel_id}/rotate", name=f"rotate secret of {whose} channel")
    async def rotate_secret(channel_id: Word, desk: Desk = owned) -> CreatedChannelView:
        """A new secret of a webhook, from the next notice on."""
        return await desk.rotate(channel_id)

    @routes.post(_CHANNELS + "/{channel_id}/test", status_code=202, name=f"test {whose} channel")
    async def test_channel(channel_id: Word, desk: Desk = owned) -> NoticeView:
        """Send a notice there; what became of it is among the channel's deliveries."""
        return await desk.test(channel_id)

    @routes.get(_CHANNELS + "/{channel_id}/deliveries", name=f"list deliveries of {whose} channel")
    async def list_deliveries(
        channel_id: Word,
        status: DeliveryStatus | None = None,
        cursor: Word | None = None,
        limit: Limit = 50,
        desk: Desk = owned,
    ) -> Page[DeliveryView]:
        """What became of the notices for it, newest first."""
        return await desk.deliveries(channel_id, status, cursor, limit)


_offer(router, _operators_desk, "operators'")
_offer(own_router, _own_desk, "own")
