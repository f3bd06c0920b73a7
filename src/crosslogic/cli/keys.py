"""`crosslogic keys`: the API keys of tenants."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from crosslogic.cli.client import DATA_DIR, AdminKeyOption, DataDirOption, UrlOption, management
from crosslogic.cli.flags import ConcurrencyOption, JsonOption, RequestsOption, TokensOption, given, limits_of
from crosslogic.cli.output import limits_text, print_json, print_table
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.settings.values import duration_s

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list and revoke API keys.")

OrgOption = Annotated[str, typer.Option("--org", help="Organisation, by id or name.")]
EnvOption = Annotated[str, typer.Option("--env", help="Environment, by id or name.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    org: OrgOption = "default",
    env: EnvOption = "dev",
    role: Annotated[str, typer.Option(help="admin, developer or read-only.")] = "developer",
    expires: Annotated[str | None, typer.Option(metavar="DURATION", help="Such as 12h or 90d.")] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Create a key. It is printed this once and stored nowhere."""
    limits = limits_of(requests_per_minute, tokens_per_minute, concurrency)
    body = given(org=org, environment=env, name=name, role=role, limits=limits, expires_at=_instant(expires))
    with management(url, admin_key, data_dir) as api:
        made = api.post("/admin/keys", body)
    if as_json:
        print_json(made)
    else:
        typer.echo(made["key"])
        typer.echo(f"{made['id']}: keep the key, it is not shown again", err=True)


@app.command("list")
def list_keys(
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    env: Annotated[str | None, typer.Option("--env", help="Only of this environment; needs --org.")] = None,
    status: Annotated[str | None, typer.Option(help="active, suspended or revoked.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """List keys. A key is recognised by its beginning; nobody can see the whole of it."""
    with management(url, admin_key, data_dir) as api:
        rows = list(api.rows("/admin/keys", org=org, environment=env, status=status))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "begins with", "name", "org", "environment", "role", "status", "limits", "expires"),
        (
            (
                row["id"],
                row["prefix"],
                row["name"],
                row["org_id"],
                row["env_id"],
                row["role"],
                row["status"],
                limits_text(row["limits"]),
                row["expires_at"],
            )
            for row in rows
        ),
        nothing="there are no keys",
    )


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, `key_…`.")],
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Revoke a key for good. Every gateway refuses it within a second."""
    with management(url, admin_key, data_dir) as api:
        row = api.delete(f"/admin/keys/{key_id}")
    if as_json:
        print_json(row)
    else:
        typer.echo(f"{key_id} is revoked")


def _instant(lifetime: str | None) -> str | None:
    if lifetime is None:
        return None
    try:
        return (datetime.now(UTC) + timedelta(seconds=duration_s(lifetime))).isoformat()
    except (ValueError, OverflowError):
        raise InvalidRequest(f"--expires {lifetime}: write a duration such as 12h or 90d") from None
