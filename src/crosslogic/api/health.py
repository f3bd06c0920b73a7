"""`/health` says that the process runs; `/ready` whether all that it depends on answers. Neither asks for a key."""

import asyncio
import logging
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from crosslogic.api.services import ApiServices, Check, services_of

CHECK_TIMEOUT_S = 1.0

router = APIRouter(tags=["health"])
_log = logging.getLogger(__name__)


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    status: str
    failing: list[str]


@router.get("/health")
async def health() -> Health:
    return Health(status="ok")


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(response: Response, services: Annotated[ApiServices, Depends(services_of)]) -> Readiness:
    """All checks at once, a second for each; 503 names those that fail, and only names: why is in the log."""
    names = list(services.checks)
    passed = await asyncio.gather(*(_passes(name, services.checks[name]) for name in names))
    failing = [name for name, ok in zip(names, passed, strict=True) if not ok]
    if failing:
        response.status_code = 503
    return Readiness(status="unavailable" if failing else "ready", failing=failing)


async def _passes(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except Exception as error:  # whatever a dependency throws, it is not ready
        _log.warning("readiness: %s fails (%s)", name, type(error).__name__)
        return False
    return True
