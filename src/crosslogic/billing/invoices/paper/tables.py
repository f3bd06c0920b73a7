"""The tables of a printed invoice: what was used, the sums, the taxes."""

from collections.abc import Mapping, Sequence
from typing import Any

from reportlab.lib.colors import white
from reportlab.lib.units import mm
from reportlab.platypus import LongTable, Paragraph, Table, TableStyle

from crosslogic.billing.invoices.paper import words
from crosslogic.billing.invoices.paper.fonts import markup
from crosslogic.billing.invoices.paper.style import ACCENT, INNER, RULE, SOFT, TINT, label, styles

_SECTIONS = (
    ("usage", "Usage by model and region"),
    ("reserved", "Reserved capacity"),
    ("fee", "Plan and commitment"),
    ("credit", "Credits"),
)
_WIDTHS = [70 * mm, 20 * mm, 28 * mm, 26 * mm, 0]
_WIDTHS[-1] = INNER - sum(_WIDTHS)


def lines_table(document: Mapping[str, Any]) -> LongTable:
    """All lines before tax; its head is repeated on every page."""
    style = styles()
    currency = document["currency"]["code"]
    heads = ("Description", "Requests", "Input tokens", "Output tokens", f"Amount {currency}")
    rows: list[list[Any]] = [
        [Paragraph(label(head), style["head" if n == 0 else "head_number"]) for n, head in enumerate(heads)]
    ]
    commands: list[tuple[Any, ...]] = [
        ("LINEBELOW", (0, 0), (-1, 0), 0.8, ACCENT),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        ("RIGHTPADDING", (-1, 0), (-1, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 2.6),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
    ]
    for kind, title in _SECTIONS:
        lines = [line for line in document["lines"] if line["kind"] == kind]
        if not lines:
            continue
        commands.append(("SPAN", (0, len(rows)), (-1, len(rows))))
        commands.append(("TOPPADDING", (0, len(rows)), (-1, len(rows)), 8))
        rows.append([Paragraph(markup(title, bold=True), style["section"]), "", "", "", ""])
        for line in lines:
            commands.append(("LINEBELOW", (0, len(rows)), (-1, len(rows)), 0.4, RULE))
            if kind != "usage":
                commands.append(("SPAN", (0, len(rows)), (3, len(rows))))
            rows.append(_row(line, currency))
    return LongTable(rows, colWidths=_WIDTHS, repeatRows=1, style=TableStyle(commands))


def totals_table(document: Mapping[str, Any]) -> Table:
    """From the subtotal to what is due, at the right."""
    style, totals, currency = styles(), document["totals"], document["currency"]["code"]
    rows = [("Subtotal", totals["subtotal_minor"], False)]
    if totals["discount_minor"]:
        rows.append(("Discounts and free usage", -totals["discount_minor"], False))
    if totals["credit_minor"]:
        rows.append(("Credits", -totals["credit_minor"], False))
    if totals["discount_minor"] or totals["credit_minor"]:
        rows.append(("Before tax", totals["total_minor"] - totals["tax_minor"], False))
    rows += [(_tax_name(part), part["amount_minor"], False) for part in document["tax"]["parts"]]
    rows.append(("Total", totals["total_minor"], True))
    if totals["prepaid_minor"]:
        rows.append(("Paid with prepaid credits", -totals["prepaid_minor"], False))
        rows.append(("Amount due", totals["due_minor"], True))
    return _sums(rows, currency, style)


def credit_note_table(document: Mapping[str, Any]) -> Table:
    totals, currency = document["totals"], document["currency"]["code"]
    rows = [("Credited before tax", totals["net_minor"], False)]
    rows += [(_tax_name(part), part["amount_minor"], False) for part in document["tax"]["parts"]]
    rows.append(("Total credited", totals["total_minor"], True))
    return _sums(rows, currency, styles())


def _sums(rows: Sequence[tuple[str, int, bool]], currency: str, style: Mapping[str, Any]) -> Table:
    cells: list[list[Any]] = []
    commands: list[tuple[Any, ...]] = [
        ("TOPPADDING", (0, 0), (-1, -1), 3),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
        ("LEFTPADDING", (0, 0), (-1, -1), 8),
        ("RIGHTPADDING", (0, 0), (-1, -1), 8),
    ]
    for n, (name, minor, strong) in enumerate(rows):
        shown = words.money(minor, currency) if strong else words.amount(minor, currency)
        kind = "total" if strong else "cell"
        cells.append(
            [
                Paragraph(markup(name, bold=strong), style[kind]),
                Paragraph(markup(shown, bold=strong), style["total_number" if strong else "number"]),
            ]
        )
        if strong:
            commands += [
                ("BACKGROUND", (0, n), (-1, n), TINT),
                ("LINEABOVE", (0, n), (-1, n), 0.8, ACCENT),
                ("TOPPADDING", (0, n), (-1, n), 6),
                ("BOTTOMPADDING", (0, n), (-1, n), 6),
            ]
        else:
            commands.append(("BACKGROUND", (0, n), (-1, n), white))
    return Table(cells, colWidths=[52 * mm, 36 * mm], style=TableStyle(commands), hAlign="RIGHT")


def _row(line: Mapping[str, Any], currency: str) -> list[Any]:
    style, quantity = styles(), line["quantity"]
    numbers: list[Any] = ["", "", ""]
    name = markup(line["description"])
    if line["kind"] == "usage":
        name = f'{name} &nbsp;<font color="{SOFT.hexval().replace("0x", "#")}" size="7">{markup(line["region"])}</font>'
        shown = [Paragraph(markup(words.count(quantity["prompt_tokens"])), style["number"])]
        if quantity["cached_tokens"]:
            shown.append(Paragraph(markup(f"{words.count(quantity['cached_tokens'])} cached"), style["soft_number"]))
        numbers = [
            Paragraph(markup(words.count(quantity["requests"])), style["number"]),
            shown,
            Paragraph(markup(words.count(quantity["completion_tokens"])), style["number"]),
        ]
    description = [Paragraph(name, style["cell"])]
    remark = _remark(line, currency)
    if remark:
        description.append(Paragraph(markup(remark), style["soft"]))
    amount = Paragraph(markup(words.amount(line["amount_minor"], currency)), style["number"])
    return [description, *numbers, amount]


def _remark(line: Mapping[str, Any], currency: str) -> str:
    """What was taken off a list price; the month of a fee."""
    details = line["details"]
    if line["kind"] != "usage":
        return words.month(details["month"]) if details.get("month") else ""
    listed, off = (words.rounded(details[name], currency) for name in ("list_amount", "discount_amount"))
    return f"list {words.amount(listed, currency)}, less {words.amount(off, currency)}" if off else ""


def _tax_name(part: Mapping[str, Any]) -> str:
    return f"{part['name']} {part['percent']}%"
