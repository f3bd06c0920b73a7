"""Answers on standard output: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDTH_WITHOUT_TERMINAL = 200

Row = dict[str, Any]
Columns = Sequence[str] | Mapping[str, str | Callable[[Row], Any]]


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def print_rows(rows: Iterable[Row], columns: Columns, *, nothing: str, as_json: bool) -> None:
    """A list of the management API: as JSON with all that is known of each, or as a table.

    `columns` are fields, or under each heading a field or what is made of a row.
    """
    if as_json:
        print_json(list(rows))
        return
    made_of = columns if isinstance(columns, Mapping) else dict(zip(columns, columns, strict=True))
    cells = ([row[of] if isinstance(of, str) else of(row) for of in made_of.values()] for row in rows)
    print_table(list(made_of), cells, nothing=nothing)


def print_done(row: Any, told: str, *, as_json: bool) -> None:
    """The answer to a command that changed something: the row as it is now, or one line for people."""
    if as_json:
        print_json(row)
    else:
        typer.echo(told)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """One thing, a line for each of its fields."""
    print_table(("", ""), fields, nothing="")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, nothing: str) -> None:
    """One row each; `nothing` is printed when there are none."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # names come from tenants: no markup of theirs is obeyed
        table.add_row(*(escape(_text(value)) for value in row))
    if not table.row_count:
        typer.echo(nothing)
        return
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    Console(width=width, highlight=False).print(table)


def print_note(text: str) -> None:
    """A line that is to be seen: in colour on a terminal that has any and may show it (`NO_COLOR`)."""
    Console(highlight=False).print(text, style="yellow", markup=False, soft_wrap=True)


def limits_text(limits: dict[str, Any]) -> str:
    """Ceilings in a few words; a dash when there are none."""
    units = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "concurrency": "at once"}
    parts = [f"{limits[name]:,} {unit}" for name, unit in units.items() if limits.get(name) is not None]
    parts += [
        f"{name}={value:,}" if isinstance(value, int) else f"{name}={value}"
        for name, value in limits.items()
        if name not in units and name not in ("burst_share", "shadow") and value is not None
    ]
    if limits.get("shadow"):
        parts.append("in shadow")
    return ", ".join(parts) or "-"


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)
