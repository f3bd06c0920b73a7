"""`crosslogic reconcile`: whether ledger, roll-ups, charges, invoices, payments and the provider say the same."""

from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, given
from crosslogic.cli.output import print_json, print_rows, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Compare all books; repair on demand; disputes.")


@app.command()
@with_management
def run(
    api: Management,
    day: Annotated[str | None, typer.Option(metavar="DAY", help="Last day, such as 2030-01-31; yesterday.")] = None,
    days: Annotated[int, typer.Option(min=1, max=31, help="So many days up to it.")] = 1,
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare all books now; exit code 1 when they differ."""
    report = api.post("/admin/reconciliations", given(day=day, days=days, org=org))
    _tell(report, as_json)
    if not report["agrees"]:
        raise typer.Exit(1)


@app.command("list")
@with_management
def list_reports(api: Management, as_json: JsonOption = False) -> None:
    """List earlier comparisons, newest first."""
    print_rows(
        api.rows("/admin/reconciliations"),
        {
            "id": "id",
            "day": "day",
            "days": "days",
            "agrees": "agrees",
            "differences": lambda row: len(row["differences"]),
            "skipped": "skipped",
        },
        nothing="nothing was compared yet",
        as_json=as_json,
    )


@app.command()
@with_management
def show(
    api: Management,
    report: Annotated[str, typer.Argument(metavar="REPORT", help="Its id, `rec_…`.")],
    as_json: JsonOption = False,
) -> None:
    """Show one comparison with its differences."""
    _tell(api.get(f"/admin/reconciliations/{report}"), as_json)


@app.command()
@with_management
def repair(
    api: Management,
    report: Annotated[str, typer.Argument(metavar="REPORT", help="Its id, `rec_…`.")],
    entity: Annotated[str, typer.Argument(metavar="ENTITY", help="What differs, as the report names it.")],
) -> None:
    """Put one difference right, by a correction beside what is there."""
    typer.echo(api.post(f"/admin/reconciliations/{report}/repair", {"entity": entity})["done"])


@app.command()
@with_management
def balance(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Of this organisation; of all when absent.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the trial balance: what each account holds, debits above zero; exit code 1 unless it comes to nothing."""
    rows = api.get("/admin/postings/balances", org=org)["balances"]
    if as_json:
        print_json(rows)
    else:
        lines = [[row["currency"], account, amount] for row in rows for account, amount in row["accounts"].items()]
        lines += [[row["currency"], "total", row["total"]] for row in rows]
        print_table(("currency", "account", "amount"), lines, nothing="nothing was posted")
    if any(float(row["total"]) for row in rows):
        raise typer.Exit(1)


@app.command()
@with_management
def postings(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    kind: Annotated[str | None, typer.Option(help="invoice, receipt, refund, credit_note, bought, …")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what was posted, newest first."""
    rows = list(api.rows("/admin/postings", org=org, kind=kind))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("at", "org_id", "ref", "currency", "account", "amount"),
        (
            [row["at"], row["org_id"], row["ref"], row["currency"], each["account"], each["amount"]]
            for row in rows
            for each in row["postings"]
        ),
        nothing="nothing was posted",
    )


@app.command()
@with_management
def dispute(
    api: Management,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="Its id, `req_…`.")],
) -> None:
    """Print all that there is about one request, as JSON: ledger, proof, charges, invoices, exports."""
    print_json(api.get(f"/admin/disputes/{request}"))


def _tell(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    checked = ", ".join(f"{many:,} {what}" for what, many in report["checked"].items()) or "nothing"
    typer.echo(f"{report['id']}: {report['day']}, {report['days']} days; compared {checked}")
    for each in report["skipped"]:
        typer.echo(f"skipped {each}")
    names = ("kind", "org_id", "entity", "ours", "theirs", "cause", "repair")
    print_table(names, ([row[name] for name in names] for row in report["differences"]), nothing="all books agree")
