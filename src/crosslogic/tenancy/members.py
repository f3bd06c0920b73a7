"""Who calls the management API on behalf of an org: with an API key, or with a JSON web token of one of its users.

Read from the database at each call, so that a revoked key cannot manage for one moment more. The rules are those of
the request path: the same directory, filled with just this caller, and the same scope check.
"""

import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Forbidden, NotFound, Unauthenticated
from crosslogic.kernel.ids import OrgId, UserId
from crosslogic.tenancy import keys
from crosslogic.tenancy.accounts_sql import UsersSql
from crosslogic.tenancy.audit import ActorKind
from crosslogic.tenancy.claims import Identity
from crosslogic.tenancy.directory import Directory
from crosslogic.tenancy.jwt import JwtVerifier
from crosslogic.tenancy.jwt_users import caller_id
from crosslogic.tenancy.model import Org, Role, Status, User
from crosslogic.tenancy.scope_check import MANAGEMENT, comes_from_elsewhere, refusal_of
from crosslogic.tenancy.sql import TenancySql

_NOBODY = "this API key or token is not valid"


class Member(msgspec.Struct, frozen=True):
    """A caller whose org is active, or may still see to its bills (`Org.may_pay`)."""

    org: Org
    role: Role
    kind: ActorKind
    id: str  # of the key, the user, or the subject of the token
    user_id: UserId | None


class Members:
    """Raises Unauthenticated for nobody, Forbidden for somebody who may not (`code` says why)."""

    def __init__(self, sql: TenancySql, users: UsersSql, hash_key: keys.KeyHasher, clock: Clock) -> None:
        self._sql = sql
        self._users = users
        self._hash_key = hash_key
        self._clock = clock

    async def of_key(self, token: str, client_ip: str | None) -> Member:
        """A malformed key is refused before any look-up."""
        stored = await self._sql.key_by_hash(self._hash_key(token.encode())) if keys.looks_valid(token) else None
        if stored is None:
            raise Unauthenticated(_NOBODY)
        org = await self._sql.org(stored.org_id)
        directory = Directory(self._hash_key)
        env = await self._sql.environment(org.id, stored.env_id)
        paying = msgspec.structs.replace(org, status=Status.ACTIVE) if org.may_pay else org
        directory.replace([paying], [env], await self._sql.entries([stored.id]))
        principal = directory.resolve(token.encode())
        if principal is None or principal.refusal == "key_revoked" or comes_from_elsewhere(principal, client_ip):
            raise Unauthenticated(_NOBODY)
        if principal.expires_at_s is not None and principal.expires_at_s <= self._clock.now().timestamp():
            raise Unauthenticated("this API key has expired")
        refusal = principal.refusal or refusal_of(principal, MANAGEMENT)
        if refusal is not None:
            raise Forbidden(_MESSAGES.get(refusal, "this API key may not be used here"), code=refusal)
        return Member(org, principal.role, ActorKind.KEY, stored.id, stored.created_by)

    async def of_web_token(self, token: str, verifier: JwtVerifier) -> Member:
        identity = await verifier.verify_waiting(token.encode())
        if not isinstance(identity, Identity):
            raise Unauthenticated(_NOBODY)
        try:
            org = await self._sql.org(identity.org)
        except NotFound:
            raise Unauthenticated(_NOBODY) from None
        user = await self._user(org.id, identity.email)
        if not org.may_pay:
            raise Forbidden(_MESSAGES["tenant_suspended"], code="tenant_suspended")
        if user is not None and user.status is not Status.ACTIVE:
            raise Forbidden(_MESSAGES["user_suspended"], code="user_suspended")
        role = identity.role or (verifier.rules.default_role if user is None else user.role)
        user_id = None if user is None else user.id
        return Member(org, role, ActorKind.USER, user_id or caller_id(identity), user_id)

    async def _user(self, org_id: OrgId, email: str | None) -> User | None:
        if email is None or "@" not in email:
            return None
        try:
            return await self._users.user(org_id, email)
        except NotFound:
            return None


_MESSAGES = {
    "tenant_suspended": "this tenant is suspended",
    "key_suspended": "this API key is suspended",
    "user_suspended": "this user is suspended",
    "endpoint_not_allowed": "this API key may not manage; its endpoints do not include `management`",
}
