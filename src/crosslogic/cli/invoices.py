"""`crosslogic invoices`: close periods; list, preview, issue, void and credit invoices."""

from pathlib import Path
from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, OrgOption, given
from crosslogic.cli.output import print_done, print_fields, print_json, print_rows, print_table
from crosslogic.kernel.errors import ConfigurationError, NotFound

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Close periods; list, preview, issue, void and credit invoices."
)

_PATH = "/admin/invoices"
_PROFILES = "/admin/billing-profiles"

InvoiceArgument = Annotated[str, typer.Argument(metavar="INVOICE", help="Its id, `inv_…`, or its number.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it is printed and in the audit log.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write; named by its number if absent.")
]


@app.command("list")
@with_management
def list_invoices(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    status: Annotated[str | None, typer.Option(help="draft, issued, paid, overdue or void.")] = None,
    kind: Annotated[str | None, typer.Option(help="monthly or usage.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Periods that end then or later.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Periods that end before.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List invoices, the newest first."""
    rows = list(api.rows(_PATH, org=org, status=status, kind=kind, **{"from": start, "to": end}))
    _list(rows, as_json)


@app.command()
@with_management
def show(api: Management, invoice: InvoiceArgument, as_json: JsonOption = False) -> None:
    """Show one invoice with its lines, payments and credit notes."""
    _detail(api.get(f"{_PATH}/{_id(api, invoice)}"), as_json)


@app.command()
@with_management
def preview(
    api: Management,
    org: OrgOption = "default",
    pdf: Annotated[Path | None, typer.Option("--pdf", help="Write it as a PDF to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the invoice that there would be if the running period ended now."""
    if pdf is not None:
        _write(pdf, api.download(f"{_PATH}/preview/pdf", org=org))
        return
    _detail(api.get(f"{_PATH}/preview", org=org), as_json)


@app.command()
@with_management
def pdf(api: Management, invoice: InvoiceArgument, output: OutputOption = None) -> None:
    """Write an issued invoice as a PDF."""
    found = api.get(f"{_PATH}/{_id(api, invoice)}")
    name = str(found["number"] or found["id"]).replace("/", "-")
    _write(output or Path(f"{name}.pdf"), api.download(f"{_PATH}/{found['id']}/pdf"))


@app.command()
@with_management
def einvoice(api: Management, invoice: InvoiceArgument) -> None:
    """Print a GST invoice as the Invoice Registration Portal of India takes it (INV-01)."""
    print_json(api.get(f"{_PATH}/{_id(api, invoice)}/einvoice"))


@app.command()
@with_management
def close(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Only this organisation, whose drafts then wait.")] = None,
    now: Annotated[bool, typer.Option("--now", help="Up to now, before its period has ended; needs --org.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make invoices of the periods that have ended, as the job does; harmless to repeat."""
    made = api.post(f"{_PATH}/close", given(org=org, now=now or None))["data"]
    if org is None:
        typer.echo("all periods that have ended are closed")
    else:
        _list(made, as_json)


@app.command()
@with_management
def issue(api: Management, invoice: InvoiceArgument, as_json: JsonOption = False) -> None:
    """Give a draft its number and document, for good."""
    row = api.post(f"{_PATH}/{_id(api, invoice)}/issue")
    print_done(row, f"{row['id']} is issued as {row['number']}", as_json=as_json)


@app.command()
@with_management
def void(
    api: Management,
    invoice: InvoiceArgument,
    reason: ReasonOption,
    reissue: Annotated[
        bool, typer.Option("--reissue", help="Bill the same usage anew, by the profile of now.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take an invoice back, whole; nothing of it may be paid or credited yet."""
    verb = "reissue" if reissue else "void"
    row = api.post(f"{_PATH}/{_id(api, invoice)}/{verb}", {"reason": reason})
    if as_json:
        print_json(row)
    else:
        typer.echo(f"{invoice} is void" + (f"; {row['number']} replaces it" if reissue else ""))


@app.command("credit-note")
@with_management
def credit_note(
    api: Management,
    invoice: InvoiceArgument,
    reason: ReasonOption,
    ref: Annotated[str, typer.Option(help="A repeat under the same one makes no second credit note.")],
    amount: Annotated[str | None, typer.Option(help="Tax included; all that is left when absent.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take back part of an issued invoice, or all of it."""
    body = given(reason=reason, ref=ref, amount=amount)
    row = api.post(f"{_PATH}/{_id(api, invoice)}/credit-notes", body)
    print_done(row, f"{row['number']}: {row['currency']} {row['total']} credited", as_json=as_json)


@app.command()
@with_management
def pay(
    api: Management,
    invoice: InvoiceArgument,
    amount: Annotated[str, typer.Argument(help="What came in, in the invoice's currency.")],
    ref: Annotated[str, typer.Option(help="Reference of the payment; it counts once.")],
    at: Annotated[str | None, typer.Option(metavar="TIME", help="When; now if absent.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write down a payment that came in by hand: by bank transfer, say."""
    body = given(payment_ref=ref, amount=amount, at=at)
    row = api.post(f"{_PATH}/{_id(api, invoice)}/payments", body)
    print_json(row) if as_json else typer.echo(
        f"{row['number']} is {row['status']}; open: {row['currency']} {row['open']}"
    )


@app.command()
@with_management
def profile(
    api: Management,
    org: OrgOption = "default",
    legal_name: Annotated[str | None, typer.Option(help="Name of the company.")] = None,
    line: Annotated[list[str] | None, typer.Option("--line", help="Line of its address; repeatable.")] = None,
    city: Annotated[str | None, typer.Option()] = None,
    state: Annotated[str | None, typer.Option(help="Code, such as KA or TX.")] = None,
    postal_code: Annotated[str | None, typer.Option()] = None,
    country: Annotated[str | None, typer.Option(help="Two letters.")] = None,
    email: Annotated[str | None, typer.Option(help="Where invoices and reminders go.")] = None,
    gstin: Annotated[str | None, typer.Option(help="GST number.")] = None,
    vat_id: Annotated[str | None, typer.Option(help="VAT number, with the code of its country.")] = None,
    tax_exemption: Annotated[str | None, typer.Option(help="On which ground it pays no tax.")] = None,
    purchase_order: Annotated[str | None, typer.Option(help="To be printed.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Such as Asia/Kolkata.")] = None,
    invoice_day: Annotated[int | None, typer.Option(min=1, max=28)] = None,
    payment_terms_days: Annotated[int | None, typer.Option(min=0)] = None,
    grace_days: Annotated[int | None, typer.Option(min=0)] = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change whom an organisation's invoices are addressed to, and on which terms."""
    path = f"{_PROFILES}/{org}"
    place = given(lines=line, city=city, state=state, postal_code=postal_code, country=country)
    body = given(
        legal_name=legal_name,
        email=email,
        gstin=gstin,
        vat_id=vat_id,
        tax_exemption=tax_exemption,
        purchase_order=purchase_order,
        time_zone=time_zone,
        invoice_day=invoice_day,
        payment_terms_days=payment_terms_days,
        grace_days=grace_days,
    )
    row = api.get(path)
    if place:
        body["address"] = {**row["address"], **place}
    if body:
        row = api.patch(path, body)
    if as_json:
        print_json(row)
    else:
        print_fields(_flat(row))


def _id(api: Management, invoice: str) -> str:
    """A number has slashes, so it is looked up."""
    if invoice.startswith("inv_"):
        return invoice
    found = list(api.rows(_PATH, number=invoice))
    if not found:
        raise NotFound(f"there is no invoice {invoice}")
    return str(found[0]["id"])


def _list(rows: list[dict[str, Any]], as_json: bool) -> None:
    print_rows(
        rows,
        {
            "id": "id",
            "number": "number",
            "org": "org_id",
            "status": "status",
            "kind": "kind",
            "from": "period_start",
            "until": "period_end",
            "currency": "currency",
            "total": "total",
            "open": "open",
            "due": "due_at",
        },
        nothing="there are no invoices",
        as_json=as_json,
    )


def _detail(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    lines, payments, notes = row.pop("lines"), row.pop("payments"), row.pop("credit_notes")
    print_fields(row.items())
    print_table(
        ("line", "description", "region", "requests", "prompt", "completion", "amount"),
        (
            (
                line["kind"],
                line["description"],
                line["region"],
                line["quantity"].get("requests"),
                line["quantity"].get("prompt_tokens"),
                line["quantity"].get("completion_tokens"),
                line["amount"],
            )
            for line in lines
        ),
        nothing="nothing was used",
    )
    if payments:
        print_table(("payment", "amount", "at"), (each.values() for each in payments), nothing="")
    if notes:
        shown = ((note["number"], note["total"], note["reason"]) for note in notes)
        print_table(("credit note", "total", "reason"), shown, nothing="")


def _flat(row: dict[str, Any]) -> list[tuple[str, Any]]:
    address = row.pop("address")
    return [*row.items(), *((f"address.{name}", value) for name, value in address.items())]


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {path}")
