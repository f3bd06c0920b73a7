"""`crosslogic version`."""

import platform
from importlib.metadata import version as installed

import typer

from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json

app = typer.Typer(add_completion=False)


@app.command()
def version(as_json: JsonOption = False) -> None:
    """Print the version."""
    ours = installed("crosslogic")
    if as_json:
        print_json({"crosslogic": ours, "python": platform.python_version()})
    else:
        typer.echo(f"crosslogic {ours} (Python {platform.python_version()})")
