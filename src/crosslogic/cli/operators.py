"""`crosslogic operators`: who runs the platform, each with an admin key of their own."""

from typing import Annotated

import typer

from crosslogic.cli.client import DATA_DIR, AdminKeyOption, DataDirOption, UrlOption, management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list and revoke operators.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name, unique.")],
    role: Annotated[str, typer.Option(help="admin or read-only.")] = "admin",
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Create an operator. The admin key is printed this once and stored nowhere."""
    with management(url, admin_key, data_dir) as api:
        made = api.post("/admin/operators", {"name": name, "role": role})
    if as_json:
        print_json(made)
    else:
        typer.echo(made["key"])
        typer.echo(f"{made['id']}: keep the key, it is not shown again", err=True)


@app.command("list")
def list_operators(
    status: Annotated[str | None, typer.Option(help="active, suspended or revoked.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """List operators. Whoever has the configured admin key is called `root` and stands in no list."""
    with management(url, admin_key, data_dir) as api:
        rows = list(api.rows("/admin/operators", status=status))
    if as_json:
        print_json(rows)
        return
    columns = ("id", "name", "prefix", "role", "status")
    print_table(columns, ([row[column] for column in columns] for row in rows), nothing="there are no operators")


@app.command()
def revoke(
    operator_id: Annotated[str, typer.Argument(help="The operator's id, `op_…`.")],
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Revoke an operator's key for good, at once."""
    with management(url, admin_key, data_dir) as api:
        row = api.delete(f"/admin/operators/{operator_id}")
    print_json(row) if as_json else typer.echo(f"{row['name']} is revoked")
