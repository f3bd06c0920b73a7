"""`crosslogic credits`: what organisations may use before they pay."""

from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, OrgOption, given
from crosslogic.cli.output import print_done, print_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, grant and void credits.")

_PATH = "/admin/credits"


@app.command("list")
@with_management
def list_credits(
    api: Management,
    org: OrgOption = "default",
    credit_class: Annotated[str | None, typer.Option("--class", help="promotional, paid, …")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what an organisation was granted, in the order in which it is drawn."""
    print_rows(
        api.rows(_PATH, org=org, credit_class=credit_class),
        (
            "id",
            "credit_class",
            "priority",
            "currency",
            "amount",
            "drawn",
            "expired",
            "voided",
            "remaining",
            "expires_at",
            "reason",
        ),
        nothing="nothing was granted",
        as_json=as_json,
    )


@app.command()
@with_management
def grant(
    api: Management,
    amount: Annotated[str, typer.Argument(help="In the organisation's currency.")],
    org: OrgOption = "default",
    credit_class: Annotated[str, typer.Option("--class", help="promotional, paid, …")] = "promotional",
    priority: Annotated[int | None, typer.Option(help="Lower is drawn first.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 2030-01-01T00:00:00Z.")] = None,
    ref: Annotated[str | None, typer.Option(help="What it is for; it is never granted twice.")] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Give an organisation a credit."""
    body = given(
        org=org,
        amount=amount,
        credit_class=credit_class,
        priority=priority,
        expires_at=expires,
        source_ref=ref,
        reason=reason or None,
    )
    _tell(api.post(_PATH, body), as_json)


@app.command()
@with_management
def void(
    api: Management,
    credit: Annotated[str, typer.Argument(help="Its id, `grant_…`.")],
    as_json: JsonOption = False,
) -> None:
    """Take back what is left of a credit."""
    row = api.post(f"{_PATH}/{credit}/void")
    print_done(row, f"{credit} is void: {row['voided']} {row['currency']} are taken back", as_json=as_json)


@app.command()
@with_management
def refer(
    api: Management,
    referrer: Annotated[str, typer.Argument(help="The organisation that is thanked.")],
    referred: Annotated[str, typer.Argument(help="The organisation that it has brought.")],
    as_json: JsonOption = False,
) -> None:
    """Thank an organisation for another that it has brought."""
    _tell(api.post(f"{_PATH}/referrals", {"referrer": referrer, "referred": referred}), as_json)


def _tell(row: dict[str, Any], as_json: bool) -> None:
    print_done(
        row,
        f"{row['id']}: {row['amount']} {row['currency']} ({row['credit_class']}) for {row['org_id']}",
        as_json=as_json,
    )
