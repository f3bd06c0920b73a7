"""Between the values of `model.py` and the rows of the table `charges`, in both directions."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import RowMapping

from crosslogic.billing.charges.model import Charge, ChargeTerms
from crosslogic.kernel.ids import EnvId, KeyId, OrgId, RequestId


def canonical(value: Any) -> str:
    """The one JSON text of a value: fields in their order, mappings sorted, no spaces."""
    return msgspec.json.encode(value, order="deterministic").decode()


def charge_columns(charge: Charge) -> dict[str, Any]:
    return {**msgspec.structs.asdict(charge), "terms": canonical(charge.terms)}


def to_charge(row: Mapping[str, Any] | RowMapping) -> Charge:
    fields = dict(row)
    return Charge(
        **{
            **fields,
            "org_id": OrgId(fields["org_id"]),
            "request_id": RequestId(fields["request_id"]),
            "env_id": EnvId(fields["env_id"]),
            "key_id": KeyId(fields["key_id"]),
            "terms": msgspec.json.decode(fields["terms"], type=ChargeTerms),
        }
    )
