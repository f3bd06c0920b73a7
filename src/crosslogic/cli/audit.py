"""`crosslogic audit`: who did what, and whether the log of it is as it was written."""

import json
from datetime import datetime
from itertools import islice
from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_rows
from crosslogic.kernel.errors import CrossLogicError

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Read and verify the audit log.")


@app.command("list")
@with_management
def list_entries(
    api: Management,
    org: Annotated[str | None, typer.Option(help="Only of this organisation.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this operator, key or user, by id.")] = None,
    action: Annotated[str | None, typer.Option(help="Such as key.revoke, or key for all about keys.")] = None,
    entity: Annotated[str | None, typer.Option(help="Only about this, by id.")] = None,
    start: Annotated[datetime | None, typer.Option("--from", help="First instant that counts, UTC.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="First instant that counts no more, UTC.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="How many, the newest first.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List what was done, newest first."""
    times = {"from": start and start.isoformat(), "to": end and end.isoformat()}
    found = api.rows("/admin/audit", org=org, actor=actor, action=action, entity=entity, **times)
    print_rows(
        islice(found, most),
        {
            "no.": "seq",
            "time": "at",
            "by": lambda row: f"{row['actor_kind']} {row['actor_id']}",
            "action": "action",
            "what": "entity_id",
            "before": lambda row: _text(row["before"]),
            "after": lambda row: _text(row["after"]),
        },
        nothing="nothing was done",
        as_json=as_json,
    )


@app.command()
@with_management
def verify(
    api: Management,
    expect: Annotated[
        str | None, typer.Option("--head", help="Hash that an earlier verification printed: it must be in the log.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Follow the chain of hashes through the whole log; exit code 1 when something was changed."""
    verdict = api.get("/admin/audit/verify")
    known = expect is None or any(row["hash"] == expect for row in api.rows("/admin/audit"))
    if as_json:
        print_json({**verdict, "head_found": known} if expect is not None else verdict)
    if not verdict["intact"]:
        raise CrossLogicError(f"the audit log is not as it was written: {verdict['problem']}")
    if not known:
        raise CrossLogicError(f"no entry has the hash {expect}: the log was cut short, or is another one")
    if not as_json:
        typer.echo(f"{verdict['entries']} entries, as they were written; the last has hash {verdict['head']}")


def _text(document: object) -> str | None:
    return None if document is None else json.dumps(document, ensure_ascii=False)
