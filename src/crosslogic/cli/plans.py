"""`crosslogic plans`: what is sold. A plan that is set here comes before a configured or shipped one."""

from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import (
    ConcurrencyOption,
    EnvLimitOption,
    JsonOption,
    KeyLimitOption,
    LimitOption,
    RequestsOption,
    TokensOption,
    given,
    limits_of,
    named_limits,
)
from crosslogic.cli.output import limits_text, print_done, print_rows
from crosslogic.kernel.errors import NotFound

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List and change plans.")

PlanArgument = Annotated[str, typer.Argument(help="Plan, by id.")]


@app.command("list")
@with_management
def list_plans(
    api: Management,
    source: Annotated[str | None, typer.Option(help="database, configuration or shipped.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the plans in force."""
    print_rows(
        api.rows("/admin/plans", source=source),
        {
            "id": "id",
            "name": "name",
            "USD/month": lambda row: _short(row["price_usd_per_month"]),
            "tokens included": "included_tokens_per_month",
            "limits": lambda row: limits_text(row["limits"]),
            "queue": "max_queue_depth",
            "priority": "priority",
            "weight": "weight",
            "order": "policy",
            "features": "features",
            "from": "source",
        },
        nothing="there are no plans",
        as_json=as_json,
    )


@app.command("set")
@with_management
def set_plan(
    api: Management,
    plan: PlanArgument,
    name: Annotated[str | None, typer.Option(help="Name for people.")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="What it includes; repeatable.")] = None,
    queue_depth: Annotated[int | None, typer.Option(help="Requests that may wait.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher is served first.")] = None,
    weight: Annotated[int | None, typer.Option(help="Share of a full fleet, beside other plans'.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Order of what waits: weighted-fair, priority, fifo or preemptive.")
    ] = None,
    usd_per_month: Annotated[str | None, typer.Option(help="Price of a month.")] = None,
    included_tokens: Annotated[int | None, typer.Option(help="Tokens a month that the price includes.")] = None,
    requests_per_minute: RequestsOption = None,
    tokens_per_minute: TokensOption = None,
    concurrency: ConcurrencyOption = None,
    limit: LimitOption = None,
    env_limit: EnvLimitOption = None,
    key_limit: KeyLimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a plan, or change what is given of one. Every gateway follows within a second."""
    ceilings = {
        "limits": limits_of(requests_per_minute, tokens_per_minute, concurrency, limit),
        "env_limits": named_limits(env_limit, "--env-limit"),
        "key_limits": named_limits(key_limit, "--key-limit"),
    }
    changed = given(
        name=name,
        features=feature,
        max_queue_depth=queue_depth,
        priority=priority,
        weight=weight,
        policy=policy,
        price_usd_per_month=usd_per_month,
        included_tokens_per_month=included_tokens,
    )
    try:
        body: dict[str, Any] = api.get(f"/admin/plans/{plan}")
    except NotFound:
        body = {"name": plan}
    body = {field: value for field, value in body.items() if field not in ("id", "source")}
    for name, said in ceilings.items():
        body[name] = {**(body.get(name) or {}), **(said or {})}
    row = api.put(f"/admin/plans/{plan}", {**body, **changed})
    print_done(row, f"{plan} is set", as_json=as_json)


@app.command()
@with_management
def remove(
    api: Management,
    plan: PlanArgument,
) -> None:
    """Forget what was set; a configured or shipped plan of this name is in force again."""
    api.delete(f"/admin/plans/{plan}")
    typer.echo(f"{plan} is no longer set here")


def _short(amount: str) -> str:
    """The same amount without the zeros that say nothing."""
    return amount.rstrip("0").rstrip(".") if "." in amount else amount
