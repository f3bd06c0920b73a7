"""`crosslogic usage`: what an organisation used, summed from the ledger."""

from datetime import datetime
from typing import Annotated, Any

import typer

from crosslogic.cli.client import DATA_DIR, AdminKeyOption, DataDirOption, UrlOption, management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table

app = typer.Typer(add_completion=False)

_SUMS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens", "cost_usd")


@app.command()
def usage(
    org: Annotated[str, typer.Argument(help="Organisation, by id or name.")],
    group_by: Annotated[list[str] | None, typer.Option(help="model, env, key or day; repeatable.")] = None,
    start: Annotated[datetime | None, typer.Option("--from", help="First instant that counts, UTC.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="First instant that counts no more, UTC.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Sum what an organisation used and what it costs."""
    groups = [name for given in group_by or [] for name in given.split(",")]
    query: dict[str, Any] = {"from": start and start.isoformat(), "to": end and end.isoformat()}
    with management(url, admin_key, data_dir) as api:
        found = api.get(f"/admin/usage/{org}", group_by=groups or None, **query)
    if as_json:
        print_json(found)
        return
    rows = [[row["group"].get(name) for name in groups] + [row[sum_] for sum_ in _SUMS] for row in found["data"]]
    if groups and rows:
        rows.append(["total", *[""] * (len(groups) - 1), *(found["totals"][name] for name in _SUMS)])
    columns = (*groups, "requests", "prompt", "completion", "cached", "total", "USD")
    print_table(columns, rows, nothing="nothing was used")
