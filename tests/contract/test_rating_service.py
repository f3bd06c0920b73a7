"""Rating over both databases: each row of the ledger once, in its order, and the same again from the beginning."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.charges.own_terms import Account
from crosslogic.billing.credits.model import CreditClass
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.metering.model import Evidence, Once, Outcome
from crosslogic.pricing.terms import PricedModel
from crosslogic.pricing.versions import VersionSource, VersionStatus
from crosslogic.store.tables import audit_log, capacity_reservations, credit_draws, price_versions
from tests.money_rig import MoneyRig
from tests.rating_samples import terms

USUAL = 10 * 50_000 + 20 * 100_000  # what a request of the rig costs by the configuration's list
DEARER = terms(PricedModel("*", Decimal(1), Decimal(1)))


@pytest.fixture
async def rig(engine: AsyncEngine) -> MoneyRig:
    rig = MoneyRig(engine)
    await rig.put_org()
    return rig


async def test_every_row_of_the_ledger_is_charged_once_and_in_its_order(rig: MoneyRig) -> None:
    for _ in range(5):
        await rig.use()
    assert await rig.rating.round() == 5
    assert await rig.rating.round() == 0
    await rig.use()
    assert await rig.rating.round() == 1
    found = await rig.charges()
    assert [each.seq for each in found] == [1, 2, 3, 4, 5, 6]
    assert {each.amount for each in found} == {USUAL}
    rebuilt = await rig.rating.rebuild(rig.org_id)
    assert (rebuilt.rows, rebuilt.wrong_seq) == (6, None)


async def test_two_who_rate_at_once_charge_no_row_twice(rig: MoneyRig, engine: AsyncEngine) -> None:
    for _ in range(7):
        await rig.use()
    others = [MoneyRig(engine).rating for _ in range(3)]
    rated = await asyncio.gather(*(each.rate_org(rig.org_id) for each in others))
    assert sum(rated) == 7
    assert [each.seq for each in await rig.charges()] == list(range(1, 8))


async def test_rating_that_is_cut_short_leaves_nothing_behind(rig: MoneyRig) -> None:
    await rig.use()
    for wait_s in (0.0, 0.001, 0.003, 0.01):
        rating = asyncio.create_task(rig.rating.rate_org(rig.org_id))
        await asyncio.sleep(wait_s)
        rating.cancel()
        await asyncio.gather(rating, return_exceptions=True)
        assert len(await rig.charges()) in (0, 1)
    await rig.rating.round()
    assert [each.amount for each in await rig.charges()] == [USUAL]
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None


async def test_the_configurations_list_is_kept_so_that_its_prices_can_be_explained(
    rig: MoneyRig, engine: AsyncEngine
) -> None:
    await rig.use(10, 4, 20)
    await rig.rating.round()
    (charge,) = await rig.charges()
    assert charge.price_version == rig.book.version
    assert [line.unit_price for line in charge.terms.lines] == [50_000, 10_000, 100_000]
    async with engine.connect() as conn:
        row = (await conn.execute(select(price_versions))).mappings().one()
    assert (row["id"], row["source"]) == (rig.book.version, VersionSource.CONFIGURATION)
    assert await rig.prices.versions() == []  # nobody chose it
    with pytest.raises(Conflict, match="the configuration's"):
        await rig.prices.retire(rig.book.version)


async def test_prices_hold_from_when_they_are_published_and_never_reach_back(rig: MoneyRig) -> None:
    await rig.use()
    late = rig.clock.now()
    rig.clock.advance(60)
    version = await rig.prices.draft(DEARER, note="dearer")
    await rig.use()
    await rig.rating.round()
    with pytest.raises(InvalidRequest, match="never reach back"):
        await rig.prices.publish(version.id, effective_from=late)
    rig.clock.advance(60)
    published = await rig.prices.publish(version.id)
    assert (published.status, published.effective_from) == (VersionStatus.PUBLISHED, rig.clock.now())
    assert await rig.prices.publish(version.id) == published
    await rig.use(at=late)  # it comes late, and costs what it cost then
    await rig.use()
    await rig.rating.round()
    rig.clock.advance(60)
    await rig.prices.retire(version.id)
    await rig.use()
    await rig.rating.round()
    assert [each.amount for each in await rig.charges()] == [USUAL, USUAL, USUAL, 30 * 1_000_000, USUAL]
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None
    with pytest.raises(Conflict, match="stays as it is"):
        await rig.prices.change(version.id, DEARER)


async def test_prices_cannot_begin_where_usage_is_rated_already(rig: MoneyRig) -> None:
    await rig.use(at=rig.clock.now() + timedelta(hours=1))  # a gateway whose clock runs ahead
    await rig.rating.round()
    version = await rig.prices.draft(DEARER)
    with pytest.raises(Conflict, match="rated already"):
        await rig.prices.publish(version.id)
    own = await rig.prices.draft(DEARER, org_id=rig.org_id)
    with pytest.raises(Conflict, match="rated already"):
        await rig.prices.publish(own.id)
    await rig.prices.publish(version.id, effective_from=rig.clock.now() + timedelta(hours=2))


async def test_what_cannot_be_charged_exactly_is_not_even_drafted(rig: MoneyRig) -> None:
    with pytest.raises(InvalidRequest, match="no whole number"):
        await rig.prices.draft(terms(PricedModel("m", Decimal("0.0000001"))))
    with pytest.raises(NotFound):
        await rig.prices.draft(DEARER, org_id="org_9")
    with pytest.raises(InvalidRequest, match="name an org"):
        await rig.prices.draft(DEARER, currency="INR")


async def test_corrections_of_the_ledger_become_charges_of_their_own(rig: MoneyRig) -> None:
    request_id = await rig.use()
    await rig.rating.round()
    assert await rig.correct(request_id, 4, 0, 20)
    assert await rig.correct(request_id, 4, 2, 30)
    await rig.rating.round()
    found = await rig.charges()
    assert [(each.n, each.amount) for each in found] == [
        (0, USUAL),
        (1, -6 * 50_000),
        (2, -2 * 50_000 + 2 * 10_000 + 10 * 100_000),
    ]
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None


async def test_answers_from_the_cache_cost_nothing(rig: MoneyRig) -> None:
    await rig.use(evidence=Evidence.CACHED)
    await rig.rating.round()
    (charge,) = await rig.charges()
    assert (charge.amount, charge.terms.note) == (0, "answered from the cache")


async def test_runs_under_one_idempotency_key_are_charged_once(rig: MoneyRig) -> None:
    once = Once(b"k" * 32, 86_400)
    interrupted = {"outcome": Outcome.INTERRUPTED, "evidence": Evidence.CHECKPOINT}
    await rig.use(0, 0, 7, once=once, **interrupted)
    await rig.rating.round()
    for _ in range(2):
        await rig.use(once=once)
    await rig.rating.round()
    found = await rig.charges()
    assert [each.amount for each in found] == [7 * 100_000, -7 * 100_000, USUAL, 0]
    assert found[3].terms.note == f"{found[2].request_id} is charged for its idempotency key"
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None


async def test_credits_pay_before_the_org_does_and_are_granted_once(rig: MoneyRig) -> None:
    first = await rig.credits.grant(rig.org_id, CreditClass.PAID, USUAL, source_ref="pay_1")
    again = await rig.credits.grant(rig.org_id, CreditClass.PAID, USUAL, source_ref="pay_1")
    assert (again.grant, again.repeated) == (first.grant, True)
    with pytest.raises(Conflict):
        await rig.credits.grant(rig.org_id, CreditClass.PAID, 2 * USUAL, source_ref="pay_1")
    await rig.credits.grant(rig.org_id, CreditClass.SIGNUP, USUAL // 2)
    for _ in range(2):
        await rig.use()
    await rig.rating.round()
    assert await rig.owed() == USUAL // 2
    assert await rig.credits.balance(rig.org_id) == 0
    standing = await rig.credits.of_org(rig.org_id)
    assert [(each.grant.credit_class, each.drawn) for each in standing] == [
        (CreditClass.SIGNUP, USUAL // 2),
        (CreditClass.PAID, USUAL),
    ]


async def test_a_grant_that_comes_later_or_is_voided_changes_no_charge_that_is_there(rig: MoneyRig) -> None:
    start = rig.clock.now()
    await rig.use()
    await rig.rating.round()
    backdated = await rig.credits.grant(rig.org_id, CreditClass.PROMOTIONAL, 3 * USUAL, starts_at=start)
    await rig.use()
    await rig.rating.round()
    voided = await rig.credits.void(backdated.grant.id)
    assert (voided.drawn, voided.voided, voided.remaining) == (USUAL, 2 * USUAL, 0)
    assert await rig.credits.void(backdated.grant.id) == voided
    await rig.use()
    await rig.rating.round()
    assert await rig.owed() == 2 * USUAL
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None
    with pytest.raises(NotFound):
        await rig.credits.void(backdated.grant.id, org_id=OrgId("org_2"))


async def test_credits_expire_by_the_time_of_the_usage(rig: MoneyRig) -> None:
    ends = rig.clock.now() + timedelta(hours=1)
    grant = (await rig.credits.grant(rig.org_id, CreditClass.PROMOTIONAL, 3 * USUAL, expires_at=ends)).grant
    before = rig.clock.now()
    rig.clock.advance(3600)
    await rig.use()
    await rig.use(at=before)
    await rig.rating.round()
    assert [(each.seq, each.amount) for each in await rig.draws()] == [(2, USUAL)]
    standing = await rig.credits.one(grant.id)
    assert (standing.drawn, standing.expired, standing.remaining) == (USUAL, 2 * USUAL, 0)


async def test_two_orgs_cannot_both_have_brought_a_third(rig: MoneyRig, engine: AsyncEngine) -> None:
    for other in ("org_2", "org_3"):
        await MoneyRig(engine, other).put_org()
    thanked = await rig.credits.refer(rig.org_id, OrgId("org_2"), 5 * 10**12)
    assert (await rig.credits.refer(rig.org_id, OrgId("org_2"), 5 * 10**12)).grant == thanked.grant
    with pytest.raises(Conflict):
        await rig.credits.refer(OrgId("org_3"), OrgId("org_2"), 5 * 10**12)
    with pytest.raises(InvalidRequest):
        await rig.credits.refer(rig.org_id, rig.org_id, 5 * 10**12)


async def test_new_terms_hold_for_what_is_rated_from_then_on(rig: MoneyRig) -> None:
    await rig.use()
    await rig.rating.round()
    await rig.accounts.put(Account(rig.org_id, free_tokens_per_month=30))
    await rig.use()
    await rig.use()
    await rig.rating.round()
    assert [each.amount for each in await rig.charges()] == [USUAL, 0, USUAL]
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None


async def test_reserved_capacity_of_the_database_covers_usage(rig: MoneyRig, engine: AsyncEngine) -> None:
    now = rig.clock.now()
    async with engine.begin() as conn:
        await conn.execute(insert(capacity_reservations).values(
            id="res_1", org_id=rig.org_id, model="model-a", units=1, starts_at=now, created_at=now,
            expires_at=now + timedelta(seconds=25), nodes=[], shared_fallback=True,
        ))  # fmt: skip
    await rig.use()
    await rig.rating.round()
    (charge,) = await rig.charges()
    assert (charge.amount, [line.reservation_id for line in charge.terms.lines]) == (500_000, ["res_1", "res_1", None])


async def test_an_org_is_charged_in_one_currency(rig: MoneyRig) -> None:
    with pytest.raises(InvalidRequest, match="no exchange rate"):
        await rig.accounts.put(Account(rig.org_id, currency="INR"))
    await rig.prices.set_rate("INR", Decimal("88.125"))
    await rig.accounts.put(Account(rig.org_id, currency="INR"))
    await rig.credits.grant(rig.org_id, CreditClass.PROMOTIONAL, 1000)
    await rig.use()
    await rig.rating.round()
    (charge,) = await rig.charges()
    assert (charge.currency, charge.amount) == ("INR", USUAL * 88125 // 1000)
    assert [each.amount for each in await rig.draws()] == [1000]
    with pytest.raises(Conflict, match="keeps it"):
        await rig.accounts.put(Account(rig.org_id, currency="USD"))
    with pytest.raises(Conflict, match="rated already"):
        await rig.prices.set_rate("INR", Decimal(90))
    rig.clock.advance(1)
    await rig.prices.set_rate("INR", Decimal(90))
    await rig.use()
    await rig.rating.round()
    assert (await rig.charges())[1].amount == USUAL * 90
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None


async def test_a_draw_that_nobody_made_is_found(rig: MoneyRig, engine: AsyncEngine) -> None:
    for _ in range(3):
        await rig.use()
    await rig.rating.round()
    async with engine.begin() as conn:
        forged = {"org_id": rig.org_id, "seq": 2, "grant_id": "grant_x", "amount": 1, "at": rig.clock.now()}
        await conn.execute(insert(credit_draws).values(forged))
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq == 2


async def test_every_change_of_prices_credits_and_accounts_is_in_the_audit_log(
    rig: MoneyRig, engine: AsyncEngine
) -> None:
    version = await rig.prices.draft(DEARER)
    await rig.prices.publish(version.id)
    await rig.prices.retire(version.id)
    grant = (await rig.credits.grant(rig.org_id, CreditClass.PAID, 5)).grant
    await rig.credits.void(grant.id)
    await rig.accounts.put(Account(rig.org_id, prepaid=True))
    await rig.prices.set_rate("INR", Decimal(88))
    async with engine.connect() as conn:
        actions = (await conn.execute(select(audit_log.c.action).order_by(audit_log.c.seq))).scalars().all()
    assert actions == [
        "price.create", "price.publish", "price.retire", "credit.create", "credit.void",
        "billing_account.change", "exchange_rate.set",
    ]  # fmt: skip
