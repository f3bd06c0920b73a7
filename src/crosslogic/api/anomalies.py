"""`/admin/anomalies`: what was unusual, from when to when. For operators."""

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from crosslogic.api.auth import Services
from crosslogic.api.models import Instant, Limit, Page, View, Word, in_utc, page_of
from crosslogic.insight.anomalies.model import AnomalyType
from crosslogic.insight.notices.model import Severity
from crosslogic.kernel.errors import Unavailable

router = APIRouter(prefix="/admin/anomalies", tags=["anomalies"])


class AnomalyView(View):
    id: str
    kind: AnomalyType
    model: str
    region: str
    severity: Severity = Field(description="the worst so far")
    description: str
    suggestion: str
    facts: dict[str, Any] = Field(description="the figures, for programs")
    started_at: datetime
    seen_at: datetime = Field(description="last")
    ended_at: datetime | None = Field(description="null: it goes on")


@router.get("")
async def list_anomalies(
    services: Services,
    kind: AnomalyType | None = None,
    since: Instant | None = None,
    until: Instant | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[AnomalyView]:
    """Newest first; those of which some part lies between `since` and `until`."""
    if services.anomalies is None:
        raise Unavailable("this process looks for no anomalies")
    found = await services.anomalies.page(
        kind=kind,
        since=None if since is None else in_utc(since),
        until=None if until is None else in_utc(until),
        after=cursor,
        limit=limit,
    )
    return page_of([AnomalyView.model_validate(each) for each in found], [each.id for each in found], limit)
