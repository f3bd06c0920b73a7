"""`crosslogic users`: the people of an organisation."""

from typing import Annotated

import typer

from crosslogic.cli.client import DATA_DIR, AdminKeyOption, DataDirOption, UrlOption, management
from crosslogic.cli.flags import JsonOption, OrgOption, given
from crosslogic.cli.output import print_json, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list and change users.")

UserArgument = Annotated[str, typer.Argument(help="User, by id or e-mail address.")]


@app.command()
def create(
    email: Annotated[str, typer.Argument(help="E-mail address, unique in the organisation.")],
    name: Annotated[str, typer.Option(help="Name for people.")],
    org: OrgOption = "default",
    role: Annotated[str, typer.Option(help="admin, developer or read-only.")] = "developer",
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Add a person to an organisation. The identity provider's tokens with this address are theirs."""
    with management(url, admin_key, data_dir) as api:
        row = api.post(f"/admin/orgs/{org}/users", {"email": email, "name": name, "role": role})
    print_json(row) if as_json else typer.echo(f"{row['id']}  {row['email']}, {row['role']}")


@app.command("list")
def list_users(
    org: OrgOption = "default",
    role: Annotated[str | None, typer.Option(help="Only of this role.")] = None,
    status: Annotated[str | None, typer.Option(help="active, suspended or revoked.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """List the people of an organisation."""
    with management(url, admin_key, data_dir) as api:
        rows = list(api.rows(f"/admin/orgs/{org}/users", role=role, status=status))
    if as_json:
        print_json(rows)
        return
    columns = ("id", "email", "name", "role", "status")
    print_table(columns, ([row[column] for column in columns] for row in rows), nothing="there are no users")


@app.command()
def change(
    user: UserArgument,
    org: OrgOption = "default",
    name: Annotated[str | None, typer.Option(help="Name for people.")] = None,
    role: Annotated[str | None, typer.Option(help="admin, developer or read-only.")] = None,
    status: Annotated[str | None, typer.Option(help="active, suspended or revoked.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Change name, role or status. A suspended user's tokens are refused within a second."""
    with management(url, admin_key, data_dir) as api:
        row = api.patch(f"/admin/orgs/{org}/users/{user}", given(name=name, role=role, status=status))
    print_json(row) if as_json else typer.echo(f"{row['email']} is {row['status']}, {row['role']}")


@app.command()
def remove(
    user: UserArgument,
    org: OrgOption = "default",
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Remove a person. Keys belong to the organisation and work on: revoke those that the person knows."""
    with management(url, admin_key, data_dir) as api:
        row = api.delete(f"/admin/orgs/{org}/users/{user}")
    print_json(row) if as_json else typer.echo(f"{row['email']} is removed")
