"""`crosslogic queue`: who waits for a place on a node, and taking a request out."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="See who waits, and take requests out.")

OrgOption = Annotated[str | None, typer.Option(help="Organisation, by id or name.")]
ModelOption = Annotated[str | None, typer.Option(help="Model.")]


@app.command("list")
@with_management
def list_queues(
    api: Management,
    org: OrgOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """What waits and runs, of each organisation for each model."""
    rows = list(api.rows("/admin/queue", org=org, model=model))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("model", "organisation", "own nodes", "waiting", "running", "oldest s", "estimated s"),
        (
            (
                row["model"],
                row["org_id"],
                row["dedicated"],
                row["waiting"],
                row["running"],
                row["oldest_wait_s"],
                row["estimated_wait_s"],
            )
            for row in rows
        ),
        nothing="nothing waits or runs",
    )


@app.command()
@with_management
def requests(
    api: Management,
    org: OrgOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """The requests that wait, with position and estimated wait."""
    rows = list(api.rows("/admin/queue/requests", org=org, model=model))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("request", "caller's id", "organisation", "model", "class", "priority", "position", "waited s", "estimated s"),
        (
            (
                row["request_id"],
                row["client_request_id"],
                row["org_id"],
                row["model"],
                row["traffic"],
                row["priority"],
                row["position"],
                row["waited_s"],
                row["estimated_wait_s"],
            )
            for row in rows
        ),
        nothing="nothing waits",
    )


@app.command()
@with_management
def remove(
    api: Management,
    request: Annotated[str, typer.Argument(help="Request, by its id or its caller's X-Request-Id.")],
) -> None:
    """Take a waiting request out; its caller is told."""
    api.delete(f"/admin/queue/requests/{request}")
    typer.echo(f"{request} is taken out")
