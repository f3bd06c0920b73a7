"""`crosslogic usage`: what an organisation used, in sums or request by request, and whether the ledger is as written.

`crosslogic usage ORG` is `crosslogic usage sum ORG`.
"""

import sys
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_table
from crosslogic.kernel.errors import CrossLogicError, InvalidRequest

_SUMS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens", "cost_usd")
_DEFAULT = "sum"
_HIDES = ("--help",)

StartOption = Annotated[datetime | None, typer.Option("--from", help="First instant that counts, UTC.")]
EndOption = Annotated[datetime | None, typer.Option("--to", help="First instant that counts no more, UTC.")]
OrgArgument = Annotated[str, typer.Argument(help="Organisation, by id or name.")]
EnvOption = Annotated[str | None, typer.Option(help="Only of this environment, by id or name.")]
KeyOption = Annotated[str | None, typer.Option(help="Only of this key, by id.")]
ModelOption = Annotated[str | None, typer.Option(help="Only of this model.")]
RegionOption = Annotated[str | None, typer.Option(help="Only what was served in this region.")]


class _SumByDefault(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in _HIDES:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_SumByDefault,
    add_completion=False,
    no_args_is_help=True,
    help="Sum what an organisation used, look at requests, verify the ledger. `usage ORG` is `usage sum ORG`.",
)


@app.command("sum")
@with_management
def sum_usage(
    api: Management,
    org: OrgArgument,
    group_by: Annotated[
        list[str] | None,
        typer.Option(help="model, env, key, hour, day, month, endpoint, region or outcome; repeatable."),
    ] = None,
    start: StartOption = None,
    end: EndOption = None,
    env: EnvOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    region: RegionOption = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV that spreadsheets may open.")] = False,
    as_focus: Annotated[bool, typer.Option("--focus", help="Print FOCUS 1.0, the open format of cost data.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sum what an organisation used and what it costs."""
    if as_csv + as_focus + as_json > 1:
        raise InvalidRequest("choose one of --csv, --focus and --json")
    groups = [name for given in group_by or [] for name in given.split(",")]
    query: dict[str, Any] = {"from": start and start.isoformat(), "to": end and end.isoformat()}
    query |= {"env": env, "key": key, "model": model, "region": region, "group_by": groups or None}
    if as_csv or as_focus:
        text = api.text(f"/admin/usage/{org}", **query, format="csv" if as_csv else "focus")
        sys.stdout.write(text.replace("\r\n", "\n"))
        return
    found = api.get(f"/admin/usage/{org}", **query)
    if as_json:
        print_json(found)
        return
    rows = [[row["group"].get(name) for name in groups] + [row[sum_] for sum_ in _SUMS] for row in found["data"]]
    if groups and rows:
        rows.append(["total", *[""] * (len(groups) - 1), *(found["totals"][name] for name in _SUMS)])
    columns = (*groups, "requests", "prompt", "completion", "cached", "total", "USD")
    print_table(columns, rows, nothing="nothing was used")


@app.command()
@with_management
def requests(
    api: Management,
    org: OrgArgument,
    start: StartOption = None,
    end: EndOption = None,
    env: EnvOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    outcome: Annotated[str | None, typer.Option(help="Such as completed, client_closed or interrupted.")] = None,
    client_request_id: Annotated[str | None, typer.Option(help="What the caller sent as X-Request-Id.")] = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="How many, the newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List an organisation's requests, the newest first."""
    query: dict[str, Any] = {"from": start and start.isoformat(), "to": end and end.isoformat()}
    query |= {"env": env, "key": key, "model": model, "outcome": outcome, "client_request_id": client_request_id}
    rows = list(islice(api.rows(f"/admin/usage/{org}/requests", **query), most))
    if as_json:
        print_json(rows)
        return
    names = ("request_id", "at", "model", "outcome", "evidence", "prompt_tokens", "completion_tokens", "cost_usd")
    columns = ("request", "time", "model", "outcome", "evidence", "prompt", "completion", "USD")
    print_table(columns, ([row[name] for name in names] for row in rows), nothing="there are no such requests")


@app.command()
@with_management
def request(
    api: Management,
    org: OrgArgument,
    request_id: Annotated[str, typer.Argument(help="Id of the request.")],
    as_json: JsonOption = False,
) -> None:
    """Show all that the ledger knows of one request."""
    found = api.get(f"/admin/usage/{org}/requests/{request_id}")
    if as_json:
        print_json(found)
        return
    corrections = found.pop("corrections")
    print_table(("what", "value"), found.items(), nothing="")
    if corrections:
        names = ("n", "at", "reason", "prompt_tokens", "completion_tokens", "cost_usd", "evidence")
        print_table(names, ([row[name] for name in names] for row in corrections), nothing="")


@app.command()
@with_management
def verify(
    api: Management,
    org: Annotated[str | None, typer.Argument(help="Only this organisation's log.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Follow the ledger's chains of hashes: is every row as it was written, and none missing?"""
    path = "/admin/ledger/verify"
    verdicts = list(api.rows(path)) if org is None else api.get(path, org=org)["data"]
    if as_json:
        print_json(verdicts)
    wrong = [verdict for verdict in verdicts if not verdict["intact"]]
    if wrong:
        told = "; ".join(f"{verdict['org_id']}: {verdict['problem']}" for verdict in wrong)
        raise CrossLogicError(f"the ledger is not as it was written: {told}")
    if not as_json:
        rows = ([verdict[name] for name in ("org_id", "rows", "dropped", "head")] for verdict in verdicts)
        columns = ("organisation", "rows, as they were written", "of them dropped for age", "hash of the last")
        print_table(columns, rows, nothing="no rows")


@app.command()
@with_management
def costs(
    api: Management,
    start: StartOption = None,
    end: EndOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what every organisation used and what it costs, this month if nothing is said."""
    query = {"from": start and start.isoformat(), "to": end and end.isoformat()}
    rows = list(api.rows("/admin/usage", **query))
    if as_json:
        print_json(rows)
        return
    names = ("org_id", "total_requests", "total_tokens", "cost_usd")
    columns = ("organisation", "requests", "tokens", "USD")
    print_table(columns, ([row[name] for name in names] for row in rows), nothing="nothing was used")


@app.command()
@with_management
def retention(api: Management, as_json: JsonOption = False) -> None:
    """Show how long usage rows are kept, what was dropped, and what waits for being billed first."""
    kept = api.get("/admin/ledger/retention")
    told = {name: list(api.rows(f"/admin/ledger/{name}")) for name in ("drops", "waiting", "too-late")}
    if as_json:
        print_json(kept | {name.replace("-", "_"): rows for name, rows in told.items()})
        return
    months = kept["retention_months"]
    sys.stdout.write("usage rows are kept for ever\n" if months is None else f"before {kept['cutoff']} they go\n")
    names = ("before", "rows", "logs", "decided_at", "removed_at")
    rows = ([row[name] for name in names] for row in told["drops"])
    print_table(("of before", "rows dropped", "logs", "decided", "removed"), rows, nothing="nothing was dropped")
    if told["waiting"]:
        rows = ([row[name] for name in ("org_id", "through", "why")] for row in told["waiting"])
        print_table(("waits", "done up to", "since"), rows, nothing="")
    if told["too-late"]:
        rows = ([row[name] for name in ("request_id", "org_id", "at")] for row in told["too-late"])
        print_table(("came too late", "organisation", "when"), rows, nothing="")
