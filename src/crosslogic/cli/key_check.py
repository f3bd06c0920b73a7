"""`crosslogic keys check`: recognise keys of ours by form and checksum, without asking anybody.

Invariant: nothing is sent anywhere, and no key is printed beyond the beginning that lists show.
"""

import sys
from typing import Annotated

import typer

from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table
from crosslogic.kernel.errors import CrossLogicError
from crosslogic.tenancy import keys


def check(
    token: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="What may be a key; absent: a text on standard input is searched."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell offline whether something is a key of ours: by its form and checksum, as secret scanners do.

    Exit code 1 when a given KEY is none, or the text holds none. Whether it still works only the cloud knows:
    `crosslogic keys list` finds it by how it begins.
    """
    found = [_row(text) for text in token or keys.found_in(sys.stdin.read())]
    if as_json:
        print_json(found)
    elif found:
        print_table(
            ("begins with", "kind", "a key of ours"),
            ((row["prefix"], row["kind"], row["well_formed"]) for row in found),
            nothing="",
        )
    if not found:
        raise CrossLogicError("there is no key of ours in this text")
    if not all(row["well_formed"] for row in found):
        raise CrossLogicError("not a key of ours: its form or its checksum is wrong")


def _row(text: str) -> dict[str, str | bool | None]:
    kind = keys.kind_of(text)
    shown = None if kind is None else keys.shown_prefix(text)
    return {"prefix": shown, "kind": kind and kind.value, "well_formed": kind is not None}
