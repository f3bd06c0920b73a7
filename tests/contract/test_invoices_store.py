"""Issued invoices are what they are, whoever asks the database to change them; payments count once."""

import asyncio
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices import sql
from crosslogic.billing.invoices.model import InvoiceStatus
from crosslogic.billing.invoices.notices import NoticeOutbox
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.invoices.states import MOVES
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import InvoiceId, OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import audit_log, invoice_lines, invoice_payments, invoices
from crosslogic.tenancy.keys import key_hasher
from tests.invoice_samples import FEB, JAN, LATER, LINES, draft, issued, put

ONE = InvoiceId("inv_1")


def service_on(engine: AsyncEngine) -> InvoiceService:
    return InvoiceService(engine, key_hasher(), ManualClock(FEB))


async def execute(engine: AsyncEngine, statement: Any, *rows: Any) -> None:
    async with engine.begin() as conn:
        await conn.execute(statement, *rows)


async def test_no_other_column_of_an_issued_invoice_can_change(engine: AsyncEngine) -> None:
    """17. Issued bytes immutable."""
    await put(engine, issued())
    for column in invoices.c:
        if column.name in LATER:
            continue
        old = sql.invoice_columns(issued())[column.name]
        new: Any = old + ("x" if isinstance(old, str) else timedelta(seconds=1) if isinstance(old, datetime) else 1)
        with pytest.raises(DBAPIError, match="immutable"):
            await execute(engine, update(invoices).values({column: new, invoices.c.paid_minor: 1}))
    assert await service_on(engine).invoice(ONE) == issued()


async def test_the_database_admits_the_listed_moves_only(engine: AsyncEngine) -> None:
    """18. State machine admits only listed edges."""
    for n, (before, after) in enumerate(product(InvoiceStatus, repeat=2)):
        invoice_id = f"inv_{n}"
        own: dict[str, Any] = {"revision": n + 1}
        if before is not InvoiceStatus.DRAFT:
            own |= {"status": before, "serial": n + 1, "number": invoice_id}
        await put(engine, draft(invoice_id, **own) if before is InvoiceStatus.DRAFT else issued(invoice_id, **own))
        move = update(invoices).where(invoices.c.id == invoice_id).values(status=after.value)
        if before is after or (before, after) in MOVES:
            await execute(engine, move)
        else:
            with pytest.raises(DBAPIError, match="immutable"):
                await execute(engine, move)


async def test_nothing_of_an_issued_invoice_can_be_deleted_or_added(engine: AsyncEngine) -> None:
    await put(engine, issued())
    await service_on(engine).mark_paid(ONE, "pi_1", 100, FEB)
    line = {"invoice_id": ONE, "n": 9, "kind": "usage", "description": "", "quantity": {}, "details": {}}
    statements: list[Any] = [
        delete(invoices),
        delete(invoice_lines),
        update(invoice_lines).values(amount_minor=1),
        insert(invoice_lines).values({**line, "exact_amount": 1, "amount_minor": 0}),
        delete(invoice_payments),
        update(invoice_payments).values(amount_minor=1),
    ]
    if engine.dialect.name == "postgresql":
        statements += [text(f"TRUNCATE {table} CASCADE") for table in ("invoices", "invoice_lines", "invoice_payments")]
    else:
        row = {**sql.invoice_columns(issued()), "total_minor": 1}
        statements.append(insert(invoices).prefix_with("OR REPLACE").values(row))
    for statement in statements:
        with pytest.raises(DBAPIError, match="immutable"):
            await execute(engine, statement)
    assert await service_on(engine).lines(issued()) == list(LINES)


async def test_a_draft_may_be_written_anew(engine: AsyncEngine) -> None:
    await put(engine, draft())
    await execute(engine, delete(invoice_lines))
    await execute(engine, update(invoices).values(total_minor=5, tax_minor=0))
    assert (await service_on(engine).invoice(ONE)).total_minor == 5


async def test_a_period_has_one_invoice_of_a_kind_and_a_number_one_invoice(engine: AsyncEngine) -> None:
    await put(engine, issued())
    with pytest.raises(IntegrityError):
        await put(engine, draft("inv_2"))
    with pytest.raises(IntegrityError):
        await put(engine, issued("inv_2", period_start=FEB))
    await put(engine, draft("inv_2", revision=2))


