"""What `crosslogic nodes` does with agents: join tokens, certificates, reports, logs, upgrades."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, given
from crosslogic.cli.output import print_done, print_json, print_rows, print_table
from crosslogic.kernel.durations import duration_s
from crosslogic.kernel.errors import ConfigurationError

token_app = typer.Typer(add_completion=False, no_args_is_help=True, help="Join tokens: each makes one node, once.")

NodeArgument = Annotated[str, typer.Argument(help="The node's id.")]
OrgOption = Annotated[str | None, typer.Option("--org", help="Name or id of an organisation.")]


@token_app.command()
@with_management
def create(
    api: Management,
    org: Annotated[
        str | None, typer.Option(help="The node serves this organisation only. Without it: the platform's, for all.")
    ] = None,
    region: Annotated[str, typer.Option(help="Region of the node.")] = "local",
    ttl: Annotated[str, typer.Option(help="How long the token may be used: 30m, 1h, 2d.")] = "1h",
    as_json: JsonOption = False,
) -> None:
    """Make a join token for `crosslogic agent --token`. It is printed this once and stored nowhere."""
    try:
        ttl_s = duration_s(ttl)
    except ValueError as error:
        raise ConfigurationError(f"--ttl {error}") from None
    made = api.post("/admin/node-tokens", given(org=org, region=region, ttl_s=ttl_s))
    if as_json:
        print_json(made)
    else:
        typer.echo(made["token"])
        typer.echo(f"{made['id']}: good once, until {made['expires_at']}; it is not shown again", err=True)


@token_app.command("list")
@with_management
def list_tokens(
    api: Management,
    org: OrgOption = None,
    as_json: JsonOption = False,
) -> None:
    """List join tokens, used ones too."""
    print_rows(
        api.rows("/admin/node-tokens", org=org),
        ("id", "status", "org_id", "region", "expires_at", "used_by"),
        nothing="there are no join tokens",
        as_json=as_json,
    )


@token_app.command("revoke")
@with_management
def revoke_token(
    api: Management,
    token_id: Annotated[str, typer.Argument(help="The token's id, `join_…`.")],
    as_json: JsonOption = False,
) -> None:
    """Make a join token unusable."""
    row = api.delete(f"/admin/node-tokens/{token_id}")
    print_done(row, f"{row['id']} is {row['status']}", as_json=as_json)


@with_management
def revoke(
    api: Management,
    node_id: NodeArgument,
    as_json: JsonOption = False,
) -> None:
    """Refuse a node's certificates from now on, and give it nothing more. It needs a new join token to come back."""
    row = api.post(f"/admin/nodes/{node_id}/revoke")
    print_done(row, f"{node_id}: {len(row['serials'])} certificate(s) revoked", as_json=as_json)


@with_management
def certificates(
    api: Management,
    node: Annotated[str | None, typer.Option(help="Only of this node.")] = None,
    org: OrgOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the certificates that nodes were given."""
    print_rows(
        api.rows("/admin/node-certificates", node=node, org=org),
        ("serial", "node_id", "org_id", "region", "status", "expires_at"),
        nothing="there are no certificates",
        as_json=as_json,
    )


@with_management
def report(
    api: Management,
    node_id: NodeArgument,
    as_json: JsonOption = False,
) -> None:
    """What the node's agent said last: hardware, capacity, versions, metrics."""
    row = api.get(f"/admin/nodes/{node_id}/report")
    if as_json:
        print_json(row)
        return
    said = row["report"]
    lines = {
        **said.get("facts", {}),
        **said.get("metrics", {}),
        **{f"spot {k}": v for k, v in said.get("spot_notice", {}).items()},
    }
    lines.pop("engine", None)
    print_table(("what", "value"), ((name, value) for name, value in sorted(lines.items())), nothing="nothing yet")


@with_management
def logs(
    api: Management,
    node_id: NodeArgument,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="How many, at most.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """The last lines of a node's agent and engine."""
    rows = api.get(f"/admin/nodes/{node_id}/logs", limit=lines)["data"]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['at']} {row['source']}: {row['text']}")


@with_management
def upgrade(
    api: Management,
    node_id: NodeArgument,
    version: Annotated[str, typer.Option(help="Version of the package `crosslogic`.")],
    as_json: JsonOption = False,
) -> None:
    """Ask a node's agent to become another version. Its engine goes on serving meanwhile."""
    row = api.post(f"/admin/nodes/{node_id}/upgrade", {"version": version})
    print_done(row, f"{node_id} is asked to become {version}", as_json=as_json)
