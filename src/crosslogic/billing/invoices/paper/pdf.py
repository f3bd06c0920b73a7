"""From the document of an invoice or credit note to its PDF.

Invariant: a pure function of the document's bytes: no clock, no settings, no chance; the same document gives the same
PDF, byte for byte, as long as reportlab and the fonts stay the same. The digest at its foot is of the document.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    KeepTogether,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from crosslogic.billing.invoices.document import CREDIT_NOTE_SCHEMA, digest_of
from crosslogic.billing.invoices.paper import words
from crosslogic.billing.invoices.paper.fonts import BOLD, REGULAR, fitted, load, markup, runs
from crosslogic.billing.invoices.paper.graph import usage_graph
from crosslogic.billing.invoices.paper.style import (
    ACCENT,
    BOTTOM,
    INK,
    INNER,
    MARGIN,
    PAGE,
    RULE,
    SOFT,
    TINT,
    TOP,
    WARNING,
    label,
    styles,
)
from crosslogic.billing.invoices.paper.tables import credit_note_table, lines_table, totals_table
from crosslogic.billing.tax.data import gst_states


def pdf_of(document: str) -> bytes:
    """`document` is canonical JSON as `document.py` writes it."""
    load()
    content = json.loads(document)
    credit_note = content["schema"] == CREDIT_NOTE_SCHEMA
    story = _credit_note(content) if credit_note else _invoice(content)
    buffer = io.BytesIO()
    title = f"{_title(content)} {content['number'] or ''}".strip()
    template = BaseDocTemplate(
        buffer,
        pagesize=PAGE,
        leftMargin=MARGIN,
        rightMargin=MARGIN,
        topMargin=TOP,
        bottomMargin=BOTTOM,
        title=title,
        author=content["seller"]["legal_name"],
        creator="CrossLogic",
        invariant=1,  # no time and no chance in its ids
    )
    frame = Frame(MARGIN, BOTTOM, INNER, PAGE[1] - TOP - BOTTOM, 0, 0, 0, 0)
    template.addPageTemplates(PageTemplate("page", [frame], pagesize=PAGE))
    foot = _Foot(content, digest_of(document))
    template.build(story, canvasmaker=foot.canvas)
    return buffer.getvalue()


def _invoice(content: Mapping[str, Any]) -> list[Flowable]:
    style = styles()
    graph = usage_graph(content, INNER)
    story: list[Flowable] = [*_head(content), _banner(content), Spacer(0, 5 * mm)]
    if graph is not None:
        hours = Paragraph(markup("Usage by the hour", bold=True), style["section"])
        zone = Paragraph(markup(f"{content['period']['time_zone']}; weekends lighter"), style["small"])
        story += [KeepTogether([_sides(hours, zone), Spacer(0, 1 * mm), graph]), Spacer(0, 4 * mm)]
    story += [lines_table(content), Spacer(0, 4 * mm), KeepTogether([totals_table(content)]), Spacer(0, 4 * mm)]
    story.append(KeepTogether(_closing(content)))
    return story


def _credit_note(content: Mapping[str, Any]) -> list[Flowable]:
    style, invoice = styles(), content["invoice"]
    why = f"Credit for invoice {invoice['number']} of {words.day(invoice['issued_on'])}: {content['reason']}"
    story = [*_head(content), Paragraph(markup(why), style["body"]), Spacer(0, 5 * mm), credit_note_table(content)]
    return [*story, Spacer(0, 5 * mm), *(_note(note) for note in content["tax"]["notes"])]


def _head(content: Mapping[str, Any]) -> list[Flowable]:
    """Who sends it to whom, and its number and days."""
    style, seller, buyer = styles(), content["seller"], content["buyer"]
    name = Paragraph(markup(seller["legal_name"], bold=True), style["name"])
    title = Paragraph(f'<para align="right">{markup(_title(content))}</para>', style["name"])
    first = Table([[name, title]], colWidths=[INNER * 0.7, INNER * 0.3], style=_tight())
    from_lines = [*_address(seller), *_numbers(seller), seller["email"], seller.get("website")]
    sender = [_note(line) for line in from_lines if line]
    to = [_small_caps("Billed to"), Paragraph(markup(buyer["legal_name"], bold=True), style["body"])]
    to += [_note(line) for line in (*_address(buyer), *_numbers(buyer)) if line]
    facts = [
        [_small_caps(key), Paragraph(markup(value, bold=key == "Number"), style["cell"])]
        for key, value in _facts(content)
    ]
    about = Table(facts, colWidths=[25 * mm, 39 * mm], style=_tight(), hAlign="RIGHT")
    columns = Table([[sender, to, about]], colWidths=[54 * mm, INNER - 118 * mm, 64 * mm], style=_tight())
    return [first, Spacer(0, 3 * mm), columns, Spacer(0, 6 * mm)]


def _small_caps(text: str) -> Paragraph:
    return Paragraph(label(text), styles()["label"])


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("Number", content["number"] or "not issued"), ("Issued", words.day(content["issued_on"]))]
    if "invoice" in content:
        return [*facts, ("For invoice", content["invoice"]["number"])]
    facts += [("Due", words.day(content["due_on"])), ("Period", words.period(content["period"]))]
    tax = content["tax"]
    if tax["place_of_supply"]:
        facts.append(("Place of supply", tax["place_of_supply"]))
    if tax["service_code"]:
        facts.append(("SAC", tax["service_code"]))
    if content["buyer"]["purchase_order"]:
        facts.append(("Your order", content["buyer"]["purchase_order"]))
    if content["replaces"]:
        facts.append(("Replaces", content["replaces"]))
    return facts


def _banner(content: Mapping[str, Any]) -> Table:
    """What is due, and when: the one thing that everybody looks for."""
    style, totals, currency = styles(), content["totals"], content["currency"]["code"]
    due = words.money(totals["due_minor"], currency)
    what = f"{due} due on {words.day(content['due_on'])}" if totals["due_minor"] else "Nothing to pay"
    if content["number"] is None:
        what = f"{due} so far"
    left = Paragraph(f'<font size="13">{markup(what, bold=True)}</font>', style["name"])
    how = _how(content)
    right = Paragraph(f'<para align="right">{markup(how)}</para>', style["small"])
    commands = [
        ("BACKGROUND", (0, 0), (-1, -1), TINT),
        ("LINEBEFORE", (0, 0), (0, -1), 3, ACCENT),
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ("LEFTPADDING", (0, 0), (0, -1), 10),
        ("TOPPADDING", (0, 0), (-1, -1), 7),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 9),
    ]
    return Table([[left, right]], colWidths=[INNER * 0.58, INNER * 0.42], style=TableStyle(commands))


def _how(content: Mapping[str, Any]) -> str:
    payment = content["payment"]
    if content["number"] is None:
        return "A preview of the running period, not an invoice"
    if not content["totals"]["due_minor"]:
        return "Covered by free usage and credits"
    if payment["method"]:
        will = "will be charged" if payment["auto_charge"] else "is on file"
        return f"{payment['method']} {will}"
    return "Please pay by the due date"


def _closing(content: Mapping[str, Any]) -> list[Flowable]:
    """What the law wants said, how to pay, when the next one comes."""
    payment, tax, totals = content["payment"], content["tax"], content["totals"]
    said = [*tax["notes"]]
    if payment["method"]:
        said.append(f"Payment method: {payment['method']}")
    if payment["instructions"]:
        said.append(payment["instructions"])
    if content["next_invoice_on"]:
        said.append(f"Next invoice: {words.day(content['next_invoice_on'])}")
    if totals["rounding_amount"].strip("-0."):
        said.append(
            f"Exact amount before tax {totals['exact_amount']}; each line is rounded once, half to even "
            f"(difference {totals['rounding_amount']})"
        )
    return [_note(each) for each in said]


def _note(text: str) -> Paragraph:
    return Paragraph(markup(text), styles()["small"])


def _address(party: Mapping[str, Any]) -> list[str]:
    names = {f"IN-{state.code}": state.name for state in gst_states().values()}
    return words.address_lines(party["address"], names)


def _numbers(party: Mapping[str, Any]) -> list[str]:
    return [f"{name} {party[key]}" for key, name in (("gstin", "GSTIN"), ("vat_id", "VAT")) if party.get(key)]


def _title(content: Mapping[str, Any]) -> str:
    if content["schema"] == CREDIT_NOTE_SCHEMA:
        return "Credit note"
    if content["number"] is None:
        return "Preview"
    return "Tax invoice" if content["tax"]["scheme"] == "gst" else "Invoice"


def _sides(left: Flowable, right: Paragraph) -> Table:
    right = Paragraph(f'<para align="right">{right.text}</para>', right.style)
    return Table([[left, right]], colWidths=[INNER / 2, INNER / 2], style=_tight())


def _tight() -> TableStyle:
    sides = ("LEFTPADDING", "RIGHTPADDING", "TOPPADDING", "BOTTOMPADDING")
    return TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), *((side, (0, 0), (-1, -1), 0) for side in sides)])


class _Foot:
    """Draws what stands on every page, once it is known how many there are."""

    def __init__(self, content: Mapping[str, Any], digest: str) -> None:
        self._content = content
        self._digest = digest

    def canvas(self, *args: Any, **more: Any) -> Canvas:
        return _NumberedCanvas(self, *args, **more)

    def draw(self, canvas: Canvas, page: int, pages: int) -> None:
        content = self._content
        canvas.setStrokeColor(ACCENT)
        canvas.setLineWidth(2.4)
        canvas.line(0, PAGE[1] - 1.2, PAGE[0], PAGE[1] - 1.2)
        canvas.setStrokeColor(RULE)
        canvas.setLineWidth(0.5)
        canvas.line(MARGIN, 15 * mm, PAGE[0] - MARGIN, 15 * mm)
        name = fitted(content["seller"]["legal_name"], 6.6, INNER * 0.4)
        self._write(canvas, MARGIN, 11.4 * mm, f"{name}  ·  {content['number'] or 'Preview'}", 6.6)
        self._write(canvas, MARGIN, 8 * mm, f"SHA-256 {self._digest}", 5.4)
        where = f"{page} / {pages}"
        canvas.setFont(REGULAR, 6.6)
        canvas.setFillColor(SOFT)
        canvas.drawRightString(PAGE[0] - MARGIN, 11.4 * mm, where)
        if content["number"] is None:
            canvas.saveState()
            canvas.setFillColor(WARNING, alpha=0.07)
            canvas.setFont(BOLD, 92)
            canvas.translate(PAGE[0] / 2, PAGE[1] / 2)
            canvas.rotate(52)
            canvas.drawCentredString(0, -30, "PREVIEW")
            canvas.restoreState()

    def _write(self, canvas: Canvas, x: float, y: float, text: str, size: float) -> None:
        canvas.setFillColor(SOFT)
        for font, run in runs(text):
            canvas.setFont(font, size)
            canvas.drawString(x, y, run)
            x += canvas.stringWidth(run, font, size)
        canvas.setFillColor(INK)


class _NumberedCanvas(Canvas):  # type: ignore[misc]
    """Keeps the pages until the last is there, so that each can say how many there are."""

    def __init__(self, foot: _Foot, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._foot = foot
        self._kept: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802 - reportlab's name
        self._kept.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        pages = len(self._kept)
        for n, page in enumerate(self._kept, 1):
            self.__dict__.update(page)
            self._foot.draw(self, n, pages)
            super().showPage()
        super().save()