async def test_open_and_due_invoices_are_told_oldest_first(engine: AsyncEngine) -> None:
    await put(
        engine,
        issued("inv_2", org_id=OrgId("org_2"), serial=2, number="INV/2026/000002", status=InvoiceStatus.OVERDUE),
        issued(),
        issued("inv_3", period_start=FEB, serial=3, number="INV/2026/000003", status=InvoiceStatus.PAID),
        draft("inv_4", period_start=FEB, revision=2),
        issued("inv_5", period_start=FEB, revision=3, serial=5, number="n5", due_at=FEB + timedelta(days=90)),
    )
    invoice_service = service_on(engine)
    assert [each.id for each in await invoice_service.open_invoices()] == ["inv_1", "inv_2", "inv_5"]
    assert [each.id for each in await invoice_service.open_invoices(OrgId("org_2"))] == ["inv_2"]
    assert await invoice_service.due(JAN) == []
    assert [each.id for each in await invoice_service.due(FEB + timedelta(days=30))] == ["inv_1", "inv_2"]
    assert [each.id for each in await invoice_service.invoices(limit=2)] == ["inv_5", "inv_4"]
    assert [each.id for each in await invoice_service.invoices(after="inv_4", status=InvoiceStatus.ISSUED)] == ["inv_1"]
    assert (await invoice_service.invoice("INV/2026/000001", OrgId("org_1"))).id == ONE
    for foreign in (ONE, "inv_unknown", "INV/2026/000001", "inv_\x00"):
        with pytest.raises(NotFound, match="there is no such invoice"):
            await invoice_service.invoice(foreign, OrgId("org_2"))


async def test_payments_count_once_and_the_last_one_makes_an_invoice_paid(engine: AsyncEngine) -> None:
    await put(engine, issued(status=InvoiceStatus.OVERDUE))
    invoice_service = service_on(engine)
    assert (await invoice_service.mark_paid(ONE, "pi_1", 180, FEB)).open_minor == 1000
    again = await asyncio.gather(*(invoice_service.mark_paid(ONE, "pi_2", 1000, FEB) for _ in range(3)))
    assert {each.status for each in again} == {InvoiceStatus.PAID}
    with pytest.raises(Conflict, match="known with another amount"):
        await invoice_service.mark_paid(ONE, "pi_1", 181, FEB)
    paid = await invoice_service.invoice(ONE)
    assert (paid.status, paid.paid_at, paid.open_minor) == (InvoiceStatus.PAID, FEB, 0)
    assert [each.payment_ref for each in await invoice_service.payments(paid)] == ["pi_1", "pi_2"]
    outbox = NoticeOutbox(engine)
    (notice,) = await outbox.pending()
    assert (notice.kind, notice.entity_id, notice.payload["number"]) == ("invoice.paid", ONE, "INV/2026/000001")
    await outbox.sent([notice.id], FEB)
    assert await outbox.pending() == []
    async with reading(engine) as conn:
        actions = (await conn.execute(select(audit_log.c.action))).scalars().all()
    assert actions == ["invoice.payment"] * 2


async def test_money_that_comes_in_for_a_paid_invoice_is_kept(engine: AsyncEngine) -> None:
    await put(engine, issued())
    invoice_service = service_on(engine)
    await invoice_service.mark_paid(ONE, "pi_1", 1180, FEB)
    twice = await invoice_service.mark_paid(ONE, "pi_2", 1180, FEB)
    assert (twice.status, twice.open_minor) == (InvoiceStatus.PAID, -1180)


@pytest.mark.parametrize("status", [InvoiceStatus.DRAFT, InvoiceStatus.VOID])
async def test_what_nobody_owes_cannot_be_paid(engine: AsyncEngine, status: InvoiceStatus) -> None:
    await put(engine, draft() if status is InvoiceStatus.DRAFT else issued(status=status))
    with pytest.raises(Conflict, match="cannot be paid"):
        await service_on(engine).mark_paid(ONE, "pi_1", 1180, FEB)
    for amount, ref in ((0, "pi"), (-1, "pi"), (1, ""), (1, "π"), (10**16, "pi")):
        with pytest.raises(InvalidRequest):
            await service_on(engine).mark_paid(ONE, ref, amount, FEB)
