"""Bodies of reserved capacity. Unknown fields are refused here as well."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from crosslogic.api.models import Body, Instant, View, Word
from crosslogic.api.usage_models import exact_usd
from crosslogic.capacity.model import Reservation, ReservationState

Units = Annotated[int, Field(strict=True, description="capacity units: tokens a second, prompt and answer together")]
Usd = Annotated[Decimal, Field(ge=0, le=10**6, max_digits=19, decimal_places=12)]


class ReservationCreate(Body):
    org: Word = Field(description="id or name")
    model: Word
    units: Units
    region: Word | None = Field(default=None, description="null: wherever the org's requests go")
    starts_at: Instant | None = Field(default=None, description="null: now")
    expires_at: Instant | None = Field(default=None, description="either this or lasts_s")
    lasts_s: float | None = Field(default=None, description="seconds from the start to the end")
    dedicated_nodes: list[Word] = Field(default=[], description="nodes that nobody else is served by meanwhile")
    shared_fallback: bool = Field(default=True, description="may the org's requests go to shared nodes too")
    price_usd_per_month: Usd | None = None
    force: bool = Field(default=False, description="promise it even if the fleet cannot carry it at present")


class ReservationChange(Body):
    """What is left out stays as it is."""

    units: Units | None = None
    expires_at: Instant | None = None
    dedicated_nodes: list[Word] | None = None
    shared_fallback: bool | None = None
    price_usd_per_month: Usd | None = None
    force: bool = Field(default=False, description="promise it even if the fleet cannot carry it at present")


class ReservationView(View):
    id: str
    org_id: str
    model: str
    region: str | None
    units: int
    state: ReservationState
    starts_at: datetime
    expires_at: datetime
    cancelled_at: datetime | None
    dedicated_nodes: tuple[str, ...]
    shared_fallback: bool
    price_usd_per_month: str | None = Field(description="exact decimal")
    created_at: datetime

    @classmethod
    def of(cls, reservation: Reservation, now: datetime) -> "ReservationView":
        return cls(
            id=reservation.id,
            org_id=reservation.org_id,
            model=reservation.model,
            region=reservation.region,
            units=reservation.units,
            state=reservation.state(now),
            starts_at=reservation.starts_at,
            expires_at=reservation.expires_at,
            cancelled_at=reservation.cancelled_at,
            dedicated_nodes=reservation.nodes,
            shared_fallback=reservation.shared_fallback,
            price_usd_per_month=_usd(reservation.price_per_month_pusd),
            created_at=reservation.created_at,
        )


class OwnReservationView(View):
    """What an org sees of its own: no nodes, only how many are its alone."""

    id: str
    model: str
    region: str | None
    units: int = Field(description="tokens a second that are guaranteed")
    used_tokens_per_s: float = Field(
        description="what the org used of the model (and region) in the last minute, beyond the guarantee included"
    )
    state: ReservationState
    starts_at: datetime
    expires_at: datetime
    dedicated_nodes: int
    shared_fallback: bool
    price_usd_per_month: str | None = Field(description="exact decimal")

    @classmethod
    def of(cls, reservation: Reservation, now: datetime, used_tokens_per_s: float) -> "OwnReservationView":
        return cls(
            id=reservation.id,
            model=reservation.model,
            region=reservation.region,
            units=reservation.units,
            used_tokens_per_s=used_tokens_per_s,
            state=reservation.state(now),
            starts_at=reservation.starts_at,
            expires_at=reservation.expires_at,
            dedicated_nodes=len(reservation.nodes),
            shared_fallback=reservation.shared_fallback,
            price_usd_per_month=_usd(reservation.price_per_month_pusd),
        )


def _usd(pusd: int | None) -> str | None:
    return None if pusd is None else exact_usd(pusd)
