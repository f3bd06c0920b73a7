"""`/admin/orgs/{org}/users` and `/api/v1/users`: the people of an org. A user is named by id or e-mail address."""

from fastapi import APIRouter

from crosslogic.api.account_models import UserChange, UserCreate, UserView
from crosslogic.api.auth import OperatorTenancy, OwnHome
from crosslogic.api.limit_models import limits_given, limits_or_none
from crosslogic.api.models import Limit, Page, Word, page_of
from crosslogic.kernel.ids import OrgId
from crosslogic.tenancy.accounts import UserService
from crosslogic.tenancy.model import Role, Status

router = APIRouter(prefix="/admin/orgs/{org}/users", tags=["users"])
own_router = APIRouter(prefix="/api/v1/users", tags=["users"])


@router.post("", status_code=201)
async def create_user(org: Word, body: UserCreate, tenancy: OperatorTenancy) -> UserView:
    return await _create(tenancy.users, (await tenancy.org(org)).id, body)


@router.get("")
async def list_users(
    org: Word,
    tenancy: OperatorTenancy,
    prefix: Word | None = None,
    role: Role | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[UserView]:
    """`prefix` is the beginning of the e-mail address."""
    return await _list(tenancy.users, (await tenancy.org(org)).id, prefix, role, status, cursor, limit)


@router.get("/{user}")
async def get_user(org: Word, user: Word, tenancy: OperatorTenancy) -> UserView:
    return UserView.of(await tenancy.users.user((await tenancy.org(org)).id, user))


@router.patch("/{user}")
async def change_user(org: Word, user: Word, body: UserChange, tenancy: OperatorTenancy) -> UserView:
    """A suspended user's tokens are refused on every gateway within a second; keys belong to the org and work on."""
    return await _change(tenancy.users, (await tenancy.org(org)).id, user, body)


@router.delete("/{user}")
async def remove_user(org: Word, user: Word, tenancy: OperatorTenancy) -> UserView:
    """The record stays, as `revoked`: keys and the audit log name it."""
    org_id = (await tenancy.org(org)).id
    return UserView.of(await tenancy.users.change(org_id, user, status=Status.REVOKED))


@own_router.post("", status_code=201)
async def create_own_user(body: UserCreate, home: OwnHome) -> UserView:
    return await _create(home.tenancy.users, home.org.id, body)


@own_router.get("")
async def list_own_users(
    home: OwnHome,
    prefix: Word | None = None,
    role: Role | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[UserView]:
    """`prefix` is the beginning of the e-mail address."""
    return await _list(home.tenancy.users, home.org.id, prefix, role, status, cursor, limit)


@own_router.get("/{user}")
async def get_own_user(user: Word, home: OwnHome) -> UserView:
    return UserView.of(await home.tenancy.users.user(home.org.id, user))


@own_router.patch("/{user}")
async def change_own_user(user: Word, body: UserChange, home: OwnHome) -> UserView:
    """A suspended user's tokens are refused on every gateway within a second; keys belong to the org and work on."""
    return await _change(home.tenancy.users, home.org.id, user, body)


@own_router.delete("/{user}")
async def remove_own_user(user: Word, home: OwnHome) -> UserView:
    """The record stays, as `revoked`: keys and the audit log name it."""
    return UserView.of(await home.tenancy.users.change(home.org.id, user, status=Status.REVOKED))


async def _create(users: UserService, org_id: OrgId, body: UserCreate) -> UserView:
    user = await users.create(org_id, body.email, name=body.name, role=body.role, limits=limits_or_none(body.limits))
    return UserView.of(user)


async def _list(
    users: UserService,
    org_id: OrgId,
    prefix: str | None,
    role: Role | None,
    status: Status | None,
    cursor: str | None,
    limit: int,
) -> Page[UserView]:
    found = await users.users(org_id, email_prefix=prefix or "", role=role, status=status, after=cursor, limit=limit)
    return page_of([UserView.of(user) for user in found], [user.id for user in found], limit)


async def _change(users: UserService, org_id: OrgId, user: str, body: UserChange) -> UserView:
    changed = await users.change(
        org_id, user, name=body.name, role=body.role, status=body.status, limits=limits_given(body.limits)
    )
    return UserView.of(changed)
