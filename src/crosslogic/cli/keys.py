"""`crosslogic keys`: the API keys of tenants."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import (
    ConcurrencyOption,
    JsonOption,
    LimitOption,
    OrgOption,
    RequestsOption,
    TokensOption,
    given,
    limits_of,
    seconds_of,
)
from crosslogic.cli.key_check import check
from crosslogic.cli.output import limits_text, print_done, print_json, print_rows
from crosslogic.kernel.errors import InvalidRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list, rotate, suspend and revoke API keys.")

app.command()(check)

KeyArgument = Annotated[str, typer.Argument(help="The key's id, `key_…`.")]
EnvOption = Annotated[str, typer.Option("--env", help="Environment, by id or name.")]


@app.command()
@with_management
def create(
    api: Management,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    org: OrgOption = "default",
    env: EnvOption = "dev",
    role: Annotated[str, typer.Option(help="admin, developer or read-only.")] = "developer",
    expires: Annotated[str | None, typer.Option(metavar="DURATION", help="Such as 12h or 90d.")] = None,
    region: Annotated[str | None, typer.Option(help="Region that the key stays in.")] = None,
    other_region: Annotated[
        list[str] | None, typer.Option(help="Another region that it may be served in; repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Good for this model only; repeatable.")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="Good for this path only, such as chat/completions; repeatable.")
    ] = None,
    ip: Annotated[list[str] | None, typer.Option(help="Good from this network only (CIDR); repeatable.")] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a key. It is printed this once and stored nowhere."""
    body = given(
        org=org,
        environment=env,
        name=name,
        role=role,
        region=region,
        limits=limits_of(requests_per_minute, tokens_per_minute, concurrency, limit),
        expires_at=_instant(expires),
        scoping=given(models=model, endpoints=endpoint, regions=other_region, networks=ip) or None,
    )
    made = api.post("/admin/keys", body)
    if as_json:
        print_json(made)
    else:
        typer.echo(made["key"])
        typer.echo(f"{made['id']}: keep the key, it is not shown again", err=True)


@app.command("list")
@with_management
def list_keys(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    env: Annotated[str | None, typer.Option("--env", help="Only of this environment; needs --org.")] = None,
    status: Annotated[str | None, typer.Option(help="active, suspended or revoked.")] = None,
    role: Annotated[str | None, typer.Option(help="admin, developer or read-only.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only names that begin so.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List keys. A key is recognised by its beginning; nobody can see the whole of it."""
    print_rows(
        api.rows("/admin/keys", org=org, environment=env, status=status, role=role, prefix=prefix),
        {
            "id": "id",
            "begins with": "prefix",
            "name": "name",
            "org": "org_id",
            "environment": "env_id",
            "role": "role",
            "status": "status",
            "limits": lambda row: limits_text(row["limits"]),
            "last used": "last_used_at",
            "expires": "expires_at",
        },
        nothing="there are no keys",
        as_json=as_json,
    )


@app.command()
@with_management
def rotate(
    api: Management,
    key_id: KeyArgument,
    grace: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long the old key works on, such as 24h."),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A repeat under the same one makes no second key.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a new key with the same settings in the place of one. It is printed this once and stored nowhere."""
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    made = api.post(f"/admin/keys/{key_id}/rotate", given(grace_s=seconds_of(grace, "--grace")), headers=headers)
    if as_json:
        print_json(made)
    elif made["key"] is None:
        typer.echo(f"{key_id} was rotated before: {made['id']} is in its place, and was shown then", err=True)
    else:
        typer.echo(made["key"])
        typer.echo(f"{made['id']}: keep the key, it is not shown again", err=True)


@app.command()
@with_management
def suspend(
    api: Management,
    key_id: KeyArgument,
    as_json: JsonOption = False,
) -> None:
    """Refuse a key until it is activated again. Every gateway follows within a second."""
    row = api.patch(f"/admin/keys/{key_id}", {"status": "suspended"})
    print_done(row, f"{key_id} is suspended", as_json=as_json)


@app.command()
@with_management
def activate(
    api: Management,
    key_id: KeyArgument,
    as_json: JsonOption = False,
) -> None:
    """Take up a suspended key again."""
    row = api.patch(f"/admin/keys/{key_id}", {"status": "active"})
    print_done(row, f"{key_id} is active", as_json=as_json)


@app.command()
@with_management
def revoke(
    api: Management,
    key_id: KeyArgument,
    as_json: JsonOption = False,
) -> None:
    """Revoke a key for good. Every gateway refuses it within a second."""
    row = api.delete(f"/admin/keys/{key_id}")
    print_done(row, f"{key_id} is revoked", as_json=as_json)


def _instant(lifetime: str | None) -> str | None:
    seconds = seconds_of(lifetime, "--expires")
    try:
        return None if seconds is None else (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    except OverflowError:
        raise InvalidRequest(f"--expires {lifetime} is farther away than the calendar goes") from None
