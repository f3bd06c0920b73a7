"""`crosslogic envs`: the environments of an organisation, each with its own keys, region, models and ceilings."""

from typing import Annotated

import typer

from crosslogic.cli.client import DATA_DIR, AdminKeyOption, DataDirOption, UrlOption, management
from crosslogic.cli.flags import (
    ConcurrencyOption,
    JsonOption,
    OrgOption,
    RequestsOption,
    TokensOption,
    given,
    limits_of,
)
from crosslogic.cli.output import limits_text, print_json, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list, change and suspend environments.")

EnvArgument = Annotated[str, typer.Argument(help="Environment, by id or name.")]
RegionOption = Annotated[str | None, typer.Option(help="Region that serves it first.")]
ModelOption = Annotated[list[str] | None, typer.Option(help="Allow only this model; repeatable.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name, unique in the organisation.")],
    org: OrgOption = "default",
    region: RegionOption = None,
    model: ModelOption = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Create an environment."""
    limits = limits_of(requests_per_minute, tokens_per_minute, concurrency)
    body = given(name=name, region=region, allowed_models=model, limits=limits)
    with management(url, admin_key, data_dir) as api:
        row = api.post(f"/admin/orgs/{org}/environments", body)
    print_json(row) if as_json else typer.echo(f"{row['id']}  {name}")


@app.command("list")
def list_environments(
    org: OrgOption = "default",
    status: Annotated[str | None, typer.Option(help="active or suspended.")] = None,
    region: Annotated[str | None, typer.Option(help="Only of this region.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """List the environments of an organisation."""
    with management(url, admin_key, data_dir) as api:
        rows = list(api.rows(f"/admin/orgs/{org}/environments", status=status, region=region))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "name", "status", "region", "limits", "models"),
        (
            (
                row["id"],
                row["name"],
                row["status"],
                row["region"],
                limits_text(row["limits"]),
                row["allowed_models"] or "all",
            )
            for row in rows
        ),
        nothing="there are no environments",
    )


@app.command()
def change(
    env: EnvArgument,
    org: OrgOption = "default",
    region: RegionOption = None,
    model: ModelOption = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Change what is given; ceilings are replaced together."""
    limits = limits_of(requests_per_minute, tokens_per_minute, concurrency)
    with management(url, admin_key, data_dir) as api:
        row = api.patch(
            f"/admin/orgs/{org}/environments/{env}", given(region=region, allowed_models=model, limits=limits)
        )
    print_json(row) if as_json else typer.echo(f"{row['name']} is changed")


@app.command()
def suspend(
    env: EnvArgument,
    org: OrgOption = "default",
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Refuse all keys of an environment. Every gateway follows within a second."""
    with management(url, admin_key, data_dir) as api:
        row = api.patch(f"/admin/orgs/{org}/environments/{env}", {"status": "suspended"})
    print_json(row) if as_json else typer.echo(f"{row['name']} is suspended")


@app.command()
def activate(
    env: EnvArgument,
    org: OrgOption = "default",
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Take up a suspended environment again."""
    with management(url, admin_key, data_dir) as api:
        row = api.patch(f"/admin/orgs/{org}/environments/{env}", {"status": "active"})
    print_json(row) if as_json else typer.echo(f"{row['name']} is active")
