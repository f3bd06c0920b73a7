"""What a reservation may look like, alone and beside others. Pure; raises InvalidRequest and Conflict.

Invariant: for a model, an org has at any moment either reservations without a region or reservations with regions, so
that each of its requests has exactly one guarantee to be counted against.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from crosslogic.capacity.model import Reservation
from crosslogic.capacity.promises import Room
from crosslogic.fleet.model import Node
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import NodeId
from crosslogic.tenancy import rules

MAX_UNITS = 10**9
MAX_NODES = 100
MAX_PRICE_PUSD = 10**18
LONGEST = timedelta(days=3660)


def checked(reservation: Reservation) -> Reservation:
    """The reservation in the form in which it is kept."""
    if not 1 <= reservation.units <= MAX_UNITS:
        raise InvalidRequest(f"a reservation is of 1 to {MAX_UNITS} capacity units", param="units")
    rules.models((reservation.model,), "model")
    if reservation.region is not None:
        rules.region(reservation.region)
    if len(reservation.nodes) > MAX_NODES:
        raise InvalidRequest(f"a reservation has at most {MAX_NODES} dedicated nodes", param="dedicated_nodes")
    if len(set(reservation.nodes)) != len(reservation.nodes):
        raise InvalidRequest("a dedicated node is named once", param="dedicated_nodes")
    price = reservation.price_per_month_pusd
    if price is not None and not 0 <= price <= MAX_PRICE_PUSD:
        raise InvalidRequest("a price is from 0 to 1,000,000 USD a month", param="price_usd_per_month")
    if reservation.expires_at <= reservation.starts_at:
        raise InvalidRequest("expires_at must be after starts_at", param="expires_at")
    if reservation.expires_at - reservation.starts_at > LONGEST:
        raise InvalidRequest("a reservation ends within ten years of its start", param="expires_at")
    return reservation


def instant(given: datetime, param: str) -> datetime:
    if given.tzinfo is None:
        raise InvalidRequest(f"give the time zone of {param}, as in 2030-01-01T00:00:00Z", param=param)
    return given.astimezone(UTC)


def end(start: datetime, expires_at: datetime | None, lasts: timedelta | None) -> datetime:
    """When it ends, said in one of the two ways."""
    if (expires_at is None) is (lasts is None):
        raise InvalidRequest("give either expires_at or how long it lasts", param="expires_at")
    if expires_at is not None:
        return instant(expires_at, "expires_at")
    assert lasts is not None
    if not timedelta(0) < lasts <= LONGEST:
        raise InvalidRequest("a reservation lasts up to ten years", param="lasts_s")
    return start + lasts


def check_nodes(wanted: Reservation, others: Sequence[Reservation], nodes: Mapping[NodeId, Node]) -> None:
    """Whether the nodes that `wanted` names can be its org's alone. `others`: those that overlap it."""
    taken = {node_id: other.org_id for other in others for node_id in other.nodes}
    for node_id in wanted.nodes:
        node = nodes.get(node_id)
        if node is None or node.org_id not in (None, wanted.org_id):
            raise InvalidRequest(f"there is no node {node_id} to dedicate to this org", param="dedicated_nodes")
        if wanted.model not in node.models:
            raise InvalidRequest(f"the node {node_id} does not serve {wanted.model}", param="dedicated_nodes")
        if wanted.region not in (None, node.region):
            raise InvalidRequest(f"the node {node_id} is not in {wanted.region}", param="dedicated_nodes")
        if taken.get(node_id, wanted.org_id) != wanted.org_id:
            raise Conflict(f"the node {node_id} is dedicated to another org at that time; choose another one")
    owned = any(node.org_id == wanted.org_id and wanted.model in node.models for node in nodes.values())
    if not wanted.shared_fallback and not wanted.nodes and not owned:
        raise InvalidRequest(
            "without shared_fallback a reservation needs dedicated nodes, or the org nodes of its own",
            param="shared_fallback",
        )


def check_regions(wanted: Reservation, others: Sequence[Reservation]) -> None:
    """Whether every request of the org would still have one guarantee. `others`: those that overlap `wanted`."""
    for other in others:
        same = other.org_id == wanted.org_id and other.model == wanted.model
        if same and (other.region is None) is not (wanted.region is None):
            raise Conflict(
                f"{other.id} reserves this model {'without' if other.region is None else 'with'} a region at that "
                "time; reserve in the same way, or cancel it first"
            )


def check_room(wanted: Reservation, room: Room) -> None:
    """Whether it can be promised. Raises Conflict: who means it nevertheless says `force`."""
    where = f"{wanted.model} in {wanted.region}" if wanted.region else wanted.model
    if room.broken_units:
        raise Conflict(
            f"dedicating these nodes leaves {room.broken_units} units too few for what is promised to others; "
            "name other nodes, add some, or force it"
        )
    if wanted.units > room.units:
        raise Conflict(
            f"only {room.units} of {wanted.units} units are free on the nodes of {where} for all of that time; "
            "reserve fewer, add nodes, or force it"
        )
