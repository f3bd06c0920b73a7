"""The hourly usage of the period as a small graph: a bar for each hour, a tick for each day."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from reportlab.graphics.shapes import Drawing, Line, Rect, String

from crosslogic.billing.invoices.paper import words
from crosslogic.billing.invoices.paper.fonts import REGULAR
from crosslogic.billing.invoices.paper.style import ACCENT, ACCENT_SOFT, RULE, SOFT

HEIGHT, BASE, TOP = 92.0, 16.0, 6.0
LABELS = 42.0  # at the right, for what the heights mean
_HOUR = timedelta(hours=1)


def usage_graph(document: Mapping[str, Any], width: float) -> Drawing | None:
    """None where nothing was used. Corrections below zero are drawn as nothing; the lines have them."""
    hours = document["hours"]
    amounts = [max(Decimal(0), Decimal(amount)) for amount in hours["amounts"]]
    peak = max(amounts, default=Decimal(0))
    if not peak:
        return None
    drawing = Drawing(width, HEIGHT)
    tall = HEIGHT - BASE - TOP
    width -= LABELS
    _grid(drawing, width, peak, tall, document["currency"])
    step = width / len(amounts)
    start = datetime.fromisoformat(hours["start"]).astimezone(ZoneInfo(document["period"]["time_zone"]))
    for n, amount in enumerate(amounts):
        if not amount:
            continue
        weekend = (start + n * _HOUR).weekday() >= 5
        height = max(0.4, float(amount / peak) * tall)
        bar = max(0.3, step * (0.86 if step > 1.5 else 1.0))
        colour = ACCENT_SOFT if weekend else ACCENT
        drawing.add(Rect(n * step, BASE, bar, height, fillColor=colour, strokeColor=None, strokeWidth=0))
    _days(drawing, start, len(amounts), step)
    return drawing


def _grid(drawing: Drawing, width: float, peak: Decimal, tall: float, currency: Mapping[str, Any]) -> None:
    code = currency["code"]
    for share in (Decimal(1), Decimal("0.5")):
        y = BASE + float(share) * tall
        drawing.add(Line(0, y, width, y, strokeColor=RULE, strokeWidth=0.5))
        minor = int((peak * share * 10 ** currency["digits"]).to_integral_value())
        text = words.money(minor, code) if minor else "< 0.01"
        drawing.add(_text(width + LABELS, y - 2, text, "end"))
    drawing.add(Line(0, BASE, width, BASE, strokeColor=SOFT, strokeWidth=0.5))


def _days(drawing: Drawing, start: datetime, count: int, step: float) -> None:
    """A tick at each local midnight, a number at every other one where they would touch."""
    days = [n for n in range(count) if (start + n * _HOUR).hour == 0]
    each = max(1, -(-len(days) * 14 // int(step * count)))
    for place, n in enumerate(days):
        x = n * step
        drawing.add(Line(x, BASE, x, BASE - 2.5, strokeColor=SOFT, strokeWidth=0.4))
        if place % each == 0:
            drawing.add(_text(x, BASE - 10, str((start + n * _HOUR).day), "start"))


def _text(x: float, y: float, text: str, anchor: str) -> String:
    return String(x, y, text, fontName=REGULAR, fontSize=6, fillColor=SOFT, textAnchor=anchor)
