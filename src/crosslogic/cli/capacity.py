"""`crosslogic capacity`: reserved capacity, one unit being one token a second that is guaranteed."""

from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, OrgOption, given
from crosslogic.cli.output import print_done, print_fields, print_json, print_rows
from crosslogic.kernel.durations import duration_s
from crosslogic.kernel.errors import InvalidRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Reserve, list, change and cancel capacity.")

_PATH = "/admin/capacity/reservations"

ReservationArgument = Annotated[str, typer.Argument(metavar="RESERVATION", help="Its id, `res_…`.")]
NodeOption = Annotated[list[str] | None, typer.Option("--node", help="Node that is the org's alone; repeatable.")]
SharedOption = Annotated[
    bool | None,
    typer.Option("--shared-fallback/--no-shared-fallback", help="May its requests go to shared nodes too."),
]
PriceOption = Annotated[str | None, typer.Option("--usd-per-month", help="Price of a month.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Even if the nodes cannot carry it at present.")]


@app.command()
@with_management
def reserve(
    api: Management,
    model: Annotated[str, typer.Argument(help="Model that it is for.")],
    units: Annotated[int, typer.Argument(min=1, help="Capacity units: tokens a second.")],
    org: OrgOption = "default",
    lasts: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="How long, such as 30d.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="End, such as 2030-01-01T00:00:00Z.")] = None,
    start: Annotated[str | None, typer.Option(metavar="TIME", help="Start; now when absent.")] = None,
    region: Annotated[str | None, typer.Option(help="In this region only.")] = None,
    node: NodeOption = None,
    shared_fallback: SharedOption = None,
    usd_per_month: PriceOption = None,
    force: ForceOption = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A repeat under the same one makes no second reservation.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Guarantee an organisation so many tokens a second of a model."""
    body = given(
        org=org,
        model=model,
        units=units,
        region=region,
        starts_at=start,
        expires_at=until,
        lasts_s=_seconds(lasts),
        dedicated_nodes=node,
        shared_fallback=shared_fallback,
        price_usd_per_month=usd_per_month,
        force=force or None,
    )
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    row = api.post(_PATH, body, headers=headers)
    _tell(row, as_json)


@app.command("list")
@with_management
def list_reservations(
    api: Management,
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    region: Annotated[str | None, typer.Option(help="Only in this region.")] = None,
    state: Annotated[str | None, typer.Option(help="scheduled, active, expired or cancelled.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List reservations."""
    print_rows(
        api.rows(_PATH, org=org, model=model, region=region, state=state),
        {
            "id": "id",
            "org": "org_id",
            "model": "model",
            "region": "region",
            "units": "units",
            "state": "state",
            "from": "starts_at",
            "until": "expires_at",
            "nodes": "dedicated_nodes",
            "USD/month": "price_usd_per_month",
        },
        nothing="nothing is reserved",
        as_json=as_json,
    )


@app.command()
@with_management
def show(
    api: Management,
    reservation: ReservationArgument,
    as_json: JsonOption = False,
) -> None:
    """Show one reservation."""
    row = api.get(f"{_PATH}/{reservation}")
    if as_json:
        print_json(row)
    else:
        print_fields(row.items())


@app.command()
@with_management
def change(
    api: Management,
    reservation: ReservationArgument,
    units: Annotated[int | None, typer.Option(min=1, help="Capacity units.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="End, such as 2030-01-01T00:00:00Z.")] = None,
    node: NodeOption = None,
    shared_fallback: SharedOption = None,
    usd_per_month: PriceOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Extend a reservation, or change what is given of it. Every gateway follows within a second."""
    body = given(
        units=units,
        expires_at=until,
        dedicated_nodes=node,
        shared_fallback=shared_fallback,
        price_usd_per_month=usd_per_month,
        force=force or None,
    )
    row = api.patch(f"{_PATH}/{reservation}", body)
    _tell(row, as_json)


@app.command()
@with_management
def cancel(
    api: Management,
    reservation: ReservationArgument,
    as_json: JsonOption = False,
) -> None:
    """End a reservation now. Every gateway follows within a second."""
    row = api.delete(f"{_PATH}/{reservation}")
    print_done(row, f"{reservation} is cancelled", as_json=as_json)


def _tell(row: dict[str, Any], as_json: bool) -> None:
    print_done(
        row, f"{row['id']}: {row['units']} tokens/s of {row['model']} until {row['expires_at']}", as_json=as_json
    )


def _seconds(duration: str | None) -> float | None:
    if duration is None:
        return None
    try:
        return duration_s(duration)
    except ValueError:
        raise InvalidRequest(f"--for {duration}: write a duration such as 12h or 30d") from None
