"""`/admin/credits`: grant, void, refer; `/admin/billing/accounts`: on which terms an org buys. An org sees its own
credits at `/api/v1/billing/credits`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response

from crosslogic.api.auth import OperatorTenancy, OwnHome, Services, require_operator
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.api.money_models import (
    AccountBody,
    AccountView,
    CreditGrant,
    CreditView,
    RebuiltView,
    Referral,
    pico,
)
from crosslogic.api.services import money_of
from crosslogic.billing.charges.accounts import AccountsService
from crosslogic.billing.credits.model import CreditClass, Standing
from crosslogic.billing.credits.service import CreditsService
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import OrgId
from crosslogic.tenancy.audit import Actor

router = APIRouter(prefix="/admin/credits", tags=["credits"])
own_router = APIRouter(prefix="/api/v1/billing/credits", tags=["credits"])
accounts_router = APIRouter(prefix="/admin/billing/accounts", tags=["credits"])


def _as_operator(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> CreditsService:
    return money_of(services).credits.acting_as(actor)


def _accounts(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> AccountsService:
    return money_of(services).accounts.acting_as(actor)


IdempotencyKey = Annotated[
    Word | None, Header(alias="Idempotency-Key", description="a repeat under the same one grants nothing twice")
]
OperatorCredits = Annotated[CreditsService, Depends(_as_operator)]
OperatorAccounts = Annotated[AccountsService, Depends(_accounts)]


@router.post("", status_code=201)
async def grant_credit(
    body: CreditGrant,
    credits: OperatorCredits,
    tenancy: OperatorTenancy,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> CreditView:
    """Repeated for the same `source_ref`, or under the same Idempotency-Key where there is none, it answers 200 with
    what the first call granted."""
    granted = await credits.grant(
        (await tenancy.org(body.org)).id,
        body.credit_class,
        pico(body.amount),
        priority=body.priority,
        starts_at=None if body.starts_at is None else in_utc(body.starts_at),
        expires_at=None if body.expires_at is None else in_utc(body.expires_at),
        source_ref=body.source_ref or idempotency_key,
        reason=body.reason,
    )
    if granted.repeated:
        response.status_code = 200
    return CreditView.of(await credits.one(granted.grant.id))


@router.get("")
async def list_credits(
    credits: OperatorCredits,
    tenancy: OperatorTenancy,
    org: Word,
    credit_class: CreditClass | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[CreditView]:
    """All that an org was ever granted, in the order in which it is drawn."""
    return _page(await credits.of_org((await tenancy.org(org)).id), credit_class, cursor, limit)


@router.post("/referrals", status_code=201)
async def refer_org(
    body: Referral, credits: OperatorCredits, tenancy: OperatorTenancy, services: Services
) -> CreditView:
    """Thank an org for another that it has brought; each org is brought once."""
    amount = money_of(services).referral_amount
    if amount == 0:
        raise InvalidRequest("referrals are worth nothing here; set billing.credits.referral_usd")
    referrer, referred = await tenancy.org(body.referrer), await tenancy.org(body.referred)
    granted = await credits.refer(referrer.id, referred.id, amount)
    return CreditView.of(await credits.one(granted.grant.id))


@router.get("/{credit_id}")
async def get_credit(credit_id: Word, credits: OperatorCredits) -> CreditView:
    return CreditView.of(await credits.one(credit_id))


@router.post("/{credit_id}/void")
async def void_credit(credit_id: Word, credits: OperatorCredits) -> CreditView:
    """Take back what is left of it; harmless to repeat."""
    return CreditView.of(await credits.void(credit_id))


@accounts_router.get("/{org}")
async def get_account(org: Word, accounts: OperatorAccounts, tenancy: OperatorTenancy) -> AccountView:
    return AccountView.of(await accounts.of_org((await tenancy.org(org)).id))


@accounts_router.put("/{org}")
async def put_account(
    org: Word, body: AccountBody, accounts: OperatorAccounts, tenancy: OperatorTenancy
) -> AccountView:
    """On which terms an org buys. An org that was charged, or has credits, keeps its currency."""
    return AccountView.of(await accounts.put(body.value((await tenancy.org(org)).id)))


@accounts_router.post("/{org}/rebuild")
async def rebuild_charges(org: Word, tenancy: OperatorTenancy, services: Services) -> RebuiltView:
    """Rate the org again from the beginning of its ledger and compare; writes nothing."""
    found = await money_of(services).rating.rebuild((await tenancy.org(org)).id)
    return RebuiltView(org_id=found.org_id, rows=found.rows, wrong_seq=found.wrong_seq)


@own_router.get("")
async def list_own_credits(
    home: OwnHome,
    services: Services,
    credit_class: CreditClass | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[CreditView]:
    return _page(await money_of(services).credits.of_org(OrgId(home.org.id)), credit_class, cursor, limit)


def _page(found: list[Standing], credit_class: CreditClass | None, cursor: str | None, limit: int) -> Page[CreditView]:
    """An org has few, so the page is cut out of all of them."""
    wanted = [each for each in found if credit_class in (None, each.grant.credit_class)]
    ids = [each.grant.id for each in wanted]
    if cursor is not None:
        if cursor not in ids:
            raise InvalidRequest("cursor is no cursor of this list", param="cursor")
        wanted = wanted[ids.index(cursor) + 1 :]
    page = wanted[:limit]
    return page_of([CreditView.of(each) for each in page], [each.grant.id for each in page], limit)
