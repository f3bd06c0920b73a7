"""Prefixed, time-sortable identifiers, one type for each kind of thing.

Invariant: ids made later sort later (to the millisecond), and two processes never make the same one.
"""

import os
import time
from typing import NewType

OrgId = NewType("OrgId", str)
EnvId = NewType("EnvId", str)
UserId = NewType("UserId", str)
KeyId = NewType("KeyId", str)
OperatorId = NewType("OperatorId", str)
NodeId = NewType("NodeId", str)
RequestId = NewType("RequestId", str)
ReservationId = NewType("ReservationId", str)
AllocationId = NewType("AllocationId", str)
InvoiceId = NewType("InvoiceId", str)
CreditNoteId = NewType("CreditNoteId", str)


def new_id(prefix: str) -> str:
    """`prefix_` + 12 hex digits of milliseconds since 1970 + 20 random hex digits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def first_request_id(since_ms: int) -> RequestId:
    """The least id that a request of this time or later can have; `since_ms` is milliseconds since 1970."""
    return RequestId(f"req_{since_ms:012x}")


def request_time_ms(request_id: str) -> int:
    """When the request arrived, in milliseconds since 1970."""
    return int(request_id[4:16], 16)


def new_org_id() -> OrgId:
    return OrgId(new_id("org"))


def new_env_id() -> EnvId:
    return EnvId(new_id("env"))


def new_user_id() -> UserId:
    return UserId(new_id("user"))


def new_operator_id() -> OperatorId:
    return OperatorId(new_id("op"))


def new_key_id() -> KeyId:
    return KeyId(new_id("key"))


def new_node_id() -> NodeId:
    return NodeId(new_id("node"))


def new_reservation_id() -> ReservationId:
    return ReservationId(new_id("res"))


def new_allocation_id() -> AllocationId:
    return AllocationId(new_id("alloc"))


def new_invoice_id() -> InvoiceId:
    return InvoiceId(new_id("inv"))


def new_credit_note_id() -> CreditNoteId:
    return CreditNoteId(new_id("cn"))


def new_request_id() -> RequestId:
    return RequestId(new_id("req"))
