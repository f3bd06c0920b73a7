"""`crosslogic finops`: what the nodes cost against what their tokens earn."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table

app = typer.Typer(add_completion=False)


@app.command("finops")
@with_management
def finops(
    api: Management,
    by: Annotated[list[str] | None, typer.Option("--by", help="org, model, region, node or spot; repeatable.")] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="From this hour on.")] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Up to this hour.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Cost, revenue and margin of the nodes' hours. What nobody used is a row without org and model."""
    groups = by or ["model"]
    rows = api.get("/admin/finops", group_by=groups, start=start, end=end)["groups"]
    if as_json:
        print_json(rows)
        return
    print_table(
        (*groups, "GPU hours", "tokens", "cost USD", "revenue USD", "margin USD", "USD/GPU hour", "USD/M tokens"),
        (
            (
                *(row["group"][name] or "(idle)" for name in groups),
                f"{row['gpu_hours']:.2f}",
                row["prompt_tokens"] + row["completion_tokens"],
                row["cost_usd"],
                row["revenue_usd"],
                row["margin_usd"],
                row["cost_usd_per_gpu_hour"],
                row["cost_usd_per_million_tokens"],
            )
            for row in rows
        ),
        nothing="no node was up",
    )
