"""Orgs that pay ahead: their cap of the month is what credits still carry."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.charges.own_terms import Account
from crosslogic.billing.credits.model import CreditClass
from crosslogic.jobs.prepaid import PrepaidCaps
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Status, SuspendedFor
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.money_rig import MoneyRig

USUAL = 10 * 50_000 + 20 * 100_000


async def test_a_cap_stands_still_while_credits_are_used_and_moves_with_top_ups_and_months(engine: AsyncEngine) -> None:
    rig = MoneyRig(engine)
    await rig.put_org()
    tenancy = TenancyService(TenancySql(engine), key_hasher(), rig.clock)
    caps = PrepaidCaps(engine, tenancy, rig.clock)

    async def cap() -> int | None:
        await caps.round()
        return (await tenancy.org(rig.org_id)).limits.spend_per_month_pusd

    assert await cap() is None  # it pays afterwards
    await rig.accounts.put(Account(rig.org_id, prepaid=True))
    assert await cap() == 0  # without credits nothing is served
    await rig.credits.grant(rig.org_id, CreditClass.PAID, 3 * USUAL)
    assert await cap() == 3 * USUAL
    await rig.use()
    assert await cap() == 3 * USUAL  # in the ledger, and not rated yet
    await rig.rating.round()
    assert await cap() == 3 * USUAL
    assert await caps.round() == 0
    await rig.credits.grant(rig.org_id, CreditClass.PROMOTIONAL, USUAL, expires_at=rig.clock.now() + timedelta(hours=1))
    assert await cap() == 4 * USUAL
    rig.clock.advance(3600)
    assert await cap() == 3 * USUAL
    rig.clock.advance(31 * 86_400)
    assert await cap() == 2 * USUAL  # a new month has nothing spent; a third of the credit is used up


async def test_who_was_suspended_at_the_cap_returns_with_a_top_up_and_nobody_else_does(engine: AsyncEngine) -> None:
    rig = MoneyRig(engine)
    await rig.put_org()
    tenancy = TenancyService(TenancySql(engine), key_hasher(), rig.clock)
    caps = PrepaidCaps(engine, tenancy, rig.clock)
    await rig.accounts.put(Account(rig.org_id, prepaid=True))
    for suspended_for, after in ((SuspendedFor.SPENDING_CAP, "active"), (None, "suspended")):
        await tenancy.change_org(rig.org_id, status=Status.SUSPENDED, suspended_for=suspended_for)
        await caps.round()
        assert (await tenancy.org(rig.org_id)).status is Status.SUSPENDED, "there are no credits yet"
        grant = (await rig.credits.grant(rig.org_id, CreditClass.PAID, USUAL)).grant
        await caps.round()
        assert (await tenancy.org(rig.org_id)).status == after
        await rig.credits.void(grant.id)
