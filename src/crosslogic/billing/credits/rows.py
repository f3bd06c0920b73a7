"""Between the values of `model.py` and the rows of the tables `credit_grants` and `credit_draws`."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import RowMapping

from crosslogic.billing.credits.model import CreditClass, Draw, Grant
from crosslogic.kernel.ids import OrgId


def grant_columns(grant: Grant) -> dict[str, Any]:
    return {**msgspec.structs.asdict(grant), "credit_class": grant.credit_class.value}


def to_grant(row: Mapping[str, Any] | RowMapping) -> Grant:
    fields = dict(row)
    return Grant(**{**fields, "org_id": OrgId(fields["org_id"]), "credit_class": CreditClass(fields["credit_class"])})


def to_draw(row: Mapping[str, Any] | RowMapping) -> Draw:
    return Draw(**{**dict(row), "org_id": OrgId(row["org_id"])})
