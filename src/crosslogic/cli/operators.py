"""`crosslogic operators`: who runs the platform, each with an admin key of their own."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_done, print_json, print_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list and revoke operators.")


@app.command()
@with_management
def create(
    api: Management,
    name: Annotated[str, typer.Argument(help="Name, unique.")],
    role: Annotated[str, typer.Option(help="admin or read-only.")] = "admin",
    as_json: JsonOption = False,
) -> None:
    """Create an operator. The admin key is printed this once and stored nowhere."""
    made = api.post("/admin/operators", {"name": name, "role": role})
    if as_json:
        print_json(made)
    else:
        typer.echo(made["key"])
        typer.echo(f"{made['id']}: keep the key, it is not shown again", err=True)


@app.command("list")
@with_management
def list_operators(
    api: Management,
    status: Annotated[str | None, typer.Option(help="active, suspended or revoked.")] = None,
    role: Annotated[str | None, typer.Option(help="admin or read-only.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List operators. Whoever has the configured admin key is called `root` and stands in no list."""
    print_rows(
        api.rows("/admin/operators", status=status, role=role),
        ("id", "name", "prefix", "role", "status"),
        nothing="there are no operators",
        as_json=as_json,
    )


@app.command()
@with_management
def revoke(
    api: Management,
    operator_id: Annotated[str, typer.Argument(help="The operator's id, `op_…`.")],
    as_json: JsonOption = False,
) -> None:
    """Revoke an operator's key for good, at once."""
    row = api.delete(f"/admin/operators/{operator_id}")
    print_done(row, f"{row['name']} is revoked", as_json=as_json)
