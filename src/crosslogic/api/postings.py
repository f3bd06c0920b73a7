"""`/admin/postings`: double entry, transaction by transaction, and the trial balance of all accounts."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.auth import OperatorTenancy, Services
from crosslogic.api.exports import reconciler_of
from crosslogic.api.models import Limit, Page, Word, after_instant, page_of
from crosslogic.billing.invoices.currency import exact_text
from crosslogic.billing.postings import sql
from crosslogic.billing.postings.model import Account, Transaction

router = APIRouter(prefix="/admin/postings", tags=["postings"])


def _engine(services: Services) -> AsyncEngine:
    return reconciler_of(services).engine


Engine = Annotated[AsyncEngine, Depends(_engine)]


class PostingView(BaseModel):
    account: Account
    amount: str = Field(description="exact, in major units of the currency: debits above zero, credits below")


class TransactionView(BaseModel):
    """Its postings sum to zero."""

    ref: str = Field(description="what it tells of")
    org_id: str
    currency: str
    kind: str
    at: datetime
    postings: list[PostingView]

    @classmethod
    def of(cls, transaction: Transaction) -> "TransactionView":
        currency = transaction.currency
        parts = [PostingView(account=p.account, amount=exact_text(p.amount, currency)) for p in transaction.postings]
        names = ("ref", "org_id", "currency", "kind", "at")
        return cls(**{name: getattr(transaction, name) for name in names}, postings=parts)


class TrialBalance(BaseModel):
    currency: str
    accounts: dict[Account, str]
    total: str = Field(description="zero, or the books are wrong")


class TrialBalances(BaseModel):
    balances: list[TrialBalance] = Field(description="one for each currency")


@router.get("")
async def list_transactions(
    engine: Engine,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    currency: Word | None = None,
    kind: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[TransactionView]:
    """Newest first."""
    only = {
        "org_id": None if org is None else (await tenancy.org(org)).id,
        "currency": None if currency is None else currency.upper(),
        "kind": kind,
    }
    found = await sql.listed(engine, only, after_instant(cursor), limit)
    cursors = [f"{each.at.isoformat()}|{each.ref}" for each in found]
    return page_of([TransactionView.of(each) for each in found], cursors, limit)


@router.get("/balances")
async def trial_balance(engine: Engine, tenancy: OperatorTenancy, org: Word | None = None) -> TrialBalances:
    """What each account holds, of an org or of all together."""
    found = await sql.trial_balance(engine, None if org is None else (await tenancy.org(org)).id)
    return TrialBalances(
        balances=[
            TrialBalance(
                currency=currency,
                accounts={account: exact_text(amount, currency) for account, amount in accounts.items()},
                total=exact_text(sum(accounts.values()), currency),
            )
            for currency, accounts in found.items()
        ]
    )
