"""`crosslogic users`: the people of an organisation."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, OrgOption, given
from crosslogic.cli.output import print_done, print_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list and change users.")

UserArgument = Annotated[str, typer.Argument(help="User, by id or e-mail address.")]


@app.command()
@with_management
def create(
    api: Management,
    email: Annotated[str, typer.Argument(help="E-mail address, unique in the organisation.")],
    name: Annotated[str, typer.Option(help="Name for people.")],
    org: OrgOption = "default",
    role: Annotated[str, typer.Option(help="admin, developer or read-only.")] = "developer",
    as_json: JsonOption = False,
) -> None:
    """Add a person to an organisation. The identity provider's tokens with this address are theirs."""
    row = api.post(f"/admin/orgs/{org}/users", {"email": email, "name": name, "role": role})
    print_done(row, f"{row['id']}  {row['email']}, {row['role']}", as_json=as_json)


@app.command("list")
@with_management
def list_users(
    api: Management,
    org: OrgOption = "default",
    role: Annotated[str | None, typer.Option(help="Only of this role.")] = None,
    status: Annotated[str | None, typer.Option(help="active, suspended or revoked.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the people of an organisation."""
    print_rows(
        api.rows(f"/admin/orgs/{org}/users", role=role, status=status),
        ("id", "email", "name", "role", "status"),
        nothing="there are no users",
        as_json=as_json,
    )


@app.command()
@with_management
def change(
    api: Management,
    user: UserArgument,
    org: OrgOption = "default",
    name: Annotated[str | None, typer.Option(help="Name for people.")] = None,
    role: Annotated[str | None, typer.Option(help="admin, developer or read-only.")] = None,
    status: Annotated[str | None, typer.Option(help="active, suspended or revoked.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change name, role or status. A suspended user's tokens are refused within a second."""
    row = api.patch(f"/admin/orgs/{org}/users/{user}", given(name=name, role=role, status=status))
    print_done(row, f"{row['email']} is {row['status']}, {row['role']}", as_json=as_json)


@app.command()
@with_management
def remove(
    api: Management,
    user: UserArgument,
    org: OrgOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Remove a person. Keys belong to the organisation and work on: revoke those that the person knows."""
    row = api.delete(f"/admin/orgs/{org}/users/{user}")
    print_done(row, f"{row['email']} is removed", as_json=as_json)
