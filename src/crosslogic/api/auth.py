"""Who may use `/admin` and `/api/v1`, and as whom they act in the audit log.

`/admin`: whoever presents the configured admin key, or that of an active operator. `/api/v1`: whoever presents an
API key or JSON web token with the role admin of an org; they see that org and nothing else. The role read-only
may look at all of it, and change nothing.

Invariant: the presented key meets the stored one only as a hash, compared in constant time.
"""

import hmac
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.api.services import ApiServices, services_of
from crosslogic.fleet.model import Node
from crosslogic.fleet.registry import Registry
from crosslogic.kernel.errors import Forbidden, Unauthenticated
from crosslogic.kernel.ids import UserId
from crosslogic.tenancy.audit import Actor, ActorKind, difference
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.jwt import looks_like_token
from crosslogic.tenancy.keys import KeyKind, kind_of
from crosslogic.tenancy.model import Org, Role, Status
from crosslogic.tenancy.service import TenancyService

ROOT_OPERATOR = "root"  # who has the configured admin key
_READING = frozenset({"GET", "HEAD"})
_BILLS = "/api/v1/billing/"  # for who is suspended until they are paid

_admin_bearer = HTTPBearer(auto_error=False, scheme_name="admin key", description="clsk_admin_…")
_member_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="clsk_live_…, or a JSON web token")

Services = Annotated[ApiServices, Depends(services_of)]


async def require_operator(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_admin_bearer)],
    services: Services,
) -> Actor:
    """Raises Unauthenticated without a right key, Forbidden for a tenant's API key and for writing by a reader.

    A tenant's key is told by its form alone: the answer must not say whether it exists.
    """
    if credentials is None:
        raise Unauthenticated("send the admin key as 'Authorization: Bearer clsk_admin_…'")
    token = credentials.credentials
    request_id = request.state.request_id
    if hmac.compare_digest(services.hash_key(token.encode("utf-8", "replace")), services.admin_key_hash):
        return Actor(ActorKind.OPERATOR, ROOT_OPERATOR, request_id)
    if kind_of(token) in (KeyKind.LIVE, KeyKind.TEST):
        raise Forbidden("an API key of a tenant may not administer; use the admin key")
    operator = await services.tenancy.operators.of_token(token)
    if operator is None or operator.status is Status.REVOKED:
        raise Unauthenticated("this admin key is not valid")
    if operator.status is not Status.ACTIVE:
        raise Forbidden("this operator is suspended", code="operator_suspended")
    if operator.role is not Role.ADMIN and request.method not in _READING:
        raise Forbidden("this operator may look, but change nothing")
    return Actor(ActorKind.OPERATOR, operator.id, request_id)


def _as_operator(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> TenancyService:
    return services.tenancy.acting_as(actor)


# What the routes of /admin act through: whatever it changes is written down as done by the operator.
OperatorTenancy = Annotated[TenancyService, Depends(_as_operator)]


def nodes_as_operator(tenancy: OperatorTenancy, services: Services) -> Registry:
    """The node registry, with what is done to nodes written down as done by the operator."""

    async def record(conn: AsyncConnection, action: str, before: Node | None, after: Node | None) -> None:
        node = after or before
        assert node is not None
        was, became = (None if each is None else _lasting(each) for each in (before, after))
        if was is not None and became is not None:
            was, became = difference(was, became)
        await tenancy.audit.trail.append(conn, action, node.id, org_id=node.org_id, before=was, after=became)

    return services.nodes.recording(record)


_PASSING = ("load", "health_score", "health", "last_heartbeat_at", "draining_since")


def _lasting(node: Node) -> dict[str, Any]:
    """What a node is, without what each heartbeat changes."""
    fields = msgspec.structs.asdict(node)
    return {name: value for name, value in fields.items() if name not in _PASSING}


def _trail_of(tenancy: OperatorTenancy) -> AuditTrail:
    return tenancy.audit.trail


# What rooms other than tenancy write down operators' deeds with.
OperatorTrail = Annotated[AuditTrail, Depends(_trail_of)]


@dataclass(frozen=True)
class Home:
    """The org of the caller, and the service that acts for them."""

    org: Org
    tenancy: TenancyService
    user_id: UserId | None
    actor: Actor


async def require_member(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_member_bearer)],
    services: Services,
) -> Home:
    """Raises Unauthenticated for nobody, Forbidden for who is suspended and for what the caller's role may not do."""
    if credentials is None:
        raise Unauthenticated("send an API key with the role admin as 'Authorization: Bearer clsk_…'")
    token = credentials.credentials
    members = services.tenancy.members
    if services.jwt is not None and looks_like_token(token.encode("utf-8", "replace")):
        member = await members.of_web_token(token, services.jwt)
    elif kind_of(token) is KeyKind.ADMIN:
        raise Forbidden("the admin key is of no org; use /admin")
    else:
        member = await members.of_key(token, request.client.host if request.client else None)
    if member.role is Role.DEVELOPER:
        raise Forbidden("this needs an API key or token with the role admin, or read-only to look")
    if member.role is not Role.ADMIN and request.method not in _READING:
        raise Forbidden("this API key or token may look, but change nothing")
    if member.org.status is not Status.ACTIVE and not request.url.path.startswith(_BILLS):
        raise Forbidden("this tenant is suspended until its bills are paid", code="tenant_suspended")
    actor = Actor(member.kind, member.id, request.state.request_id)
    return Home(member.org, services.tenancy.acting_as(actor), member.user_id, actor)


OwnHome = Annotated[Home, Depends(require_member)]
