"""`crosslogic payments`: what was taken and given back, and what providers told of it."""

from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, given
from crosslogic.cli.output import print_done, print_fields, print_json, print_rows, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List payments, charge invoices, refund.")

OrgFilter = Annotated[str | None, typer.Option("--org", help="Only of this organisation.")]
StatusFilter = Annotated[str | None, typer.Option(help="created, sending, pending, succeeded, failed or unknown.")]
KeyOption = Annotated[str | None, typer.Option(help="A repeat under the same one moves no money twice.")]


@app.command("list")
@with_management
def list_payments(
    api: Management,
    org: OrgFilter = None,
    invoice: Annotated[str | None, typer.Option(help="Only of this invoice.")] = None,
    status: StatusFilter = None,
    as_json: JsonOption = False,
) -> None:
    """List payments, newest first."""
    rows = list(api.rows("/admin/payments", org=org, invoice_id=invoice, status=status))
    if as_json:
        print_json(rows)
        return
    names = ("id", "org_id", "purpose", "invoice_id", "attempt", "amount", "currency", "status", "failure_code")
    print_table(
        (*names, "at"),
        ((*(row[name] for name in names), row["created_at"]) for row in rows),
        nothing="nothing was paid",
    )


@app.command()
@with_management
def show(
    api: Management,
    payment: Annotated[str, typer.Argument(metavar="PAYMENT", help="Its id, `pay_…`.")],
    as_json: JsonOption = False,
) -> None:
    """Show one payment, with its refunds."""
    row = api.get(f"/admin/payments/{payment}")
    row["refunds"] = list(api.rows("/admin/refunds", payment_id=payment))
    if as_json:
        print_json(row)
        return
    refunds = row.pop("refunds")
    print_fields(row.items())
    _print_refunds(refunds, "nothing was given back")


@app.command()
@with_management
def charge(
    api: Management,
    invoice: Annotated[str, typer.Argument(metavar="INVOICE", help="Invoice that is issued and not paid.")],
    method: Annotated[str | None, typer.Option(help="Payment method; the default when absent.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Charge an invoice now."""
    row = api.post("/admin/payments", given(invoice_id=invoice, payment_method=method))
    if as_json:
        print_json(row)
    else:
        why = f": {row['error']}" if row["error"] else ""
        typer.echo(f"{row['id']}: {row['amount']} {row['currency']} {row['status']}{why}")


@app.command()
@with_management
def refund(
    api: Management,
    payment: Annotated[str, typer.Argument(metavar="PAYMENT", help="Its id, `pay_…`.")],
    amount_minor: Annotated[
        int | None, typer.Option("--amount-minor", min=1, help="Minor units (cents); all that is left when absent.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the record.")] = None,
    idempotency_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give money back, never more than was captured."""
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    body = given(payment_id=payment, amount_minor=amount_minor, reason=reason)
    row = api.post("/admin/refunds", body, headers=headers)
    print_done(row, f"{row['id']}: {row['amount']} {row['currency']} {row['status']}", as_json=as_json)


@app.command()
@with_management
def refunds(
    api: Management,
    org: OrgFilter = None,
    payment: Annotated[str | None, typer.Option(help="Only of this payment.")] = None,
    status: StatusFilter = None,
    as_json: JsonOption = False,
) -> None:
    """List refunds, newest first."""
    rows = list(api.rows("/admin/refunds", org=org, payment_id=payment, status=status))
    if as_json:
        print_json(rows)
    else:
        _print_refunds(rows, "nothing was given back")


@app.command()
@with_management
def chargebacks(
    api: Management,
    org: OrgFilter = None,
    payment: Annotated[str | None, typer.Option(help="Only of this payment.")] = None,
    status: Annotated[str | None, typer.Option(help="inquiry, needs_response, under_review, won or lost.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List payments that their payers dispute, newest first."""
    rows = list(api.rows("/admin/chargebacks", org=org, payment_id=payment, status=status))
    if as_json:
        print_json(rows)
        return
    names = ("id", "org_id", "payment_id", "amount", "currency", "reason", "status", "withdrawn_minor", "lost_minor")
    print_table(
        (*names, "respond_by"),
        ([row[name] for name in (*names, "respond_by")] for row in rows),
        nothing="nobody disputes a payment",
    )


@app.command()
@with_management
def chargeback(
    api: Management,
    chargeback: Annotated[str, typer.Argument(metavar="CHARGEBACK", help="Its id, `cb_…`.")],
) -> None:
    """Print all that there is about a disputed payment, as JSON: payment, invoice, usage, where the proof is."""
    print_json(api.get(f"/admin/chargebacks/{chargeback}/pack"))


@app.command()
@with_management
def events(
    api: Management,
    failing: Annotated[bool, typer.Option("--failing", help="Only those that could not be acted on yet.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what providers told by webhook, newest first."""
    print_rows(
        api.rows("/admin/payments-events", failing=failing or None),
        ("received_at", "provider", "event_id", "type", "copies", "attempts", "processed_at", "error"),
        nothing="no provider told anything",
        as_json=as_json,
    )


def _print_refunds(rows: list[dict[str, Any]], nothing: str) -> None:
    names = ("id", "payment_id", "amount", "currency", "status", "reason", "failure_code")
    print_table((*names, "at"), ((*(row[name] for name in names), row["created_at"]) for row in rows), nothing=nothing)
