"""`crosslogic regions`: where requests can be served, what that costs, and where they go when a region is down."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_json, print_rows, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List regions, and look at one.")


@app.command("list")
@with_management
def list_regions(
    api: Management,
    country: Annotated[str | None, typer.Option(help="Only those in this country, by its two letters.")] = None,
    cloud: Annotated[str | None, typer.Option(help="Only where this cloud is: aws, gcp or azure.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List regions."""
    print_rows(
        api.rows("/admin/regions", country=country, cloud=cloud),
        {
            "id": "id",
            "name": "name",
            "countries": "countries",
            "price": lambda row: f"x {row['cost_multiplier']}",
            "when down": "fallbacks",
            "also called": "aliases",
        },
        nothing="there are no such regions",
        as_json=as_json,
    )


@app.command()
@with_management
def show(
    api: Management,
    region: Annotated[str, typer.Argument(help="Id or alias; a city or a region of a cloud finds the one it is in.")],
    as_json: JsonOption = False,
) -> None:
    """Show the cities of a region, and which regions of clouds stand in each."""
    row = api.get(f"/admin/regions/{region}")
    if as_json:
        print_json(row)
        return
    typer.echo(
        f"{row['id']}  {row['name']}  x {row['cost_multiplier']}  when down: {', '.join(row['fallbacks']) or '-'}"
    )
    print_table(
        ("city", "country", "clouds"),
        (
            (
                city["name"],
                city["country"],
                [f"{cloud} {name}" for cloud, names in city["clouds"].items() for name in names],
            )
            for city in row["cities"]
        ),
        nothing="no city of it is known",
    )
