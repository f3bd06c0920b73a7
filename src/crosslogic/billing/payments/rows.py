"""Between the values of `model.py` and the rows of the tables, in both directions."""

from typing import Any

import msgspec
from sqlalchemy import RowMapping

from crosslogic.billing.payments.model import Method, MethodKind, Payment, Purpose, Refund, Status
from crosslogic.kernel.ids import OrgId


def columns(value: msgspec.Struct) -> dict[str, Any]:
    return {name: _plain(field) for name, field in msgspec.structs.asdict(value).items()}


def to_payment(row: RowMapping) -> Payment:
    fields = dict(row)
    fields.update(org_id=OrgId(row["org_id"]), purpose=Purpose(row["purpose"]), status=Status(row["status"]))
    return Payment(**fields)


def to_refund(row: RowMapping) -> Refund:
    return Refund(**{**row, "org_id": OrgId(row["org_id"]), "status": Status(row["status"])})


def to_method(row: RowMapping) -> Method:
    return Method(**{**row, "org_id": OrgId(row["org_id"]), "kind": MethodKind(row["kind"])})


def _plain(field: Any) -> Any:
    return field.value if isinstance(field, MethodKind | Purpose | Status) else field
