"""`crosslogic forecast`: what will be used, when today's nodes are too few, and what would carry it."""

from datetime import datetime
from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_rows, print_table

app = typer.Typer(no_args_is_help=True, add_completion=False)

PATH = "/admin/forecast"
Days = Annotated[int, typer.Option(min=1, max=14, help="How far ahead.")]
Model = Annotated[str | None, typer.Option(help="Of this model only.")]
Region = Annotated[str | None, typer.Option(help="In this region only.")]


@app.command("capacity")
@with_management
def capacity(
    api: Management, days: Days = 3, model: Model = None, region: Region = None, as_json: JsonOption = False
) -> None:
    """Requests of the next days with their bounds, the nodes that they take, and when those are too few."""
    found = api.get(f"{PATH}/capacity", days=days, model=model, region=region)
    if as_json:
        print_json(found)
        return
    print_table(
        (
            "model",
            "region",
            "requests",
            "from … to",
            "nodes now",
            "needed",
            "kind",
            "busiest",
            "too few from",
            "USD/h more",
            "error",
        ),
        (
            (
                need["model"],
                need["region"],
                f"{need['requests']['value']:,.0f}",
                f"{need['requests']['low']:,.0f} … {need['requests']['high']:,.0f}",
                f"{need['supply']['nodes']:.3g}",
                need["nodes"],
                _kind(need["supply"]["kind"]),
                _hour(need["busiest_at"]),
                _hour(need["exceeded_at"]),
                _usd(need["extra_usd_per_hour"]),
                "-" if need["error"] is None else f"{need['error']:.0%}",
            )
            for need in found["needs"]
        ),
        nothing="nothing was used in the last weeks",
    )
    for need in found["needs"]:
        typer.echo(
            f"{need['model']} in {need['region']}: a node carries {need['supply']['per_node']:.3g} requests/s "
            f"({need['supply']['basis']}); {need['history_hours']} hours of history"
        )


@app.command("scaling")
@with_management
def scaling(
    api: Management, days: Days = 3, model: Model = None, region: Region = None, as_json: JsonOption = False
) -> None:
    """Of each model and region: more nodes or fewer, how many, how soon, and why."""
    print_rows(
        api.get(f"{PATH}/scaling", days=days, model=model, region=region)["recommendations"],
        {
            "model": "model",
            "region": "region",
            "nodes": lambda row: f"{row['nodes']:.3g}",
            "do": "action",
            "to": "target_nodes",
            "urgency": "urgency",
            "why": "reason",
        },
        nothing="nothing was used in the last weeks",
        as_json=as_json,
    )


@app.command("allocation")
@with_management
def allocation(
    api: Management, days: Days = 3, model: Model = None, region: Region = None, as_json: JsonOption = False
) -> None:
    """Which kind of node would serve each model in each region at the least cost, beside what does so today."""
    found = api.get(f"{PATH}/allocation", days=days, model=model, region=region)
    if as_json:
        print_json(found)
        return
    print_table(
        ("model", "region", "today", "USD/month", "instead", "USD/month", "where"),
        (
            (
                row["model"],
                row["region"],
                f"{row['nodes_today']:.3g} of {_kind(row['today'])}",
                _usd(row["usd_per_month_today"]),
                "-" if row["kind"] is None else f"{row['nodes']} of {_kind(row['kind'])}",
                _usd(row["usd_per_month"]),
                row["where"],
            )
            for row in found["placements"]
        ),
        nothing="nothing was used in the last weeks",
    )


def _kind(kind: dict[str, Any] | None) -> str:
    return "-" if kind is None else f"{kind['gpu_count']} x {kind['gpu_type'] or 'unknown'}"


def _hour(at: str | None) -> str:
    return "-" if at is None else f"{datetime.fromisoformat(at):%a %d %b %H:%M}"


def _usd(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"
