"""`/admin/capacity/reservations`: promise, look at, change and cancel reserved capacity; `/api/v1/capacity`: an org's
own, with what it uses of it."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services, require_operator
from crosslogic.api.capacity_models import (
    OwnReservationView,
    ReservationChange,
    ReservationCreate,
    ReservationView,
)
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.api.services import ApiServices
from crosslogic.capacity.model import Reservation, ReservationState
from crosslogic.capacity.service import CapacityService
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import NodeId, ReservationId
from crosslogic.kernel.money import PUSD_PER_USD
from crosslogic.tenancy.audit import Actor

USED_OVER_S = 60.0

router = APIRouter(prefix="/admin/capacity/reservations", tags=["capacity"])
own_router = APIRouter(prefix="/api/v1/capacity", tags=["capacity"])

IdempotencyKey = Annotated[
    Word | None, Header(alias="Idempotency-Key", description="a repeat under the same one makes no second reservation")
]


def _as_operator(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> CapacityService:
    return services.capacity.acting_as(actor)


OperatorCapacity = Annotated[CapacityService, Depends(_as_operator)]


@router.post("", status_code=201)
async def reserve(
    body: ReservationCreate,
    capacity: OperatorCapacity,
    tenancy: OperatorTenancy,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ReservationView:
    """Promise capacity units to an org. 409 when the nodes cannot carry that many more; `force` promises them anyway.

    Repeated under the same Idempotency-Key it answers 200 with the reservation that the first call made.
    """
    reserved = await capacity.reserve(
        (await tenancy.org(body.org)).id,
        body.model,
        body.units,
        expires_at=_instant(body.expires_at),
        lasts=_duration(body.lasts_s),
        starts_at=_instant(body.starts_at),
        region=body.region,
        nodes=[NodeId(node) for node in body.dedicated_nodes],
        shared_fallback=body.shared_fallback,
        price_per_month_pusd=_pusd(body.price_usd_per_month),
        ref=idempotency_key,
        force=body.force,
    )
    if reserved.repeated:
        response.status_code = 200
    return ReservationView.of(reserved.reservation, capacity.now())


@router.get("")
async def list_reservations(
    capacity: OperatorCapacity,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    model: Word | None = None,
    region: Word | None = None,
    state: ReservationState | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[ReservationView]:
    found = await capacity.reservations(
        org_id=None if org is None else (await tenancy.org(org)).id,
        model=model,
        region=region,
        state=state,
        after=cursor,
        limit=limit,
    )
    now = capacity.now()
    return page_of([ReservationView.of(each, now) for each in found], [each.id for each in found], limit)


@router.get("/{reservation_id}")
async def get_reservation(reservation_id: Word, capacity: OperatorCapacity) -> ReservationView:
    return ReservationView.of(await capacity.reservation(ReservationId(reservation_id)), capacity.now())


@router.patch("/{reservation_id}")
async def change_reservation(
    reservation_id: Word, body: ReservationChange, capacity: OperatorCapacity
) -> ReservationView:
    """Extend it, or change its units, nodes or price. Every gateway follows within a second."""
    changed = await capacity.change(
        ReservationId(reservation_id),
        units=body.units,
        expires_at=_instant(body.expires_at),
        nodes=None if body.dedicated_nodes is None else [NodeId(node) for node in body.dedicated_nodes],
        shared_fallback=body.shared_fallback,
        price_per_month_pusd=_pusd(body.price_usd_per_month),
        force=body.force,
    )
    return ReservationView.of(changed, capacity.now())


@router.post("/{reservation_id}/cancel")
@router.delete("/{reservation_id}")
async def cancel_reservation(reservation_id: Word, capacity: OperatorCapacity) -> ReservationView:
    """End it now; harmless to repeat. Every gateway follows within a second."""
    return ReservationView.of(await capacity.cancel(ReservationId(reservation_id)), capacity.now())


@own_router.get("")
async def list_own_reservations(
    home: OwnHome,
    services: Services,
    model: Word | None = None,
    region: Word | None = None,
    state: ReservationState | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[OwnReservationView]:
    """The org's own reservations, and what it uses at present of the models that they are for."""
    capacity = services.capacity
    found = await capacity.reservations(
        org_id=home.org.id, model=model, region=region, state=state, after=cursor, limit=limit
    )
    now = capacity.now()
    used = await _used_tokens_per_s(services, home.org.id, now) if found else {}
    views = [OwnReservationView.of(each, now, _used(each, used)) for each in found]
    return page_of(views, [each.id for each in found], limit)


async def _used_tokens_per_s(services: ApiServices, org_id: str, now: datetime) -> dict[tuple[str, str], float]:
    """By model and region, over the last minute of the ledger."""
    start = now - timedelta(seconds=USED_OVER_S)
    sums = await services.usage.summary(org_id, start=start, end=None, group_by=("model", "region"))
    return {(each.group["model"], each.group["region"]): each.total_tokens / USED_OVER_S for each in sums}


def _used(reservation: Reservation, used: dict[tuple[str, str], float]) -> float:
    return sum(
        tokens_per_s
        for (model, region), tokens_per_s in used.items()
        if model == reservation.model and reservation.region in (None, region)
    )


def _instant(given: datetime | None) -> datetime | None:
    return None if given is None else in_utc(given)


def _duration(seconds: float | None) -> timedelta | None:
    try:
        return None if seconds is None else timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise InvalidRequest("a reservation lasts up to ten years", param="lasts_s") from None


def _pusd(usd: Decimal | None) -> int | None:
    return None if usd is None else int(usd * PUSD_PER_USD)
