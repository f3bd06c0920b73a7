"""`crosslogic queue`: who waits for a place on a node, and taking a request out."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_rows

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
    print_rows(
        api.rows("/admin/queue", org=org, model=model),
        {
            "model": "model",
            "organisation": "org_id",
            "own nodes": "dedicated",
            "waiting": "waiting",
            "running": "running",
            "oldest s": "oldest_wait_s",
            "estimated s": "estimated_wait_s",
        },
        nothing="nothing waits or runs",
        as_json=as_json,
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
    print_rows(
        api.rows("/admin/queue/requests", org=org, model=model),
        {
            "request": "request_id",
            "caller's id": "client_request_id",
            "organisation": "org_id",
            "model": "model",
            "class": "traffic",
            "priority": "priority",
            "position": "position",
            "waited s": "waited_s",
            "estimated s": "estimated_wait_s",
        },
        nothing="nothing waits",
        as_json=as_json,
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
