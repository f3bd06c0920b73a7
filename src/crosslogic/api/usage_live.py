"""`/admin/usage-live` and `/api/v1/usage/live`: what the requests that run now have used so far, streams included.

It is some two seconds old, and no bill: what a request used comes into the ledger when it ends.
"""

from collections.abc import Sequence

from fastapi import APIRouter
from pydantic import BaseModel, Field

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services
from crosslogic.api.models import Limit, Word
from crosslogic.api.services import ApiServices
from crosslogic.kernel.errors import Unavailable
from crosslogic.metering.live.model import LiveUsage, total

router = APIRouter(prefix="/admin/usage-live", tags=["usage"])
own_router = APIRouter(prefix="/api/v1/usage/live", tags=["usage"])


class LiveSums(BaseModel):
    requests: int
    streams: int = Field(description="of them, those whose answers are streamed")
    prompt_tokens: int = Field(description="estimated until the engine tells")
    completion_tokens: int = Field(description="of streams, as far as they have come; they say so every second")

    @classmethod
    def summed(cls, usage: LiveUsage) -> "LiveSums":
        return cls(
            requests=usage.requests,
            streams=usage.streams,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )


class LiveKeyView(LiveSums):
    org_id: str
    env_id: str
    key_id: str

    @classmethod
    def of(cls, usage: LiveUsage) -> "LiveKeyView":
        sums = LiveSums.summed(usage).model_dump()
        return cls(org_id=usage.org_id, env_id=usage.env_id, key_id=usage.key_id, **sums)


class LiveView(BaseModel):
    data: list[LiveKeyView] = Field(description="by key")
    by_environment: dict[str, LiveSums] = Field(description="of all keys, not only those of this page")
    totals: LiveSums
    next_cursor: str | None = Field(default=None, description="what `cursor` takes to get the next page")


@router.get("")
async def list_live(
    tenancy: OperatorTenancy,
    services: Services,
    org: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> LiveView:
    """What runs now, of every key; `totals` are those of the whole cloud, or of the org that is asked for."""
    org_id = None if org is None else (await tenancy.org(org)).id
    return await _live(services, org_id, None, cursor, limit)


@own_router.get("")
async def list_own_live(
    home: OwnHome,
    services: Services,
    env: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> LiveView:
    """What runs now, of each key of the caller's own org."""
    env_id = None if env is None else (await home.tenancy.environment(home.org.id, env)).id
    return await _live(services, home.org.id, env_id, cursor, limit)


async def _live(services: ApiServices, org_id: str | None, env_id: str | None, cursor: str | None, n: int) -> LiveView:
    if services.live is None:
        raise Unavailable("this process does not see what runs")
    found = [
        each for each in await services.live.live() if org_id in (None, each.org_id) and env_id in (None, each.env_id)
    ]
    page = [each for each in found if cursor is None or _key(each) > cursor][:n]
    environments: dict[str, list[LiveUsage]] = {}
    for each in found:
        environments.setdefault(each.env_id, []).append(each)
    return LiveView(
        data=[LiveKeyView.of(each) for each in page],
        by_environment={name: _sums(each) for name, each in environments.items()},
        totals=_sums(found),
        next_cursor=_key(page[-1]) if len(page) == n else None,
    )


def _sums(of: Sequence[LiveUsage]) -> LiveSums:
    return LiveSums.summed(total(of))


def _key(usage: LiveUsage) -> str:
    return f"{usage.org_id} {usage.env_id} {usage.key_id}"
