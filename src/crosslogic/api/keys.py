"""`/admin/keys`: create, list, rotate, suspend, revoke. The key itself is in one answer only: that of its creation."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from crosslogic.api.models import (
    CreatedKeyView,
    KeyChange,
    KeyCreate,
    KeyView,
    Page,
    Word,
    in_utc,
    limits_or_none,
)
from crosslogic.api.services import ApiServices, services_of
from crosslogic.kernel.ids import KeyId
from crosslogic.tenancy.model import Status
from crosslogic.tenancy.service import CreatedKey

router = APIRouter(prefix="/admin/keys", tags=["keys"])
Services = Annotated[ApiServices, Depends(services_of)]


@router.post("", status_code=201)
async def create_key(body: KeyCreate, services: Services) -> CreatedKeyView:
    created = await services.tenancy.create_key(
        body.org,
        body.environment,
        name=body.name,
        role=body.role,
        region=body.region,
        limits=limits_or_none(body.limits),
        expires_at=None if body.expires_at is None else in_utc(body.expires_at),
    )
    return _shown_once(created)


@router.get("")
async def list_keys(
    services: Services,
    org: Word | None = None,
    environment: Word | None = None,
    prefix: Word | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Page[KeyView]:
    """`prefix` is the beginning of the key's name; `environment` needs `org`."""
    found = await services.tenancy.keys(
        org=org, env=environment, name_prefix=prefix or "", status=status, after=cursor, limit=limit
    )
    return Page(data=[KeyView.of(key) for key in found], next_cursor=found[-1].id if len(found) == limit else None)


@router.get("/{key_id}")
async def get_key(key_id: Word, services: Services) -> KeyView:
    return KeyView.of(await services.tenancy.key(KeyId(key_id)))


@router.patch("/{key_id}")
async def change_key(key_id: Word, body: KeyChange, services: Services) -> KeyView:
    limits = None if body.limits is None else body.limits.value()
    return KeyView.of(await services.tenancy.change_key(KeyId(key_id), status=body.status, limits=limits))


@router.post("/{key_id}/rotate", status_code=201)
async def rotate_key(key_id: Word, services: Services) -> CreatedKeyView:
    """A new key with the same settings; the old one is refused everywhere within a second."""
    return _shown_once(await services.tenancy.rotate_key(KeyId(key_id)))


@router.post("/{key_id}/revoke")
@router.delete("/{key_id}")
async def revoke_key(key_id: Word, services: Services) -> KeyView:
    """Final, and harmless to repeat. Every gateway refuses the key within a second."""
    return KeyView.of(await services.tenancy.change_key(KeyId(key_id), status=Status.REVOKED))


def _shown_once(created: CreatedKey) -> CreatedKeyView:
    return CreatedKeyView(**KeyView.of(created.key).model_dump(), key=created.token)
