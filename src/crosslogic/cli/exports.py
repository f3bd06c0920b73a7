"""`crosslogic exports`: how usage reaches the payment provider's books, and what did not work yet."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_done, print_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Choose how usage is exported; see and retry.")

OrgArgument = Annotated[str, typer.Argument(metavar="ORG", help="Organisation, by id or name.")]


@app.command()
@with_management
def mode(
    api: Management,
    org: OrgArgument,
    new: Annotated[str | None, typer.Argument(metavar="[MODE]", help="stripe_invoice, stripe_meter or none.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how an organisation's usage is exported, or choose it from now on."""
    path = f"/admin/exports/modes/{org}"
    row = api.get(path) if new is None else api.put(path, {"mode": new})
    print_done(row, f"{row['org_id']}: {row['mode']} since {row['since']}", as_json=as_json)


@app.command("list")
@with_management
def list_windows(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    status: Annotated[str | None, typer.Option(help="sealed, sending, sent, verified, doubtful, rejected…")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that did not work yet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what was exported, and what waits."""
    print_rows(
        api.rows("/admin/exports/windows", org=org, status=status, failed=failed or None),
        ("id", "mode", "quantity", "status", "billing_failed", "failure", "retry_count", "next_step_at"),
        nothing="nothing was exported",
        as_json=as_json,
    )


@app.command()
@with_management
def retry(
    api: Management,
    window: Annotated[str, typer.Argument(metavar="WINDOW", help="Its id, `cic:…`.")],
    as_json: JsonOption = False,
) -> None:
    """Take the next step of a window now."""
    row = api.post(f"/admin/exports/windows/{window}/retry", {})
    print_done(row, f"{row['id']} is {row['status']}, and is tried now", as_json=as_json)
