"""Who may use `/admin`: whoever presents the admin key.

Invariant: the presented key meets the stored one only as a hash, compared in constant time.
"""

import hmac
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from crosslogic.api.services import ApiServices, services_of
from crosslogic.kernel.errors import Forbidden, Unauthenticated
from crosslogic.tenancy.keys import KeyKind, kind_of

_bearer = HTTPBearer(auto_error=False, scheme_name="admin key", description="clsk_admin_…")


async def require_admin(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    services: Annotated[ApiServices, Depends(services_of)],
) -> None:
    """Raises Unauthenticated without a right key, Forbidden for a tenant's API key.

    A tenant's key is told by its form alone: the answer must not say whether it exists.
    """
    if credentials is None:
        raise Unauthenticated("send the admin key as 'Authorization: Bearer clsk_admin_…'")
    token = credentials.credentials
    if hmac.compare_digest(services.hash_key(token.encode("utf-8", "replace")), services.admin_key_hash):
        return
    if kind_of(token) in (KeyKind.LIVE, KeyKind.TEST):
        raise Forbidden("an API key of a tenant may not administer; use the admin key")
    raise Unauthenticated("this admin key is not valid")
