"""`crosslogic prices`: price versions, from draft to retirement, and what they would do to past usage."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, given
from crosslogic.cli.output import print_done, print_json, print_rows, print_table
from crosslogic.kernel.errors import InvalidRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Draft, look at, publish and compare prices.")

_PATH = "/admin/prices"

VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="Its id, `price_…`.")]
FromOption = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Such as 2030-01-01T00:00:00Z.")]


@app.command("list")
@with_management
def list_versions(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Its own, and those for all.")] = None,
    status: Annotated[str | None, typer.Option(help="draft, published or retired.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List price versions."""
    print_rows(
        api.rows(_PATH, org=org, status=status),
        ("id", "org_id", "status", "currency", "effective_from", "retired_from", "note"),
        nothing="there are no price versions",
        as_json=as_json,
    )


@app.command()
@with_management
def show(api: Management, version: VersionArgument, as_json: JsonOption = False) -> None:
    """Show one version with its prices."""
    row = api.get(f"{_PATH}/{version}")
    if as_json:
        print_json(row)
        return
    typer.echo(f"{row['id']}: {row['status']}, {row['currency']}, from {row['effective_from'] or 'nowhere yet'}")
    prices = row["terms"]["prices"]
    columns = ("model", "input", "cached", "output", "request", "endpoints", "plans")
    print_table(columns, ([one.get(name) for name in columns] for one in prices), nothing="no prices")
    print_json({name: value for name, value in row["terms"].items() if name != "prices"})


@app.command()
@with_management
def draft(
    api: Management,
    file: Annotated[Path, typer.Argument(help="JSON with prices, regions, discounts: docs/billing.md has an example.")],
    org: Annotated[str | None, typer.Option("--org", help="For this organisation alone.")] = None,
    currency: Annotated[str, typer.Option(help="Of the amounts.")] = "USD",
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Write down prices that hold for nobody yet."""
    body = given(terms=_read(file), org=org, currency=currency, note=note or None)
    row = api.post(_PATH, body)
    print_done(row, f"{row['id']} is a draft; publish it with `crosslogic prices publish`", as_json=as_json)


@app.command()
@with_management
def publish(api: Management, version: VersionArgument, start: FromOption = None, as_json: JsonOption = False) -> None:
    """Let a version hold from now on, or from a later time on."""
    row = api.post(f"{_PATH}/{version}/publish", given(effective_from=start))
    print_done(row, f"{version} holds from {row['effective_from']} on", as_json=as_json)


@app.command()
@with_management
def retire(api: Management, version: VersionArgument, start: FromOption = None, as_json: JsonOption = False) -> None:
    """Let a version hold no more, from now on or from a later time on."""
    row = api.post(f"{_PATH}/{version}/retire", given(retired_from=start))
    print_done(row, f"{version} holds no more from {row['retired_from']} on", as_json=as_json)


@app.command()
@with_management
def compare(
    api: Management,
    version: VersionArgument,
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="First instant that counts.")],
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="First instant that counts no more.")],
    org: Annotated[str | None, typer.Option("--org", help="Of this organisation alone.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What past usage would have cost by a version, beside what it did cost."""
    found = api.post(f"{_PATH}/{version}/compare", given(**{"from": start, "to": end, "org": org}))
    if as_json:
        print_json(found)
        return
    rows = [
        (what, name, one["requests"], one["before"], one["after"])
        for what in ("totals", "by_org", "by_model")
        for name, one in found[what].items()
    ]
    print_table(("", "", "requests", "before", "after"), rows, nothing="nothing was used then")
    typer.echo(f"{found['changed']} requests would cost something else")
    if not found["whole"]:
        typer.echo("there were too many requests: narrow the period or name an organisation to see all of them")


@app.command()
@with_management
def rate(
    api: Management,
    currency: Annotated[str, typer.Argument(help="Such as INR.")],
    units: Annotated[str, typer.Argument(help="Units of it for one US dollar.")],
    start: FromOption = None,
    source: Annotated[str, typer.Option(help="Where it is from.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Say what a US dollar is worth, from now on or from a later time on."""
    row = api.post(
        "/admin/exchange-rates",
        given(currency=currency, rate=units, effective_from=start, source=source or None),
    )
    print_done(row, f"1 USD is {row['rate']} {currency} from {row['effective_from']} on", as_json=as_json)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InvalidRequest(f"{file} is no JSON") from None
