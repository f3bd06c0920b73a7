"""`crosslogic cache`: the answers that are kept for an organisation."""

from itertools import islice
from typing import Annotated, Any
from urllib.parse import quote

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, OrgOption, given
from crosslogic.cli.output import print_done, print_fields, print_json, print_rows

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, inspect, delete and clear cached answers.")

AnswerArgument = Annotated[str, typer.Argument(help="Answer, by x-cache-key or id of the request that made it.")]
EnvOption = Annotated[str | None, typer.Option("--env", help="Only of this environment, by id or name.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only of this model.")]


@app.command("list")
@with_management
def list_answers(
    api: Management,
    org: OrgOption = "default",
    env: EnvOption = None,
    model: ModelOption = None,
    most: Annotated[int, typer.Option("--limit", min=1, help="How many, those that end first.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List cached answers: what was asked how often, not what was said."""
    print_rows(
        islice(api.rows("/admin/cache", org=org, environment=env, model=model), most),
        ("key", "request_id", "env_id", "endpoint", "model", "hit_count", "age_s", "ttl_s", "size_bytes"),
        nothing="nothing is cached",
        as_json=as_json,
    )


@app.command()
@with_management
def show(
    api: Management,
    answer: AnswerArgument,
    org: OrgOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Show one cached answer: model, hits, age, time left and size."""
    row = api.get(_path(answer), org=org)
    if as_json:
        print_json(row)
    else:
        print_fields(row.items())


@app.command()
@with_management
def clear(
    api: Management,
    org: OrgOption = "default",
    env: EnvOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget all cached answers of an organisation, or those of one environment or model."""
    done = api.post("/admin/cache/clear", given(org=org, environment=env, model=model))
    print_done(done, _told(done), as_json=as_json)


@app.command()
@with_management
def delete(
    api: Management,
    answer: AnswerArgument,
    org: OrgOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Forget one cached answer."""
    done = api.delete(_path(answer), org=org)
    print_done(done, _told(done), as_json=as_json)


def _path(answer: str) -> str:
    return f"/admin/cache/{quote(answer, safe='')}"


def _told(done: dict[str, Any]) -> str:
    number = done["cleared"]
    if number is None:
        return "each gateway worker forgets its own within a second"
    return "1 answer is forgotten" if number == 1 else f"{number:,} answers are forgotten"
