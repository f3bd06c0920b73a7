"""What the routes of the management API act on. `wiring.py` builds it; no route builds anything."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fastapi import Request

from crosslogic.fleet.registry import Registry
from crosslogic.metering.model import UsageSum
from crosslogic.tenancy.jwt import JwtVerifier
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.service import TenancyService

Check = Callable[[], Awaitable[None]]


class UsageReader(Protocol):
    async def summary(
        self, org_id: str, *, start: datetime | None, end: datetime | None, group_by: Sequence[str] = ()
    ) -> list[UsageSum]:
        """Sums of the ledger rows with start ≤ timestamp < end, one for each combination of `group_by`."""
        ...


@dataclass(frozen=True)
class ApiServices:
    tenancy: TenancyService
    usage: UsageReader
    nodes: Registry
    admin_key_hash: bytes = field(repr=False)
    hash_key: KeyHasher
    checks: Mapping[str, Check]  # what /ready asks, by the name that it tells; a failing check raises
    jwt: JwtVerifier | None = None  # None: JSON web tokens are not accepted


def services_of(request: Request) -> ApiServices:
    """The services of the app that serves this request; for `Depends`."""
    services = request.app.state.services
    assert isinstance(services, ApiServices)
    return services
