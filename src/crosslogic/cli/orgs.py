"""`crosslogic orgs`: the organisations that buy."""

from typing import Annotated

import typer

from crosslogic.cli.client import DATA_DIR, AdminKeyOption, DataDirOption, UrlOption, management
from crosslogic.cli.flags import ConcurrencyOption, JsonOption, RequestsOption, TokensOption, given, limits_of
from crosslogic.cli.output import limits_text, print_json, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list, change and suspend organisations.")

ENVIRONMENTS = ("dev", "staging", "prod")  # architecture document §11


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name, unique.")],
    plan: Annotated[str | None, typer.Option(help="Plan; see `crosslogic plans list`.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="Environment to make; repeatable.  [default: dev, staging, prod]")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Allow only this model; repeatable.")] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Create an organisation with its environments."""
    limits = limits_of(requests_per_minute, tokens_per_minute, concurrency)
    body = given(name=name, billing_plan=plan, limits=limits, allowed_models=model)
    with management(url, admin_key, data_dir) as api:
        org = api.post("/admin/orgs", body)
        made = [api.post(f"/admin/orgs/{org['id']}/environments", {"name": each}) for each in env or ENVIRONMENTS]
    if as_json:
        print_json({**org, "environments": made})
    else:
        typer.echo(f"{org['id']}  {name}, with {', '.join(each['name'] for each in made)}")


@app.command("list")
def list_orgs(
    status: Annotated[str | None, typer.Option(help="active or suspended.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """List organisations."""
    with management(url, admin_key, data_dir) as api:
        rows = list(api.rows("/admin/orgs", status=status))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "name", "status", "plan", "limits", "models"),
        (
            (
                row["id"],
                row["name"],
                row["status"],
                row["billing_plan"],
                limits_text(row["limits"]),
                row["allowed_models"] or "all",
            )
            for row in rows
        ),
        nothing="there are no organisations",
    )


@app.command()
def change(
    org: Annotated[str, typer.Argument(help="Organisation, by id or name.")],
    plan: Annotated[str | None, typer.Option(help="Plan; see `crosslogic plans list`.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Allow only this model; repeatable.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Preferred region, best first; repeatable.")] = None,
    billing: Annotated[bool | None, typer.Option("--billing/--no-billing", help="Whether it is billed.")] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Change what is given; ceilings are replaced together."""
    body = given(
        billing_plan=plan,
        allowed_models=model,
        region_preferences=region,
        billing_enabled=billing,
        limits=limits_of(requests_per_minute, tokens_per_minute, concurrency),
    )
    with management(url, admin_key, data_dir) as api:
        row = api.patch(f"/admin/orgs/{org}", body)
    print_json(row) if as_json else typer.echo(f"{row['name']} is changed")


@app.command()
def suspend(
    org: Annotated[str, typer.Argument(help="Organisation, by id or name.")],
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Refuse all keys of an organisation. Every gateway follows within a second."""
    with management(url, admin_key, data_dir) as api:
        row = api.patch(f"/admin/orgs/{org}", {"status": "suspended"})
    print_json(row) if as_json else typer.echo(f"{row['name']} is suspended")


@app.command()
def activate(
    org: Annotated[str, typer.Argument(help="Organisation, by id or name.")],
    as_json: JsonOption = False,
    url: UrlOption = None,
    admin_key: AdminKeyOption = None,
    data_dir: DataDirOption = DATA_DIR,
) -> None:
    """Take up a suspended organisation again."""
    with management(url, admin_key, data_dir) as api:
        row = api.patch(f"/admin/orgs/{org}", {"status": "active"})
    print_json(row) if as_json else typer.echo(f"{row['name']} is active")
