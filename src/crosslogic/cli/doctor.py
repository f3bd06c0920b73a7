"""`crosslogic doctor`: each dependency, what is wrong with it, what to do. Exit code 1 if anything failed."""

import asyncio

import msgspec
import typer

from crosslogic.cli.diagnosis import diagnose
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.cli.output import print_json

app = typer.Typer(add_completion=False)

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}


@app.command()
def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look at every dependency: what is wrong, and what to do. It starts and changes nothing."""
    findings = asyncio.run(diagnose(read_settings(config)))
    if as_json:
        print_json([msgspec.to_builtins(finding) for finding in findings])
    else:
        for finding in findings:
            typer.secho(f"{finding.state:<8}", fg=_COLOURS[finding.state], nl=False)
            typer.echo(f"{finding.subject}: {finding.detail}")
            if finding.advice:
                typer.echo(f"        → {finding.advice}")
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)
