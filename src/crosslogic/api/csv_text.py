"""Tables as CSV that spreadsheets may open. Pure.

Invariant: no cell is a formula to a spreadsheet, whatever a tenant named its things: text that would begin one gets an
apostrophe in front, as spreadsheets themselves write text. Numbers stay numbers.
"""

import csv
import io
from collections.abc import Iterable, Sequence

from fastapi import Response

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # full-width ones as well


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """RFC 4180, with a header line; None is an empty cell."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def csv_answer(text: str, file_name: str) -> Response:
    """A download; `file_name` is ours, never a tenant's."""
    return Response(
        text,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{file_name}"', "X-Content-Type-Options": "nosniff"},
    )


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return "" if value is None else value
    shown = value.lstrip(" ")
    return f"'{value}" if shown.startswith(_FORMULA) and not _is_number(shown) else value


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-").replace(".", "", 1)
    return digits.isascii() and digits.isdigit()
