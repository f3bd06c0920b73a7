"""`crosslogic config check`: is the configuration right, what does it leave without effect, what counts in the end."""

import sys
from typing import Annotated

import typer

from crosslogic.cli.flags import JsonOption
from crosslogic.cli.main import MISCONFIGURED
from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.cli.output import print_json
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings.effects import warnings
from crosslogic.settings.mistakes import InvalidSettings
from crosslogic.settings.show import as_tree, as_yaml
from crosslogic.wiring import startable

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def config() -> None:
    """Check the configuration, or show what counts."""


@app.command()
def check(
    config: ConfigOption = None,
    show: Annotated[bool, typer.Option("--show", help="Print all settings that count; secrets are masked.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read file and environment as the other commands do, and report every mistake. Exit code 2 if there is one."""
    try:
        settings = read_settings(config)
        if stopping := startable.mistakes(settings):
            raise InvalidSettings(stopping)
    except ConfigurationError as error:
        mistakes = error.mistakes if isinstance(error, InvalidSettings) else (str(error),)
        if as_json:
            print_json({"valid": False, "mistakes": mistakes})
        else:
            sys.stderr.write("".join(f"{mistake}\n" for mistake in mistakes))
        raise typer.Exit(MISCONFIGURED) from None
    found = [*warnings(settings), *startable.missing(settings)]
    if as_json:
        shown = {"settings": as_tree(settings)} if show else {}
        print_json({"valid": True, "warnings": found, **shown})
        return
    if show:
        typer.echo(as_yaml(settings), nl=False)
    for warning in found:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{config or 'the environment'}: valid", err=show)
