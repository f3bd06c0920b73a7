"""Who may use `/admin` and `/api/v1`, and as whom they act in the audit log.

`/admin`: whoever presents the configured admin key, or that of an active operator. `/api/v1`: whoever presents an
API key or JSON web token with the role admin of an org; they see that org and nothing else.

Invariant: the presented key meets the stored one only as a hash, compared in constant time.
"""

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from crosslogic.api.services import ApiServices, services_of
from crosslogic.kernel.errors import Forbidden, Unauthenticated
from crosslogic.kernel.ids import UserId
from crosslogic.tenancy.audit import Actor, ActorKind
from crosslogic.tenancy.jwt import looks_like_token
from crosslogic.tenancy.keys import KeyKind, kind_of
from crosslogic.tenancy.model import Org, Role, Status
from crosslogic.tenancy.service import TenancyService

ROOT_OPERATOR = "root"  # who has the configured admin key
_READING = frozenset({"GET", "HEAD"})

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


@dataclass(frozen=True)
class Home:
    """The org of the caller, and the service that acts for them."""

    org: Org
    tenancy: TenancyService
    user_id: UserId | None


async def require_member(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_member_bearer)],
    services: Services,
) -> Home:
    """Raises Unauthenticated for nobody, Forbidden for a caller whose role is not admin or who is suspended."""
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
    if member.role is not Role.ADMIN:
        raise Forbidden("this needs an API key or token with the role admin")
    actor = Actor(member.kind, member.id, request.state.request_id)
    return Home(member.org, services.tenancy.acting_as(actor), member.user_id)


OwnHome = Annotated[Home, Depends(require_member)]
