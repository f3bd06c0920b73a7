"""Between `capacity.model.Reservation` and the columns of the table `capacity_reservations`, in both directions."""

from typing import Any

import msgspec
from sqlalchemy import RowMapping

from crosslogic.capacity.model import Reservation
from crosslogic.kernel.ids import NodeId, OrgId, ReservationId


def reservation_columns(reservation: Reservation) -> dict[str, Any]:
    columns: dict[str, Any] = msgspec.structs.asdict(reservation)
    columns["nodes"] = list(reservation.nodes)
    return columns


def to_reservation(row: RowMapping) -> Reservation:
    fields = dict(row)
    return Reservation(
        **{
            **fields,
            "id": ReservationId(fields["id"]),
            "org_id": OrgId(fields["org_id"]),
            "nodes": tuple(map(NodeId, fields["nodes"])),
        }
    )
