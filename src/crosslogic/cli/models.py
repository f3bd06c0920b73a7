"""`crosslogic models`: register models, deploy them on nodes, and roll new versions out."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, given
from crosslogic.cli.output import print_done, print_json, print_table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Register models, deploy them, roll versions out.")

_MODELS = ("id", "version", "name", "quantization", "context_window", "required_vram_mb", "capabilities")
_DEPLOYMENTS = ("id", "model_id", "version", "status", "replicas", "share_percent", "reason", "created_at")
_ROLLOUTS = ("id", "model_id", "kind", "status", "old", "new", "step", "reason", "created_at")

DeploymentArgument = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Its id, `dep_…`.")]
RolloutArgument = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Its id, `roll_…`.")]
ModelFilter = Annotated[str | None, typer.Option(help="Of this model only.")]


@app.command()
@with_management
def register(
    api: Management,
    model: Annotated[str, typer.Argument(help="Name that callers use and nodes serve.")],
    version: Annotated[str | None, typer.Option(help="Of the weights.")] = None,
    source: Annotated[str | None, typer.Option(help="Where the weights are: a URL or a path.")] = None,
    checksum: Annotated[str | None, typer.Option(help="sha256:… of what the source names.")] = None,
    quantization: Annotated[str | None, typer.Option(help="Such as fp8 or awq.")] = None,
    context_window: Annotated[int | None, typer.Option(min=1, help="In tokens.")] = None,
    required_vram_mb: Annotated[int | None, typer.Option(min=1, help="Of GPU memory, for one replica.")] = None,
    capability: Annotated[list[str] | None, typer.Option(help="chat, code, vision …; repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Register a model, or a new version of one that is registered."""
    body = given(
        version=version,
        source=source,
        checksum=checksum,
        quantization=quantization,
        context_window=context_window,
        required_vram_mb=required_vram_mb,
        capabilities=capability or None,
    )
    known = any(row["id"] == model for row in api.rows("/admin/models"))
    if known:
        row = api.patch(f"/admin/models/{quote(model, safe='')}", body)
    else:
        row = api.post("/admin/models", {"id": model, **body})
    print_done(row, f"{row['id']} is registered, version {row['version']}", as_json=as_json)


@app.command("list")
@with_management
def list_models(
    api: Management,
    as_json: JsonOption = False,
) -> None:
    """List registered models."""
    rows = list(api.rows("/admin/models"))
    _show(rows, _MODELS, as_json, nothing="no model is registered")


@app.command()
@with_management
def deploy(
    api: Management,
    model: Annotated[str, typer.Argument(help="A registered model.")],
    replicas: Annotated[int, typer.Option(min=1, help="Nodes that are to serve it.")] = 1,
    version: Annotated[str | None, typer.Option(help="The registered one when absent.")] = None,
    tensor_parallelism: Annotated[int, typer.Option(min=1, help="GPUs that share a layer.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Deploy a version. Nodes join it by registering with its id."""
    body = given(model=model, replicas=replicas, version=version, config={"tensor_parallelism": tensor_parallelism})
    row = api.post("/admin/deployments", body)
    print_done(row, row["id"], as_json=as_json)


@app.command()
@with_management
def deployments(
    api: Management,
    model: ModelFilter = None,
    status: Annotated[str | None, typer.Option(help="pending, deploying, ready, …")] = None,
    as_json: JsonOption = False,
) -> None:
    """List deployments."""
    rows = list(api.rows("/admin/deployments", model=model, status=status))
    _show(rows, _DEPLOYMENTS, as_json, nothing="there are no deployments")


@app.command()
@with_management
def scale(
    api: Management,
    deployment: DeploymentArgument,
    replicas: Annotated[int, typer.Argument(min=1, help="Nodes that are to serve it.")],
    as_json: JsonOption = False,
) -> None:
    """Want another number of nodes."""
    row = api.patch(f"/admin/deployments/{deployment}", {"replicas": replicas})
    print_done(row, f"{row['id']} is {row['status']}", as_json=as_json)


@app.command()
@with_management
def undeploy(
    api: Management,
    deployment: DeploymentArgument,
    as_json: JsonOption = False,
) -> None:
    """Let its nodes finish, and give them nothing new."""
    row = api.delete(f"/admin/deployments/{deployment}")
    print_done(row, f"{row['id']} is {row['status']}", as_json=as_json)


@app.command("roll-out")
@with_management
def roll_out(
    api: Management,
    deployment: DeploymentArgument,
    kind: Annotated[str, typer.Option(help="blue_green, canary or ab.")] = "blue_green",
    step: Annotated[list[float] | None, typer.Option(help="Percent of the requests; repeatable, rising.")] = None,
    step_s: Annotated[float | None, typer.Option(min=0, help="How long each step lasts at least.")] = None,
    min_requests: Annotated[int | None, typer.Option(min=0, help="Of the new deployment, in each step.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Move a model's requests to this deployment. It goes back by itself when it is worse."""
    rules = given(steps_percent=step or None, step_s=step_s, min_requests=min_requests)
    row = api.post("/admin/rollouts", {"deployment": deployment, "kind": kind, "rules": rules})
    print_done(row, row["id"], as_json=as_json)


@app.command()
@with_management
def rollouts(
    api: Management,
    model: ModelFilter = None,
    status: Annotated[str | None, typer.Option(help="running, finished, rolled_back or cancelled.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List rollouts."""
    rows = list(api.rows("/admin/rollouts", model=model, status=status))
    _show(rows, _ROLLOUTS, as_json, nothing="there are no rollouts")


@app.command()
@with_management
def finish(
    api: Management,
    rollout: RolloutArgument,
    as_json: JsonOption = False,
) -> None:
    """Give all requests to the new deployment now."""
    _end(api, rollout, "finish", as_json)


@app.command()
@with_management
def cancel(
    api: Management,
    rollout: RolloutArgument,
    as_json: JsonOption = False,
) -> None:
    """Give all requests back to the old deployment."""
    _end(api, rollout, "cancel", as_json)


def _end(api: Management, rollout: str, how: str, as_json: bool) -> None:
    row = api.post(f"/admin/rollouts/{rollout}/{how}")
    print_done(row, f"{row['id']} is {row['status']}", as_json=as_json)


def _show(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool, *, nothing: str) -> None:
    if as_json:
        print_json(rows)
    else:
        print_table(columns, ([row[column] for column in columns] for row in rows), nothing=nothing)
