"""The PDF: the same bytes for the same document, everything on it, hundreds of lines, names of any script as text."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from pypdf import PdfReader

from crosslogic.billing.charges.model import FeeKind
from crosslogic.billing.credits.model import CreditClass
from crosslogic.billing.invoices.document import Hours, Setting, canonical, written
from crosslogic.billing.invoices.draft import Bill, DrawSum, FeeSum, UsageSum, drafted
from crosslogic.billing.invoices.paper.pdf import pdf_of
from crosslogic.billing.invoices.paper.words import amount, money
from crosslogic.billing.profiles.model import BillingTerms
from tests.billing_samples import BUYER, SELLER
from tests.invoice_samples import FEB, JAN, issued

RUPEE = 10**12
TERMS = BillingTerms(time_zone="Asia/Kolkata")


def document(lines: int = 3, buyer: Any = BUYER, **changed: Any) -> str:
    usage = tuple(
        UsageSum(f"model-{n:03d}", "in-mumbai", 10, 5000, 100 * (n % 2), 900, 200 * RUPEE, 20 * RUPEE, 180 * RUPEE)
        for n in range(lines)
    )
    fee = FeeSum("fee_1", FeeKind.RESERVED_CAPACITY, "res_1", "2026-01", "500 capacity units", 900 * RUPEE)
    draws = (DrawSum("g1", CreditClass.PROMOTIONAL, "launch", 30 * RUPEE),)
    content = drafted(Bill("INR", usage, (fee,), draws), SELLER, buyer, FEB.date())
    invoice = msgspec.structs.replace(issued(issued_at=FEB, **changed), **content.columns())
    amounts = tuple((n % 24) * RUPEE for n in range(744))
    setting = Setting(
        SELLER, buyer, "acme", TERMS, Hours(JAN, amounts, (1,) * 744), FEB + timedelta(days=28), "Visa ending in 4242"
    )
    return written(invoice, content, setting)


def text_of(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def test_everything_that_was_promised_is_on_it() -> None:
    shown = text_of(pdf_of(document()))
    for text in (
        "Tax invoice",
        "INV/2026/000001",
        "Acme Labs",
        "GSTIN 27AAPFU0939F1ZV",
        "GSTIN 29AAPFU0939F1ZR",
        "27 Maharashtra",
        "998315",
        "model-002",
        "in-mumbai",
        "500 capacity units",
        "Promotional credit: launch",
        "IGST 18%",
        "Usage by the hour",
        "Visa ending in 4242",
        "Next invoice: 1 March 2026",
        "SHA-256",
        "₹1,663.80",
    ):
        assert text in shown, text


def test_the_same_document_gives_the_same_bytes() -> None:
    assert pdf_of(document()) == pdf_of(document())
    assert pdf_of(document()) != pdf_of(document(number="INV/2026/000002"))


def test_hundreds_of_lines_break_over_pages_with_their_head_on_each() -> None:
    reader = PdfReader(io.BytesIO(pdf_of(document(300))))
    pages = [page.extract_text() for page in reader.pages]
    assert len(pages) > 5
    assert all(f"{n} / {len(pages)}" in page for n, page in enumerate(pages, 1))
    assert all("INPUT TOKENS" in page for page in pages[:-1])
    whole = "\n".join(pages)
    assert all(f"model-{n:03d}" in whole for n in range(300))


def test_names_are_shown_and_never_obeyed() -> None:
    """15 of the security list: no markup of a tenant's is read as such; other scripts are legible."""
    name = '<b>x</b> & <img src="file:///etc/passwd"/> <a href="http://evil">y</a> आचार्य 株式会社 Łódź Ω \U0001f600'
    buyer = msgspec.structs.replace(BUYER, legal_name=name, purchase_order="</para><para>%s {0}")
    shown = text_of(pdf_of(document(buyer=buyer))).replace("\n", " ")
    for text in ("<b>x</b> &", '<img src="file:///etc/passwd"/>', "<a", "http://evil", "株式会社", "Łódź Ω", "</para>"):
        assert text in shown, text


def test_an_invoice_over_nothing_and_a_preview_are_printed_too() -> None:
    empty = drafted(Bill("JPY"), SELLER, BUYER, FEB.date())
    preview = msgspec.structs.replace(
        issued(number=None, issued_at=None, due_at=None, currency="JPY"), **empty.columns()
    )
    setting = Setting(SELLER, BUYER, "acme", TERMS, Hours(JAN), FEB)
    shown = text_of(pdf_of(written(preview, empty, setting)))
    assert "Preview" in shown
    assert "not issued" in shown


def test_documents_are_canonical() -> None:
    content = json.loads(document())
    assert canonical(content) == document()
    assert content["period"]["end"] == "2026-02-01T00:00:00+00:00"
    assert datetime.fromisoformat(content["issued_at"]) == FEB.astimezone(UTC)


def test_rupees_are_grouped_as_in_india() -> None:
    assert [amount(minor, "INR") for minor in (5, 99_999, 1_234_567_89, -10_000_000_00)] == [
        "0.05",
        "999.99",
        "12,34,567.89",
        "−1,00,00,000.00",
    ]
    assert (money(123456, "USD"), money(-5, "KWD"), money(1000, "JPY")) == ("$1,234.56", "−KWD 0.005", "¥1,000")
