"""`/admin/licence`: how a site that no network reaches stands at the bounds of its licence."""

from datetime import datetime

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from crosslogic.api.auth import Services
from crosslogic.api.models import View
from crosslogic.billing.exports.licence import Stage, worst
from crosslogic.kernel.errors import Conflict

router = APIRouter(prefix="/admin", tags=["licence"])


class BoundView(View):
    name: str
    stage: Stage
    used: str
    allowed: str


class LicenceView(BaseModel):
    id: str
    licensee: str
    issued_at: datetime
    expires_at: datetime
    nodes: int | None
    tokens_per_month: int | None
    stage: Stage
    bounds: list[BoundView]


async def _may_grow(services: Services) -> None:
    if services.licensed is not None:
        await services.licensed.check_growth()


GROWS = Depends(_may_grow)  # of routes that make the site larger; Forbidden once its licence is exceeded


@router.get("/licence")
async def get_licence(services: Services) -> LicenceView:
    """409 where there is none, which bounds nothing."""
    if services.licensed is None:
        raise Conflict("this site has no licence file; set payments.licence_file")
    licence, found = services.licensed.licence, await services.licensed.standing()
    names = ("id", "licensee", "issued_at", "expires_at", "nodes", "tokens_per_month")
    return LicenceView(
        **{name: getattr(licence, name) for name in names},
        stage=worst(found),
        bounds=[BoundView.model_validate(each) for each in found],
    )
