"""`crosslogic envs`: the environments of an organisation, each with its own keys, region, models and ceilings."""

from typing import Annotated

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import (
    AtCapOption,
    CacheOption,
    CacheSampledOption,
    CacheTtlOption,
    ConcurrencyOption,
    JsonOption,
    KeyLimitOption,
    LimitOption,
    OrgOption,
    RequestsOption,
    ResidencyOption,
    TokensOption,
    cache_of,
    given,
    limits_of,
    named_limits,
)
from crosslogic.cli.output import limits_text, print_done, print_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create, list, change and suspend environments.")

EnvArgument = Annotated[str, typer.Argument(help="Environment, by id or name.")]
RegionOption = Annotated[str | None, typer.Option(help="Region that serves it first.")]
ModelOption = Annotated[list[str] | None, typer.Option(help="Allow only this model; repeatable.")]


@app.command()
@with_management
def create(
    api: Management,
    name: Annotated[str, typer.Argument(help="Name, unique in the organisation.")],
    org: OrgOption = "default",
    region: RegionOption = None,
    residency: ResidencyOption = None,
    model: ModelOption = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    key_limit: KeyLimitOption = None,
    at_cap: AtCapOption = None,
    cache: CacheOption = None,
    cache_ttl: CacheTtlOption = None,
    cache_sampled: CacheSampledOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an environment."""
    limits = limits_of(requests_per_minute, tokens_per_minute, concurrency, limit)
    chosen = cache_of(cache, cache_ttl, cache_sampled)
    body = given(
        name=name,
        region=region,
        data_residency=residency,
        allowed_models=model,
        limits=limits,
        key_limits=named_limits(key_limit, "--key-limit"),
        at_cap=at_cap,
        cache=chosen,
    )
    row = api.post(f"/admin/orgs/{org}/environments", body)
    print_done(row, f"{row['id']}  {name}", as_json=as_json)


@app.command("list")
@with_management
def list_environments(
    api: Management,
    org: OrgOption = "default",
    status: Annotated[str | None, typer.Option(help="active or suspended.")] = None,
    region: Annotated[str | None, typer.Option(help="Only of this region.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the environments of an organisation."""
    print_rows(
        api.rows(f"/admin/orgs/{org}/environments", status=status, region=region),
        {
            "id": "id",
            "name": "name",
            "status": "status",
            "region": "region",
            "limits": lambda row: limits_text(row["limits"]),
            "models": lambda row: row["allowed_models"] or "all",
        },
        nothing="there are no environments",
        as_json=as_json,
    )


@app.command()
@with_management
def change(
    api: Management,
    env: EnvArgument,
    org: OrgOption = "default",
    region: RegionOption = None,
    residency: ResidencyOption = None,
    model: ModelOption = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    key_limit: KeyLimitOption = None,
    at_cap: AtCapOption = None,
    cache: CacheOption = None,
    cache_ttl: CacheTtlOption = None,
    cache_sampled: CacheSampledOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given; ceilings are replaced together, and so is what is chosen of the cache."""
    limits = limits_of(requests_per_minute, tokens_per_minute, concurrency, limit)
    chosen = cache_of(cache, cache_ttl, cache_sampled)
    body = given(
        region=region,
        data_residency=residency,
        allowed_models=model,
        limits=limits,
        key_limits=named_limits(key_limit, "--key-limit"),
        at_cap=at_cap,
        cache=chosen,
    )
    row = api.patch(f"/admin/orgs/{org}/environments/{env}", body)
    print_done(row, f"{row['name']} is changed", as_json=as_json)


@app.command()
@with_management
def suspend(
    api: Management,
    env: EnvArgument,
    org: OrgOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Refuse all keys of an environment. Every gateway follows within a second."""
    row = api.patch(f"/admin/orgs/{org}/environments/{env}", {"status": "suspended"})
    print_done(row, f"{row['name']} is suspended", as_json=as_json)


@app.command()
@with_management
def activate(
    api: Management,
    env: EnvArgument,
    org: OrgOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Take up a suspended environment again."""
    row = api.patch(f"/admin/orgs/{org}/environments/{env}", {"status": "active"})
    print_done(row, f"{row['name']} is active", as_json=as_json)
