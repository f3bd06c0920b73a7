"""Values of chargebacks. Amounts are whole minor units of the payment's currency.

Invariant: `lost_minor` ≤ `withdrawn_minor`; what is withdrawn and not lost is held until the bank has decided.
"""

from datetime import datetime

import msgspec

from crosslogic.billing.payments.model import ChargebackStatus
from crosslogic.kernel.ids import OrgId

DECIDED = (ChargebackStatus.WON, ChargebackStatus.LOST)


class Chargeback(msgspec.Struct, frozen=True):
    """One column of the table `chargebacks` for each field."""

    id: str
    org_id: OrgId
    payment_id: str
    invoice_id: str | None
    provider: str
    provider_ref: str
    amount_minor: int
    currency: str
    reason: str  # in the provider's words
    status: ChargebackStatus
    opened_at: datetime
    updated_at: datetime
    withdrawn_minor: int = 0
    lost_minor: int = 0
    respond_by: datetime | None = None
    closed_at: datetime | None = None
    next_look_at: datetime | None = None
    version: int = 0

    @property
    def held_minor(self) -> int:
        return self.withdrawn_minor - self.lost_minor
