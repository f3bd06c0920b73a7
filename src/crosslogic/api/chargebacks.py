"""`/admin/chargebacks`: payments that their payers dispute, and the pack to answer their banks with."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from crosslogic.api.auth import OperatorTenancy, Services
from crosslogic.api.models import Limit, Page, View, Word, page_of
from crosslogic.api.payments import rooms_of
from crosslogic.billing.chargebacks.model import Chargeback
from crosslogic.billing.chargebacks.pack import chargeback_pack
from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.payments.currencies import minor_text
from crosslogic.billing.payments.model import ChargebackStatus

router = APIRouter(prefix="/admin", tags=["payments"])


def _of(services: Services) -> ChargebackService:
    return rooms_of(services).chargebacks


Chargebacks = Annotated[ChargebackService, Depends(_of)]


class ChargebackView(View):
    id: str
    org_id: str
    payment_id: str
    invoice_id: str | None
    provider: str
    transaction_id: str
    amount_minor: int
    amount: str
    currency: str
    reason: str
    status: ChargebackStatus
    withdrawn_minor: int = Field(description="by the provider, and not reinstated")
    lost_minor: int = Field(description="of that, for good")
    respond_by: datetime | None = Field(description="until when evidence is taken, at the provider")
    opened_at: datetime
    closed_at: datetime | None
    pack: str = Field(description="where all that there is of it is to be had")

    @classmethod
    def of(cls, chargeback: Chargeback) -> "ChargebackView":
        names = (
            "id", "org_id", "payment_id", "invoice_id", "provider", "amount_minor", "currency", "reason", "status",
            "withdrawn_minor", "lost_minor", "respond_by", "opened_at", "closed_at",
        )  # fmt: skip
        return cls(
            **{name: getattr(chargeback, name) for name in names},
            transaction_id=chargeback.provider_ref,
            amount=minor_text(chargeback.amount_minor, chargeback.currency),
            pack=f"/admin/chargebacks/{chargeback.id}/pack",
        )


@router.get("/chargebacks")
async def list_chargebacks(
    chargebacks: Chargebacks,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    payment_id: Word | None = None,
    status: ChargebackStatus | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[ChargebackView]:
    """Newest first."""
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await chargebacks.all(org_id=org_id, payment_id=payment_id, status=status, after=cursor, limit=limit)
    return page_of([ChargebackView.of(each) for each in found], [each.id for each in found], limit)


@router.get("/chargebacks/{chargeback_id}")
async def get_chargeback(chargeback_id: Word, chargebacks: Chargebacks) -> ChargebackView:
    return ChargebackView.of(await chargebacks.one(chargeback_id))


@router.get("/chargebacks/{chargeback_id}/pack")
async def get_pack(chargeback_id: Word, chargebacks: Chargebacks) -> dict[str, Any]:
    """What to answer the bank with: the payment, the invoice as it was issued, its usage, and where the proof of each
    request is to be had."""
    return await chargeback_pack(chargebacks.engine, await chargebacks.one(chargeback_id))
