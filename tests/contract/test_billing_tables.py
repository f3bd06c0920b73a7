"""What the database itself holds of charges and credits: they come back as they went in, and stay as they are."""

import pytest
from sqlalchemy import Table, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.charges.rows import charge_columns, to_charge
from crosslogic.billing.credits.rows import grant_columns, to_grant
from crosslogic.store.tables import charges, credit_grants, fees
from tests.billing_samples import fee_row
from tests.rating_samples import JANUARY_2026, charged, granted


async def test_a_charge_comes_back_as_it_went_in(engine: AsyncEngine) -> None:
    made = charged(1, list_amount=10**30, amount=10**30)
    async with engine.begin() as conn:
        await conn.execute(insert(charges).values(charge_columns(made)))
    async with engine.connect() as conn:
        row = (await conn.execute(select(charges))).mappings().one()
    assert to_charge(row) == made


async def test_a_charge_stands_on_one_invoice_for_ever(engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        await conn.execute(insert(charges).values(charge_columns(charged(1))))
        await conn.execute(update(charges).values(invoice_id="inv_1"))
        await conn.execute(update(charges).values(invoice_id="inv_1"))
    for other in ("inv_2", None):
        with pytest.raises(DBAPIError, match="charges are immutable"):
            async with engine.begin() as conn:
                await conn.execute(update(charges).values(invoice_id=other))


@pytest.mark.parametrize("change", [{"amount": 1}, {"terms": "{}"}, {"at": JANUARY_2026}])
async def test_what_a_charge_says_cannot_be_changed(engine: AsyncEngine, change: dict[str, object]) -> None:
    async with engine.begin() as conn:
        await conn.execute(insert(charges).values(charge_columns(charged(1))))
    with pytest.raises(DBAPIError, match="charges are immutable"):
        async with engine.begin() as conn:
            await conn.execute(update(charges).values(change))
    with pytest.raises(DBAPIError, match="charges are immutable"):
        async with engine.begin() as conn:
            await conn.execute(delete(charges))


async def test_a_row_of_the_ledger_is_charged_once(engine: AsyncEngine) -> None:
    async with engine.begin() as conn:
        await conn.execute(insert(charges).values(charge_columns(charged(1))))
    for second in (charged(1, request_id="req_other"), charged(2, request_id="req_000001")):
        with pytest.raises(IntegrityError):
            async with engine.begin() as conn:
                await conn.execute(insert(charges).values(charge_columns(second)))


async def test_a_grant_is_voided_once_and_changes_in_nothing_else(engine: AsyncEngine) -> None:
    made = granted(1)
    async with engine.begin() as conn:
        await conn.execute(insert(credit_grants).values(grant_columns(made)))
        await conn.execute(update(credit_grants).values(voided_at=JANUARY_2026, void_seq=7))
    async with engine.connect() as conn:
        found = to_grant((await conn.execute(select(credit_grants))).mappings().one())
    assert (found.voided_at, found.void_seq, found.amount) == (JANUARY_2026, 7, made.amount)
    for change in ({"void_seq": 8}, {"voided_at": None}, {"amount": 2}):
        with pytest.raises(DBAPIError, match="credit_grants are immutable"):
            async with engine.begin() as conn:
                await conn.execute(update(credit_grants).values(change))


@pytest.mark.parametrize(
    ("table", "row", "set_once"),
    [
        (charges, charge_columns(charged(1)), {"invoice_id"}),
        (credit_grants, grant_columns(granted(1)), {"voided_at", "void_seq"}),
        (fees, fee_row("fee_1", 1, JANUARY_2026), {"invoice_id"}),
    ],
    ids=["charges", "credit_grants", "fees"],
)
async def test_every_column_is_guarded_those_that_later_migrations_add_too(
    engine: AsyncEngine, table: Table, row: dict[str, object], set_once: set[str]
) -> None:
    async with engine.begin() as conn:
        await conn.execute(insert(table).values(row))
    for column in table.c:
        if column.name in set_once:
            continue
        with pytest.raises(DBAPIError, match="immutable"):
            async with engine.begin() as conn:
                await conn.execute(update(table).values({column.name: column}))
