"""The first tenant of an embedded installation, so that `crosslogic up` has a key to print."""

import msgspec

from crosslogic.kernel.errors import NotFound
from crosslogic.tenancy import keys
from crosslogic.tenancy.model import Environment, Org, Status
from crosslogic.tenancy.service import TenancyService

DEFAULT_ORG = "default"
DEFAULT_ORG_PLAN = "enterprise"  # the owner of the machine is not to be held by a free plan
DEFAULT_ENVIRONMENTS = ("dev", "staging", "prod")
FIRST_KEY_ENVIRONMENT = "dev"


class Bootstrap(msgspec.Struct, frozen=True):
    """`token` works now; the caller keeps it for the next start, in a file that only its owner reads."""

    org: Org
    environments: tuple[Environment, ...]
    token: str

    def __repr__(self) -> str:
        return f"Bootstrap({self.org.id})"


async def ensure_bootstrap(service: TenancyService, remembered: str | None = None) -> Bootstrap:
    """Create what is absent of: org `default`, its environments dev, staging and prod, and a first key.

    `remembered` is the token of an earlier start: it is kept when it still works, stored when the database does
    not know it (a new data directory), and followed by a new key when it was revoked or suspended.
    """
    try:
        org = await service.org(DEFAULT_ORG)
    except NotFound:
        org = await service.create_org(DEFAULT_ORG, billing_plan=DEFAULT_ORG_PLAN)
    environments = []
    for name in DEFAULT_ENVIRONMENTS:
        try:
            environments.append(await service.environment(org.id, name))
        except NotFound:
            environments.append(await service.create_environment(org.id, name))
    if remembered is not None and keys.looks_valid(remembered):
        known = await service.key_of_token(remembered)
        if known is not None and known.status is Status.ACTIVE and known.expires_at is None:
            return Bootstrap(org, tuple(environments), remembered)
        remembered = remembered if known is None else None
    else:
        remembered = None
    created = await service.create_key(org.id, FIRST_KEY_ENVIRONMENT, name="first key", token=remembered)
    return Bootstrap(org, tuple(environments), created.token)
