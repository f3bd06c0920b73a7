"""`crosslogic doctor`: each dependency, what is wrong with it, what to do. Exit code 1 if anything failed."""

import asyncio
from datetime import UTC, datetime

import msgspec
import typer

from crosslogic.catalog.cards import load_cards
from crosslogic.catalog.price_lists.packaged import packaged_prices
from crosslogic.cli.diagnosis import diagnose
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.cli.output import print_json
from crosslogic.compass.data_health import planner_health

app = typer.Typer(add_completion=False, invoke_without_command=True)

_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "failed": typer.colors.RED}


@app.callback()
def doctor(context: typer.Context, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Look at every dependency: what is wrong, and what to do. It starts and changes nothing."""
    if context.invoked_subcommand is not None:
        return
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


@app.command()
def data(as_json: JsonOption = False) -> None:
    """Look at the packaged data of the planner: what is missing, old or dubious. It needs no cloud.

    That of a running cloud, with what was imported, is at /admin/data/health.
    """
    health = planner_health(load_cards(), packaged_prices(), datetime.now(UTC).date())
    if as_json:
        print_json(msgspec.to_builtins(health))
        return
    typer.echo(
        f"{health.models} models, {health.gpus} GPUs, {health.benchmarks} benchmarked configurations, "
        f"{health.prices} prices, {health.clean_prices} of them beyond doubt but for their age"
    )
    for issue in health.issues:
        typer.secho(f"{issue.severity.value:<8}", fg=_COLOURS.get(issue.severity.value, typer.colors.CYAN), nl=False)
        typer.echo(issue.sentence)
        typer.echo(f"        such as {'; '.join(issue.examples)}")
