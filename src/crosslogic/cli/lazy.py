"""Commands whose modules are imported when they are called, so that `crosslogic --help` answers at once."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command


class Place(NamedTuple):
    """Where a command lives, and the line about it in `--help`."""

    module: str
    summary: str
    attribute: str = "app"


class LazyGroup(TyperGroup):
    """Shows the summaries of `places`, and imports the module of the one that is called."""

    def __init__(self, places: Mapping[str, Place], **attributes: Any) -> None:
        super().__init__(
            commands={name: TyperCommand(name, help=place.summary) for name, place in places.items()},
            **attributes,
        )
        self._places = places

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        place = self._places.get(args[0])
        if place is not None:
            self.commands[args[0]] = get_command(_app(getattr(import_module(place.module), place.attribute)))
        return super().resolve_command(ctx, args)


def _app(found: Any) -> typer.Typer:
    """A group of commands is an app already; a single command may be a plain function."""
    if isinstance(found, typer.Typer):
        return found
    app = typer.Typer(add_completion=False)
    app.command()(found)
    return app
