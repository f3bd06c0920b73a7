"""What operators may do with reserved capacity: promise it, look at it, change it, take it back.

Invariant: unless somebody forces it, no more is promised than the fleet can carry (`promises.py`); everything that is
changed is written down in the audit log and told to the gateways in the same transaction.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.capacity import rules, sql
from crosslogic.capacity.model import Reservation, ReservationState, Terms
from crosslogic.capacity.promises import room_for
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import NodeId, OrgId, ReservationId, new_reservation_id
from crosslogic.tenancy import rules as tenancy_rules
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.writing import Writer


class Reserved(msgspec.Struct, frozen=True):
    """`repeated`: an earlier call under the same Idempotency-Key had made it."""

    reservation: Reservation
    repeated: bool = False


class CapacityService:
    """Raises InvalidRequest, NotFound, also for a reservation of another org, and Conflict."""

    def __init__(
        self, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, terms: Terms | None = None, actor: Actor = SYSTEM
    ) -> None:
        self.terms = terms or Terms()
        self._hash_key = hash_key
        self._clock = clock
        self._sql = sql.ReservationsSql(Writer(engine, AuditTrail(actor, hash_key, clock)))

    def acting_as(self, actor: Actor) -> "CapacityService":
        """The same service; what it changes is written down as done by `actor`."""
        return CapacityService(self._sql.engine, self._hash_key, self._clock, self.terms, actor)

    def now(self) -> datetime:
        return self._clock.now()

    async def reserve(
        self,
        org_id: OrgId,
        model: str,
        units: int,
        *,
        expires_at: datetime | None = None,
        lasts: timedelta | None = None,
        starts_at: datetime | None = None,
        region: str | None = None,
        nodes: Sequence[NodeId] = (),
        shared_fallback: bool = True,
        price_per_month_pusd: int | None = None,
        ref: str | None = None,
        force: bool = False,
    ) -> Reserved:
        """Promise `units` to an org, until `expires_at` or for as long as it `lasts`.

        Repeated under the same `ref` it makes no second reservation. `force` promises more than the fleet can carry
        at present. Raises Conflict where there is not so much room, and for another reservation under the same `ref`.
        """
        now = self._clock.now()
        said = (org_id, model, units, expires_at, lasts, starts_at, region, tuple(nodes), shared_fallback)
        start = now if starts_at is None else rules.instant(starts_at, "starts_at")
        wanted = rules.checked(
            Reservation(
                id=new_reservation_id(),
                org_id=org_id,
                model=model,
                units=units,
                starts_at=start,
                expires_at=rules.end(start, expires_at, lasts),
                created_at=now,
                region=region,
                nodes=tuple(nodes),
                shared_fallback=shared_fallback,
                price_per_month_pusd=price_per_month_pusd,
                creation_ref=tenancy_rules.reference(ref),
                creation_digest=None if ref is None else _digest(*said, price_per_month_pusd),
            )
        )
        try:
            async with self._sql.engine.begin() as conn:
                await sql.lock_promises(conn)
                earlier = None if wanted.creation_ref is None else await sql.made_under(conn, wanted.creation_ref)
                if earlier is not None:
                    if earlier.creation_digest != wanted.creation_digest:
                        raise Conflict("another reservation was made under this Idempotency-Key; use a new one")
                    return Reserved(earlier, repeated=True)
                if wanted.expires_at <= now:
                    raise InvalidRequest("expires_at lies in the past", param="expires_at")
                await self._check_in(conn, wanted, force=force)
                await self._sql.add_in(conn, wanted)
        except IntegrityError:
            raise InvalidRequest("there is no such org", param="org") from None
        return Reserved(wanted)

    async def reservation(self, reservation_id: ReservationId, org_id: OrgId | None = None) -> Reservation:
        return await self._sql.reservation(reservation_id, org_id)

    async def reservations(
        self,
        *,
        org_id: OrgId | None = None,
        model: str | None = None,
        region: str | None = None,
        state: ReservationState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Reservation]:
        return await self._sql.reservations(
            self._clock.now(),
            org_id=org_id,
            model=model,
            region=region,
            state=state,
            after=after,
            limit=tenancy_rules.page_limit(limit),
        )

    async def change(
        self,
        reservation_id: ReservationId,
        *,
        units: int | None = None,
        expires_at: datetime | None = None,
        nodes: Sequence[NodeId] | None = None,
        shared_fallback: bool | None = None,
        price_per_month_pusd: int | None = None,
        force: bool = False,
    ) -> Reservation:
        """Change what is given; None leaves as it is. Raises Conflict for one that is over, and for want of room."""
        now = self._clock.now()
        async with self._sql.engine.begin() as conn:
            await sql.lock_promises(conn)
            before = await self._sql.locked_in(conn, reservation_id)
            _check_standing(before, now)
            after = rules.checked(
                msgspec.structs.replace(
                    before,
                    units=before.units if units is None else units,
                    expires_at=before.expires_at if expires_at is None else rules.instant(expires_at, "expires_at"),
                    nodes=before.nodes if nodes is None else tuple(nodes),
                    shared_fallback=before.shared_fallback if shared_fallback is None else shared_fallback,
                    price_per_month_pusd=before.price_per_month_pusd
                    if price_per_month_pusd is None
                    else price_per_month_pusd,
                )
            )
            if after.expires_at <= now:
                raise InvalidRequest("expires_at lies in the past; cancel it to end it now", param="expires_at")
            # What takes nothing more of the fleet is never refused for want of room: it may be short meanwhile.
            grows = after.units > before.units or after.expires_at > before.expires_at
            shifts = after.nodes != before.nodes or after.shared_fallback is not before.shared_fallback
            await self._check_in(conn, after, force=force or not (grows or shifts))
            return await self._sql.change_in(conn, before, after, "change")

    async def cancel(self, reservation_id: ReservationId) -> Reservation:
        """End it now; harmless to repeat. Every gateway follows within a second."""
        now = self._clock.now()
        async with self._sql.engine.begin() as conn:
            await sql.lock_promises(conn)
            before = await self._sql.locked_in(conn, reservation_id)
            if before.cancelled_at is not None:
                return before
            _check_standing(before, now)
            return await self._sql.change_in(conn, before, msgspec.structs.replace(before, cancelled_at=now), "cancel")

    async def _check_in(self, conn: AsyncConnection, wanted: Reservation, *, force: bool) -> None:
        others = await sql.overlapping(conn, wanted)
        nodes = await sql.fleet(conn)
        rules.check_regions(wanted, others)
        rules.check_nodes(wanted, others, {node.id: node for node in nodes})
        if not force:
            rules.check_room(wanted, room_for(wanted, others, nodes, self.terms))


def _digest(*said: object) -> str:
    return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()


def _check_standing(reservation: Reservation, now: datetime) -> None:
    state = reservation.state(now)
    if state in (ReservationState.CANCELLED, ReservationState.EXPIRED):
        raise Conflict(f"the reservation is {state.value}, which is final; make a new one")
