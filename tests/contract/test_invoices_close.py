"""Closing a period, on both databases: everything that was used stands on one invoice, once, and adds up."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices.document import digest_of
from crosslogic.billing.invoices.model import InvoiceKind, InvoiceStatus
from crosslogic.billing.invoices.notices import NoticeOutbox
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.profiles.model import BillingProfile, BillingTerms, Cycle
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import charges, fees, invoices
from crosslogic.tenancy.keys import key_hasher
from tests.billing_samples import (
    BUYER,
    ORG,
    charge_row,
    desk,
    draw_row,
    fee_row,
    grant_row,
    org_row,
    put_profile,
    put_rows,
)

RUPEE = 10**12
JAN, FEB, MAR = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))
MID = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
ACME = OrgId(ORG)


def clock_at(when: datetime) -> ManualClock:
    return ManualClock(when)


async def test_a_month_becomes_one_issued_invoice_that_adds_up(engine: AsyncEngine) -> None:
    await put_rows(
        engine,
        orgs=[org_row()],
        charges=[
            charge_row(1, MID, 100 * RUPEE, list_amount=120 * RUPEE, discount_amount=20 * RUPEE),
            charge_row(2, MID + timedelta(hours=1), 50 * RUPEE + 5 * 10**9, region="us-east"),
            charge_row(3, FEB, 7 * RUPEE),
        ],
        fees=[fee_row("fee_1", 900 * RUPEE, JAN)],
        grants=[grant_row("g1", 30 * RUPEE, reason="launch"), grant_row("g2", 1000 * RUPEE, "paid")],
        draws=[draw_row(1, "g1", 30 * RUPEE, MID), draw_row(1, "g2", 70 * RUPEE, MID)],
    )
    await put_profile(engine)
    closer, _ = desk(engine, clock_at(FEB + timedelta(hours=2)))
    assert await closer.round() == 1
    service = InvoiceService(engine, key_hasher(), clock_at(FEB))
    (invoice,) = await service.invoices()
    assert (invoice.number, invoice.status, invoice.kind) == ("INV/2526/000001", "issued", InvoiceKind.MONTHLY)
    assert (invoice.period_start, invoice.period_end) == (JAN, FEB)
    lines = [(line.kind.value, line.model, line.region, line.amount_minor) for line in await service.lines(invoice)]
    assert lines == [
        ("usage", "llama-3-8b", "in-mumbai", 10_000),
        ("usage", "llama-3-8b", "us-east", 5_000),  # 50.005 is rounded to the even paisa
        ("reserved", None, None, 90_000),
        ("credit", None, None, -3_000),
        ("tax", None, None, 18_360),
        ("prepaid", None, None, -7_000),
    ]
    assert (invoice.subtotal_minor, invoice.discount_minor, invoice.credit_minor) == (107_000, 2_000, 3_000)
    assert (invoice.tax_minor, invoice.total_minor, invoice.prepaid_minor) == (18_360, 120_360, 7_000)
    assert invoice.open_minor == 113_360
    assert (invoice.exact_amount, invoice.rounding_amount) == (1020 * RUPEE + 5 * 10**9, -5 * 10**9)
    assert invoice.document is not None
    assert invoice.digest == digest_of(invoice.document)
    document = json.loads(invoice.document)
    assert document["tax"]["place_of_supply"] == "27 Maharashtra"
    assert document["seller"]["gstin"] == "29AAPFU0939F1ZR"
    assert document["hours"]["amounts"].count("0") == 31 * 24 - 2
    assert document["due_on"] == "2026-02-08"
    assert document["next_invoice_on"] == "2026-03-01"
    async with reading(engine) as conn:
        named = (await conn.execute(select(charges.c.seq, charges.c.invoice_id).order_by(charges.c.seq))).all()
    assert [tuple(row) for row in named] == [(1, invoice.id), (2, invoice.id), (3, None)]
    assert [notice.kind for notice in await NoticeOutbox(engine).pending()] == ["invoice.issued"]


async def test_a_repeat_makes_no_second_invoice_and_late_usage_goes_to_the_next(engine: AsyncEngine) -> None:
    await put_rows(engine, orgs=[org_row()], charges=[charge_row(1, MID, RUPEE)])
    closer, issuer = desk(engine, clock_at(FEB + timedelta(hours=2)))
    (first,) = await closer.close_ended(ACME)
    again, _ = desk(engine, clock_at(FEB + timedelta(hours=3)))
    await put_rows(engine, charges=[charge_row(2, MID, 5 * RUPEE)])
    assert await again.close_ended(ACME) == []
    number = (await issuer.issue(first.id)).number
    assert (await issuer.issue(first.id)).number == number
    later, _ = desk(engine, clock_at(MAR + timedelta(hours=2)))
    assert await later.round() == 1
    service = InvoiceService(engine, key_hasher(), clock_at(MAR))
    second, _first = await service.invoices()
    assert (second.period_start, second.exact_amount, second.number) == (FEB, 5 * RUPEE, "INV/2526/000002")
    assert second.document is not None
    assert json.loads(second.document)["hours"]["earlier"] == "5.00"


async def test_a_period_closes_an_hour_after_its_end_and_not_before(engine: AsyncEngine) -> None:
    await put_rows(engine, orgs=[org_row()], charges=[charge_row(1, MID, RUPEE)])
    early, _ = desk(engine, clock_at(FEB + timedelta(minutes=59)))
    assert await early.close_ended(ACME) == []
    assert len(await desk(engine, clock_at(FEB + timedelta(hours=1)))[0].close_ended(ACME)) == 1


async def test_months_begin_on_the_invoice_day_in_the_org_s_own_time_zone(engine: AsyncEngine) -> None:
    """31 March in Kolkata ends at 18:30 UTC."""
    await put_rows(
        engine,
        orgs=[org_row()],
        charges=[
            charge_row(1, datetime(2026, 3, 31, 18, 29, 59, tzinfo=UTC), RUPEE),
            charge_row(2, datetime(2026, 3, 31, 18, 30, tzinfo=UTC), 2 * RUPEE),
        ],
    )
    await put_profile(engine, BillingProfile(time_zone="Asia/Kolkata"))
    closer, issuer = desk(engine, clock_at(datetime(2026, 3, 31, 20, 0, tzinfo=UTC)))
    (march,) = await closer.close_ended(ACME)
    assert (march.exact_amount, march.period_end) == (RUPEE, datetime(2026, 3, 31, 18, 30, tzinfo=UTC))
    issued = await issuer.issue(march.id)  # it is 1 April there: a new fiscal year has begun
    assert issued.number == "INV/2627/000001"
    assert json.loads(issued.document or "")["period"]["last_day"] == "2026-03-31"


async def test_every_month_that_was_missed_is_closed(engine: AsyncEngine) -> None:
    await put_rows(
        engine,
        orgs=[org_row()],
        charges=[charge_row(1, MID, RUPEE), charge_row(2, FEB, RUPEE), charge_row(3, MAR + timedelta(days=40), RUPEE)],
    )
    closer, _ = desk(engine, clock_at(datetime(2026, 5, 2, tzinfo=UTC)))
    made = await closer.close_ended(ACME)
    assert [(each.period_start.month, each.period_end.month) for each in made] == [(1, 2), (2, 3), (4, 5)]


async def test_what_comes_to_less_than_nothing_waits_for_the_next_invoice(engine: AsyncEngine) -> None:
    await put_rows(engine, orgs=[org_row()], charges=[charge_row(1, MID, -3 * RUPEE)])
    assert await desk(engine, clock_at(FEB + timedelta(days=1)))[0].close_ended(ACME) == []
    await put_rows(engine, charges=[charge_row(2, FEB, 10 * RUPEE)])
    (invoice,) = await desk(engine, clock_at(MAR + timedelta(days=1)))[0].close_ended(ACME)
    assert (invoice.exact_amount, invoice.subtotal_minor) == (7 * RUPEE, 700)


async def test_usage_based_orgs_are_invoiced_at_their_threshold(engine: AsyncEngine) -> None:
    await put_rows(engine, orgs=[org_row()], charges=[charge_row(1, MID, 99 * RUPEE)])
    terms = BillingTerms(cycle=Cycle.USAGE, usage_threshold=100)
    closer, _ = desk(engine, clock_at(MID + timedelta(hours=3)), configured=terms)
    assert await closer.close_ended(ACME) == []
    await put_rows(engine, charges=[charge_row(2, MID, 1 * RUPEE)])
    (invoice,) = await closer.close_ended(ACME)
    assert (invoice.kind, invoice.exact_amount) == (InvoiceKind.USAGE, 100 * RUPEE)
    await put_rows(engine, charges=[charge_row(3, MID + timedelta(days=1), 5 * RUPEE)])
    rest, _ = desk(engine, clock_at(FEB + timedelta(days=1)), configured=terms)
    (monthly,) = await rest.close_ended(ACME)
    assert (monthly.kind, monthly.period_start, monthly.exact_amount) == ("monthly", invoice.period_end, 5 * RUPEE)


async def test_what_was_used_up_to_now_can_be_closed_at_once(engine: AsyncEngine) -> None:
    await put_rows(engine, orgs=[org_row()], charges=[charge_row(1, MID, RUPEE)])
    closer, _ = desk(engine, clock_at(MID + timedelta(minutes=1)))
    assert [each.exact_amount for each in await closer.close_now(ACME)] == [RUPEE]
    assert await closer.close_now(ACME) == []


async def test_each_currency_has_an_invoice_of_its_own(engine: AsyncEngine) -> None:
    rows = [charge_row(1, MID, RUPEE), charge_row(2, MID, RUPEE, currency="JPY")]
    await put_rows(engine, orgs=[org_row()], charges=rows)
    made = await desk(engine, clock_at(FEB + timedelta(days=1)))[0].close_ended(ACME)
    assert [(each.currency, each.subtotal_minor) for each in made] == [("INR", 100), ("JPY", 1)]


async def test_an_invoice_over_nothing_is_paid_and_says_nothing(engine: AsyncEngine) -> None:
    await put_rows(
        engine,
        orgs=[org_row()],
        charges=[charge_row(1, MID, RUPEE)],
        grants=[grant_row("g1", RUPEE)],
        draws=[draw_row(1, "g1", RUPEE, MID)],
    )
    closer, _ = desk(engine, clock_at(FEB + timedelta(days=1)))
    await closer.round()
    (invoice,) = await InvoiceService(engine, key_hasher(), clock_at(FEB)).invoices()
    assert (invoice.status, invoice.total_minor, invoice.number) == (InvoiceStatus.PAID, 0, "INV/2526/000001")
    assert await NoticeOutbox(engine).pending() == []


async def test_void_and_reissue_bill_the_same_charges_once(engine: AsyncEngine) -> None:
    """16. Void then reissue conserves."""
    await put_rows(engine, orgs=[org_row()], charges=[charge_row(1, MID, 100 * RUPEE)], fees=[fee_row("f", RUPEE, MID)])
    closer, issuer = desk(engine, clock_at(FEB + timedelta(days=1)))
    (draft,) = await closer.close_ended(ACME)
    first = await issuer.issue(draft.id)
    await put_profile(engine, BUYER)
    anew = await issuer.reissue(first.id, "GSTIN was missing")
    assert (await issuer.reissue(first.id)).id == anew.id
    service = InvoiceService(engine, key_hasher(), clock_at(FEB))
    void = await service.invoice(first.id)
    assert (void.status, void.document, void.void_reason) == ("void", first.document, "GSTIN was missing")
    assert (anew.exact_amount, anew.subtotal_minor, anew.revision) == (first.exact_amount, first.subtotal_minor, 2)
    assert (anew.number, anew.root_id) == ("INV/2526/000002", first.id)
    assert json.loads(anew.document or "")["replaces"] == "INV/2526/000001"
    assert json.loads(anew.document or "")["tax"]["supply"] == "B2B"
    assert await closer.close_ended(ACME) == []
    await service.mark_paid(anew.id, "pi_1", 1, FEB)
    with pytest.raises(Conflict, match="make a credit note"):
        await issuer.void(anew.id, "no")


async def test_credit_notes_never_exceed_their_invoice_and_take_back_its_tax(engine: AsyncEngine) -> None:
    await put_rows(engine, orgs=[org_row()], charges=[charge_row(1, MID, 100 * RUPEE + 6 * 10**10)])
    await put_profile(engine, BillingProfile(gstin="29AAPFU0939F1ZR"))
    closer, issuer = desk(engine, clock_at(FEB + timedelta(days=1)))
    await closer.round()
    service = InvoiceService(engine, key_hasher(), clock_at(FEB))
    (invoice,) = await service.invoices()
    assert (invoice.total_minor, invoice.tax_minor) == (11_807, 1_801)
    note = await issuer.credit_note(invoice.id, ref="cn-1", reason="outage", amount_minor=5_000)
    assert (note.number, note.net_minor + note.tax_minor) == ("CN/2526/000001", 5_000)
    assert await issuer.credit_note(invoice.id, ref="cn-1", reason="outage", amount_minor=5_000) == note
    with pytest.raises(Conflict):
        await issuer.credit_note(invoice.id, ref="cn-1", reason="outage", amount_minor=5_001)
    with pytest.raises(InvalidRequest, match="1 to 6807"):
        await issuer.credit_note(invoice.id, ref="cn-2", reason="outage", amount_minor=6_808)
    rest = await issuer.credit_note(invoice.id, ref="cn-2", reason="all of it")
    assert (note.net_minor + rest.net_minor, note.tax_minor + rest.tax_minor) == (10_006, 1_801)
    parts = [json.loads(each.document)["tax"]["parts"] for each in (note, rest)]
    assert [sum(part["amount_minor"] for part in each) for each in zip(*parts, strict=True)] == [901, 900]
    credited = await service.invoice(invoice.id)
    assert (credited.status, credited.open_minor) == (InvoiceStatus.PAID, 0)
    with pytest.raises(DBAPIError):
        async with engine.begin() as conn:
            await conn.execute(update(invoices).values(credited_minor=invoices.c.total_minor + 1))


async def test_a_kill_before_any_statement_leaves_one_invoice_after_a_repeat(engine: AsyncEngine) -> None:
    """A close and an issue, cut off before their 1st, 2nd, 3rd, … statement, then run again to the end."""
    await put_rows(
        engine,
        orgs=[org_row()],
        charges=[charge_row(1, MID, RUPEE), charge_row(2, MID, 2 * RUPEE, model="other")],
        fees=[fee_row("f", RUPEE, MID)],
        grants=[grant_row("g1", RUPEE)],
        draws=[draw_row(1, "g1", RUPEE, MID)],
    )
    killed = 0
    for nth in range(1, 200):
        closer, _ = desk(engine, clock_at(FEB + timedelta(days=1)))
        if not await _cut_off(engine, closer.round, nth):
            break
        killed += 1
    assert killed > 20
    async with reading(engine) as conn:
        rows = (await conn.execute(select(invoices.c.number, invoices.c.exact_amount, invoices.c.status))).all()
        free = [await conn.scalar(select(func.count()).where(t.c.invoice_id.is_(None))) for t in (charges, fees)]
    assert [tuple(row) for row in rows] == [("INV/2526/000001", 3 * RUPEE, "issued")]
    assert free == [0, 0]
    assert len(await NoticeOutbox(engine).pending()) == 1


class Killed(BaseException):
    """What a process that dies leaves of its transaction: the database rolls it back."""


async def _cut_off(engine: AsyncEngine, run: Any, nth: int) -> bool:
    """Whether `run` came to its nth statement, before which it was killed."""
    count = 0

    def before(*_args: Any) -> None:
        nonlocal count
        count += 1
        if count == nth:
            raise Killed

    event.listen(engine.sync_engine, "before_cursor_execute", before)
    try:
        await run()
    except Killed:
        return True
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", before)
    return False


async def test_closes_at_once_make_one_invoice_each_under_numbers_without_a_hole(
    engine: AsyncEngine,
) -> None:
    ids = [f"org_{n}" for n in range(4)]
    await put_rows(
        engine,
        orgs=[org_row(each, each) for each in ids],
        charges=[charge_row(1, MID, RUPEE, org_id=each) for each in ids],
    )
    closers = [desk(engine, clock_at(FEB + timedelta(days=1)))[0] for _ in range(3)]
    await asyncio.gather(*(closer.round() for closer in closers))
    found = await InvoiceService(engine, key_hasher(), clock_at(FEB)).invoices()
    assert sorted(invoice.org_id for invoice in found) == ids
    assert sorted(invoice.number or "" for invoice in found) == [f"INV/2526/{n:06d}" for n in range(1, 5)]
    assert len(await NoticeOutbox(engine).pending()) == 4
