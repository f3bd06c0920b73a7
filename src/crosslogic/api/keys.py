"""`/admin/keys` and `/api/v1/keys`: create, list, rotate, suspend, revoke. The key itself is in one answer only:
that of its creation, or of the rotation that made it."""

from typing import Annotated

from fastapi import APIRouter, Header, Response

from crosslogic.api.auth import OperatorTenancy, OwnHome
from crosslogic.api.limit_models import limits_given, limits_or_none
from crosslogic.api.models import (
    CreatedKeyView,
    KeyChange,
    KeyCreate,
    KeyRotation,
    KeyView,
    Limit,
    OwnKeyCreate,
    Page,
    RotatedKeyView,
    Word,
    in_utc,
    page_of,
)
from crosslogic.kernel.ids import KeyId, OrgId, UserId
from crosslogic.tenancy.model import Role, Status
from crosslogic.tenancy.service import TenancyService

router = APIRouter(prefix="/admin/keys", tags=["keys"])
own_router = APIRouter(prefix="/api/v1/keys", tags=["keys"])

IdempotencyKey = Annotated[
    Word | None, Header(alias="Idempotency-Key", description="a repeat under the same one makes no second key")
]


@router.post("", status_code=201)
async def create_key(body: KeyCreate, tenancy: OperatorTenancy) -> CreatedKeyView:
    return await _create(tenancy, body.org, body)


@router.get("")
async def list_keys(
    tenancy: OperatorTenancy,
    org: Word | None = None,
    environment: Word | None = None,
    prefix: Word | None = None,
    status: Status | None = None,
    role: Role | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[KeyView]:
    """`prefix` is the beginning of the key's name; `environment` needs `org`."""
    return await _list(tenancy, org, environment, prefix, status, role, cursor, limit)


@router.get("/{key_id}")
async def get_key(key_id: Word, tenancy: OperatorTenancy) -> KeyView:
    return KeyView.of(await tenancy.key(KeyId(key_id)))


@router.patch("/{key_id}")
async def change_key(key_id: Word, body: KeyChange, tenancy: OperatorTenancy) -> KeyView:
    return await _change(tenancy, key_id, body)


@router.post("/{key_id}/rotate", status_code=201)
async def rotate_key(
    key_id: Word,
    tenancy: OperatorTenancy,
    response: Response,
    body: KeyRotation | None = None,
    idempotency_key: IdempotencyKey = None,
) -> RotatedKeyView:
    """A new key with the same settings; the old one works for `grace_s` more seconds, by default for none.

    Repeated under the same Idempotency-Key, or without one within the grace, it answers 200 with the key that the
    first call made, and `key` is null: that is shown once.
    """
    return await _rotate(tenancy, key_id, body, idempotency_key, response)


@router.post("/{key_id}/revoke")
@router.delete("/{key_id}")
async def revoke_key(key_id: Word, tenancy: OperatorTenancy) -> KeyView:
    """Final, and harmless to repeat. Every gateway refuses the key within a second."""
    return KeyView.of(await tenancy.change_key(KeyId(key_id), status=Status.REVOKED))


@own_router.post("", status_code=201)
async def create_own_key(body: OwnKeyCreate, home: OwnHome) -> CreatedKeyView:
    return await _create(home.tenancy, home.org.id, body, home.user_id)


@own_router.get("")
async def list_own_keys(
    home: OwnHome,
    environment: Word | None = None,
    prefix: Word | None = None,
    status: Status | None = None,
    role: Role | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[KeyView]:
    """`prefix` is the beginning of the key's name."""
    return await _list(home.tenancy, home.org.id, environment, prefix, status, role, cursor, limit)


@own_router.get("/{key_id}")
async def get_own_key(key_id: Word, home: OwnHome) -> KeyView:
    return KeyView.of(await home.tenancy.key(KeyId(key_id), home.org.id))


@own_router.patch("/{key_id}")
async def change_own_key(key_id: Word, body: KeyChange, home: OwnHome) -> KeyView:
    return await _change(home.tenancy, key_id, body, home.org.id)


@own_router.post("/{key_id}/rotate", status_code=201)
async def rotate_own_key(
    key_id: Word,
    home: OwnHome,
    response: Response,
    body: KeyRotation | None = None,
    idempotency_key: IdempotencyKey = None,
) -> RotatedKeyView:
    """As operators rotate: the answer to a repeat is 200 with `key` null."""
    return await _rotate(home.tenancy, key_id, body, idempotency_key, response, home.org.id)


@own_router.post("/{key_id}/revoke")
@own_router.delete("/{key_id}")
async def revoke_own_key(key_id: Word, home: OwnHome) -> KeyView:
    """Final, and harmless to repeat. Every gateway refuses the key within a second."""
    return KeyView.of(await home.tenancy.change_key(KeyId(key_id), status=Status.REVOKED, org_id=home.org.id))


async def _create(
    tenancy: TenancyService, org: str, body: OwnKeyCreate, created_by: UserId | None = None
) -> CreatedKeyView:
    created = await tenancy.create_key(
        org,
        body.environment,
        name=body.name,
        role=body.role,
        region=body.region,
        limits=limits_or_none(body.limits),
        expires_at=None if body.expires_at is None else in_utc(body.expires_at),
        created_by=created_by,
        scoping=body.scope(),
    )
    return CreatedKeyView(**KeyView.of(created.key).model_dump(), key=created.token)


async def _list(
    tenancy: TenancyService,
    org: str | None,
    env: str | None,
    prefix: str | None,
    status: Status | None,
    role: Role | None,
    cursor: str | None,
    limit: int,
) -> Page[KeyView]:
    found = await tenancy.keys(
        org=org, env=env, name_prefix=prefix or "", status=status, role=role, after=cursor, limit=limit
    )
    return page_of([KeyView.of(key) for key in found], [key.id for key in found], limit)


async def _change(tenancy: TenancyService, key_id: str, body: KeyChange, org_id: OrgId | None = None) -> KeyView:
    changed = await tenancy.change_key(
        KeyId(key_id),
        status=body.status,
        limits=limits_given(body.limits),
        name=body.name,
        scoping=None if body.scoping is None else body.scoping.value(),
        org_id=org_id,
    )
    return KeyView.of(changed)


async def _rotate(
    tenancy: TenancyService,
    key_id: str,
    body: KeyRotation | None,
    ref: str | None,
    response: Response,
    org_id: OrgId | None = None,
) -> RotatedKeyView:
    grace_s = 0.0 if body is None else body.grace_s
    rotated = await tenancy.rotate_key(KeyId(key_id), grace_s=grace_s, ref=ref, org_id=org_id)
    if rotated.token is None:
        response.status_code = 200
    return RotatedKeyView(**KeyView.of(rotated.key).model_dump(), key=rotated.token)
