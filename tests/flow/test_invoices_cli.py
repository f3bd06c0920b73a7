"""Invoices from the shell, against a running cloud: what was used is closed, issued, printed, credited and paid."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from crosslogic.store.engine import create_engine
from tests.billing_samples import charge_row, put_rows
from tests.flow.clouds import Command

DOLLAR = 10**12


def used(data_dir: Path, *rows: dict[str, Any]) -> None:
    """Put charges where the running cloud finds them, as rating does."""

    async def write() -> None:
        engine = create_engine(f"sqlite:///{data_dir / 'crosslogic.db'}")
        await put_rows(engine, charges=rows)
        await engine.dispose()

    asyncio.run(write())


def test_usage_becomes_an_invoice_that_is_printed_credited_and_paid(
    crosslogic: Command, data_dir: Path, tmp_path: Path
) -> None:
    org = crosslogic("orgs", "create", "buyer", "--json")["id"]
    assert crosslogic("invoices", "list", "--org", "buyer") == "there are no invoices\n"
    place = ("--line", "1 Main Street", "--city", "Austin", "--state", "TX", "--country", "us")
    profile = crosslogic("invoices", "profile", "--org", "buyer", "--legal-name", "Buyer Inc", *place, "--json")
    assert (profile["legal_name"], profile["address"]["country"]) == ("Buyer Inc", "US")
    assert "Buyer Inc" in crosslogic("invoices", "profile", "--org", "buyer")
    assert "no valid GSTIN" in crosslogic("invoices", "profile", "--org", "buyer", "--gstin", "x", code=1)

    at = datetime.now(UTC) - timedelta(seconds=5)
    used(data_dir, charge_row(1, at, 12 * DOLLAR + 345 * 10**10, org_id=org, currency="USD", model="m"))
    preview = crosslogic("invoices", "preview", "--org", "buyer", "--json")
    assert (preview["number"], preview["total"], preview["currency"]) == (None, "15.45", "USD")
    assert "m" in crosslogic("invoices", "preview", "--org", "buyer")
    file = tmp_path / "preview.pdf"
    assert crosslogic("invoices", "preview", "--org", "buyer", "--pdf", str(file)) == f"wrote {file}\n"
    assert file.read_bytes()[:5] == b"%PDF-"

    (draft,) = crosslogic("invoices", "close", "--org", "buyer", "--now", "--json")
    assert draft["status"] == "draft"
    year = datetime.now(UTC).year
    number = f"INV/{year}/000001"
    assert crosslogic("invoices", "issue", draft["id"]) == f"{draft['id']} is issued as {number}\n"
    assert number in crosslogic("invoices", "list", "--status", "issued")
    assert crosslogic("invoices", "show", number, "--json")["id"] == draft["id"]
    file = tmp_path / "invoice.pdf"
    crosslogic("invoices", "pdf", number, "--output", str(file))
    assert file.read_bytes()[:5] == b"%PDF-"
    assert "only GST invoices" in crosslogic("invoices", "einvoice", number, code=1)

    credit = ("invoices", "credit-note", number, "--ref", "case-1", "--reason", "outage")
    assert crosslogic(*credit, "--amount", "5.45") == f"CN/{year}/000001: USD 5.45 credited\n"
    assert crosslogic(*credit, "--amount", "5.45") == f"CN/{year}/000001: USD 5.45 credited\n"
    over = ("invoices", "credit-note", number, "--ref", "case-2", "--reason", "more", "--amount", "10.01")
    assert "1 to 1000 minor units" in crosslogic(*over, code=1)
    assert "make a credit note" in crosslogic("invoices", "void", number, "--reason", "no", code=1)
    pay = ("invoices", "pay", number, "10.00", "--ref", "UTR1")
    assert crosslogic(*pay) == crosslogic(*pay) == f"{number} is paid; open: USD 0.00\n"
    shown = crosslogic("invoices", "show", number)
    assert "UTR1" in shown
    assert "outage" in shown
    assert crosslogic("invoices", "close") == "all periods that have ended are closed\n"


def test_a_void_invoice_is_replaced_by_one_over_the_same_usage(crosslogic: Command, data_dir: Path) -> None:
    org = crosslogic("orgs", "create", "mover", "--json")["id"]
    used(data_dir, charge_row(1, datetime.now(UTC), 7 * DOLLAR, org_id=org, currency="USD"))
    (draft,) = crosslogic("invoices", "close", "--org", "mover", "--now", "--json")
    crosslogic("invoices", "issue", draft["id"])
    anew = crosslogic("invoices", "void", draft["id"], "--reason", "address", "--reissue", "--json")
    assert (anew["total"], anew["revision"], anew["root_id"]) == ("7.00", 2, draft["id"])
    assert crosslogic("invoices", "show", draft["id"], "--json")["status"] == "void"
