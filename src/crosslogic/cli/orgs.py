"""`crosslogic orgs`: the organisations that buy."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import (
    AtCapOption,
    CacheOption,
    CacheSampledOption,
    CacheTtlOption,
    ConcurrencyOption,
    EnvLimitOption,
    JsonOption,
    KeyLimitOption,
    LimitOption,
    RequestsOption,
    ResidencyOption,
    TokensOption,
    cache_of,
    given,
    limits_of,
    named_limits,
)
from crosslogic.cli.output import limits_text, print_done, print_json, print_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list, change and suspend organisations.")

ENVIRONMENTS = ("dev", "staging", "prod")  # architecture document §11


@app.command()
@with_management
def create(
    api: Management,
    name: Annotated[str, typer.Argument(help="Name, unique.")],
    plan: Annotated[str | None, typer.Option(help="Plan; see `crosslogic plans list`.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="Environment to make; repeatable.  [default: dev, staging, prod]")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Allow only this model; repeatable.")] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    env_limit: EnvLimitOption = None,
    key_limit: KeyLimitOption = None,
    at_cap: AtCapOption = None,
    cache: CacheOption = None,
    cache_ttl: CacheTtlOption = None,
    cache_sampled: CacheSampledOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an organisation with its environments."""
    limits = limits_of(requests_per_minute, tokens_per_minute, concurrency, limit)
    body = given(
        name=name,
        billing_plan=plan,
        limits=limits,
        env_limits=named_limits(env_limit, "--env-limit"),
        key_limits=named_limits(key_limit, "--key-limit"),
        at_cap=at_cap,
        allowed_models=model,
        cache=cache_of(cache, cache_ttl, cache_sampled),
    )
    org = api.post("/admin/orgs", body)
    made = [api.post(f"/admin/orgs/{org['id']}/environments", {"name": each}) for each in env or ENVIRONMENTS]
    if as_json:
        print_json({**org, "environments": made})
    else:
        typer.echo(f"{org['id']}  {name}, with {', '.join(each['name'] for each in made)}")


@app.command("list")
@with_management
def list_orgs(
    api: Management,
    status: Annotated[str | None, typer.Option(help="active or suspended.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List organisations."""
    print_rows(
        api.rows("/admin/orgs", status=status),
        {
            "id": "id",
            "name": "name",
            "status": "status",
            "plan": "billing_plan",
            "limits": lambda row: limits_text(row["limits"]),
            "models": lambda row: row["allowed_models"] or "all",
        },
        nothing="there are no organisations",
        as_json=as_json,
    )


@app.command()
@with_management
def change(
    api: Management,
    org: Annotated[str, typer.Argument(help="Organisation, by id or name.")],
    plan: Annotated[str | None, typer.Option(help="Plan; see `crosslogic plans list`.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Allow only this model; repeatable.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Preferred region, best first; repeatable.")] = None,
    residency: ResidencyOption = None,
    billing: Annotated[bool | None, typer.Option("--billing/--no-billing", help="Whether it is billed.")] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    env_limit: EnvLimitOption = None,
    key_limit: KeyLimitOption = None,
    at_cap: AtCapOption = None,
    cache: CacheOption = None,
    cache_ttl: CacheTtlOption = None,
    cache_sampled: CacheSampledOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given; ceilings are replaced together, and so is what is chosen of the cache."""
    body = given(
        billing_plan=plan,
        allowed_models=model,
        region_preferences=region,
        billing_enabled=billing,
        data_residency=residency,
        limits=limits_of(requests_per_minute, tokens_per_minute, concurrency, limit),
        env_limits=named_limits(env_limit, "--env-limit"),
        key_limits=named_limits(key_limit, "--key-limit"),
        at_cap=at_cap,
        cache=cache_of(cache, cache_ttl, cache_sampled),
    )
    row = api.patch(f"/admin/orgs/{org}", body)
    print_done(row, f"{row['name']} is changed", as_json=as_json)


@app.command()
@with_management
def suspend(
    api: Management,
    org: Annotated[str, typer.Argument(help="Organisation, by id or name.")],
    as_json: JsonOption = False,
) -> None:
    """Refuse all keys of an organisation. Every gateway follows within a second."""
    row = api.patch(f"/admin/orgs/{org}", {"status": "suspended"})
    print_done(row, f"{row['name']} is suspended", as_json=as_json)


@app.command()
@with_management
def activate(
    api: Management,
    org: Annotated[str, typer.Argument(help="Organisation, by id or name.")],
    as_json: JsonOption = False,
) -> None:
    """Take up a suspended organisation again."""
    row = api.patch(f"/admin/orgs/{org}", {"status": "active"})
    print_done(row, f"{row['name']} is active", as_json=as_json)
