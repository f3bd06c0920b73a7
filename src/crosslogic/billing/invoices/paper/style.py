"""Colours, sizes and paragraph styles of printed invoices."""

from functools import cache
from typing import Any

from reportlab.lib.colors import HexColor
from reportlab.lib.enums import TA_RIGHT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm

from crosslogic.billing.invoices.paper.fonts import REGULAR, load, markup

PAGE = A4
MARGIN = 18 * mm
TOP, BOTTOM = 16 * mm, 22 * mm
INNER = PAGE[0] - 2 * MARGIN

INK = HexColor("#172033")
SOFT = HexColor("#667085")
RULE = HexColor("#E3E7EE")
TINT = HexColor("#F5F7FB")
ACCENT = HexColor("#3445C9")
ACCENT_SOFT = HexColor("#A9B4F3")
WARNING = HexColor("#B3261E")


def _style(name: str, size: float, leading: float, **more: Any) -> ParagraphStyle:
    return ParagraphStyle(
        name, fontName=REGULAR, fontSize=size, leading=leading, **{"textColor": INK, "splitLongWords": 1, **more}
    )


@cache
def styles() -> dict[str, ParagraphStyle]:
    load()
    made = (
        _style("body", 8.6, 12),
        _style("small", 7.4, 10, textColor=SOFT),
        _style("label", 6.8, 9, textColor=SOFT),
        _style("cell", 8, 10.4),
        _style("number", 8, 10.4, alignment=TA_RIGHT),
        _style("soft", 7, 9, textColor=SOFT),
        _style("soft_number", 7, 9, textColor=SOFT, alignment=TA_RIGHT),
        _style("head", 6.8, 9, textColor=SOFT),
        _style("head_number", 6.8, 9, textColor=SOFT, alignment=TA_RIGHT),
        _style("section", 8.6, 11, textColor=ACCENT),
        _style("total", 10, 13),
        _style("total_number", 10, 13, alignment=TA_RIGHT),
        _style("name", 14, 18),
    )
    return {style.name: style for style in made}


def label(text: str) -> str:
    """Small capitals, spaced by the style."""
    return markup(text.upper())
