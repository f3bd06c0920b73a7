"""Fonts, and which of them can draw a character.

Invariant: text is only ever shown, never obeyed: what reportlab would read as markup is escaped, and characters that no
font of ours has become a visible box.
"""

from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import groupby
from xml.sax.saxutils import escape

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

REGULAR, BOLD = "NotoSans-Regular", "NotoSans-Bold"
_SCRIPTS = ("Devanagari", "Bengali", "Gujarati", "Gurmukhi", "Kannada", "Malayalam", "Oriya", "Tamil", "Telugu", "Thai")
_FALLBACKS = (*(f"NotoSans{script}-Regular" for script in _SCRIPTS), "DroidSansFallbackFull")
_MISSING = "\u25a1"


@cache
def load() -> dict[str, frozenset[int]]:
    """Register all fonts once in a process; the characters that each has."""
    found: dict[str, frozenset[int]] = {}
    for name in (REGULAR, BOLD, *_FALLBACKS):
        with resources.as_file(
            resources.files("crosslogic.billing.invoices.paper").joinpath("fonts", f"{name}.ttf")
        ) as path:
            font = TTFont(name, str(path))
        pdfmetrics.registerFont(font)
        found[name] = frozenset(font.face.charToGlyph)
    pdfmetrics.registerFontFamily(REGULAR, normal=REGULAR, bold=BOLD, italic=REGULAR, boldItalic=BOLD)
    return found


def markup(text: str, *, bold: bool = False) -> str:
    """The text for a Paragraph: escaped, with the font named where the script needs another one."""
    parts = []
    for font, run in runs(text, bold=bold):
        shown = escape(run)
        parts.append(shown if font == (BOLD if bold else REGULAR) else f'<font name="{font}">{shown}</font>')
    body = "".join(parts)
    return f"<b>{body}</b>" if bold else body


def runs(text: str, *, bold: bool = False) -> Iterator[tuple[str, str]]:
    """The text in pieces, each with a font that can draw it."""
    known = load()
    first = BOLD if bold else REGULAR

    def font_of(character: str) -> str:
        code = ord(character)
        return next((name for name in (first, *_FALLBACKS) if code in known[name]), "")

    at = first
    pieces: list[tuple[str, str]] = []
    for character in text:
        if not character.isspace():  # a space goes with what stands before it
            at = font_of(character)
        pieces.append((at or DROID, character if at else _MISSING))
    for font, run in groupby(pieces, key=lambda piece: piece[0]):
        yield font, "".join(character for _font, character in run)


DROID = "DroidSansFallbackFull"


def width(text: str, size: float, *, bold: bool = False) -> float:
    return sum(float(pdfmetrics.stringWidth(run, font, size)) for font, run in runs(text, bold=bold))


def fitted(text: str, size: float, most: float, *, bold: bool = False) -> str:
    """The text, cut with an ellipsis where it is wider than that."""
    if width(text, size, bold=bold) <= most:
        return text
    while text and width(f"{text}…", size, bold=bold) > most:
        text = text[:-1]
    return f"{text.rstrip()}…"
