"""`crosslogic deployments`: planned deployments, as operators apply, watch, roll back and delete them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption
from crosslogic.cli.output import print_done, print_json, print_rows, print_table
from crosslogic.kernel.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, add_completion=False)

PATH = "/admin/compass/deployments"
ACTING_S = 60.0  # a cluster may take its time for many objects
Planned = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Its id.")]
Force = Annotated[bool, typer.Option("--force", help="Take over fields that others manage.")]


@app.command("list")
@with_management
def list_deployments(
    api: Management,
    org: Annotated[str, typer.Argument(help="Id or name.")],
    state: Annotated[str | None, typer.Option(help="planned, applying, applied, failed, deleting or deleted.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what an organisation planned."""
    print_rows(
        api.rows(PATH, org=org, state=state),
        {
            "id": "id",
            "name": "name",
            "state": "state",
            "revision": "revision",
            "applied": "applied_revision",
            "message": "message",
        },
        nothing="nothing was planned",
        as_json=as_json,
    )


@app.command("render")
@with_management
def render(
    api: Management,
    deployment: Planned,
    out: Annotated[Path | None, typer.Option("--out", help="Write files into this directory.")] = None,
) -> None:
    """Print or write the Kubernetes manifests."""
    for each in api.get(f"{PATH}/{deployment}/manifests"):
        if out is None:
            typer.echo(f"---\n{each['text']}", nl=False)
            continue
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / Path(each["path"]).name).write_text(each["text"], "utf-8")
        except OSError as error:
            raise ConfigurationError(f"{out} cannot be written ({error.strerror})") from None


@app.command("deploy")
@with_management
def deploy(
    api: Management,
    deployment: Planned,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only ask whether it would be taken.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Apply the latest revision to the cluster, after a dry run."""
    body = {"force": force, "dry_run": dry_run}
    _say(api.post(f"{PATH}/{deployment}/deploy", body, timeout_s=ACTING_S), as_json)


@app.command("test")
@with_management
def send_prompt(
    api: Management,
    deployment: Planned,
    prompt: Annotated[str, typer.Argument(help="What to ask the engine.")] = "What is the capital of France?",
    max_tokens: Annotated[int, typer.Option(min=1, max=512)] = 64,
    as_json: JsonOption = False,
) -> None:
    """Send a prompt to the engine itself: does it answer, what, and how long does it take?"""
    body = {"prompt": prompt, "max_tokens": max_tokens}
    found = api.post(f"{PATH}/{deployment}/test", body, timeout_s=ACTING_S)
    if as_json:
        print_json(found)
        return
    typer.echo(found["text"])
    typer.echo(
        f"{found['latency_ms']:,.0f} ms for {found['output_tokens'] or '?'} tokens of {found['model']}", err=True
    )


@app.command("revisions")
@with_management
def revisions(api: Management, deployment: Planned, as_json: JsonOption = False) -> None:
    """All plans that it had, the latest first."""
    print_rows(
        api.rows(f"{PATH}/{deployment}/revisions"),
        {
            "revision": "revision",
            "model": lambda row: f"{row['model']} {row['precision']}",
            "replicas": "replicas",
            "GPUs each": lambda row: f"{row['tensor_parallel']} x {row['gpu_type']}",
            "USD/month": lambda row: f"{row['cost_per_month_usd']:,.0f}",
            "planned": "created_at",
            "applied": "applied_at",
        },
        nothing="nothing was planned",
        as_json=as_json,
    )


@app.command("rollback")
@with_management
def roll_back(api: Management, deployment: Planned, force: Force = False, as_json: JsonOption = False) -> None:
    """Apply the plan that was applied before, as a revision of its own."""
    _say(api.post(f"{PATH}/{deployment}/rollback", {"force": force}, timeout_s=ACTING_S), as_json)


@app.command("delete")
@with_management
def delete(api: Management, deployment: Planned, as_json: JsonOption = False) -> None:
    """Remove it from the cluster; the tenant's namespace stays."""
    _say(api.delete(f"{PATH}/{deployment}"), as_json)


@app.command("status")
@with_management
def status(api: Management, deployment: Planned, as_json: JsonOption = False) -> None:
    """Pods, readiness and endpoint."""
    found = api.get(f"{PATH}/{deployment}/status")
    if as_json:
        print_json(found)
        return
    ready = "ready" if found["ready"] else f"not ready: {found['message'] or 'no pod is ready'}"
    typer.echo(f"{ready}; {found['endpoint'] or 'no endpoint'}")
    for name, url in found["links"].items():
        typer.echo(f"{name}: {url}")
    print_table(
        ("pod", "phase", "ready", "restarts", "reason"),
        ((pod["name"], pod["phase"], pod["ready"], pod["restarts"], pod["reason"]) for pod in found["pods"]),
        nothing="no pods",
    )


@app.command("observe")
@with_management
def observe(
    api: Management,
    deployment: Planned,
    start: Annotated[str, typer.Option(metavar="TIME", help="Start of the window.")],
    end: Annotated[str, typer.Option(metavar="TIME", help="Its end.")],
    source: Annotated[str, typer.Option(help="ledger or prometheus.")] = "ledger",
    as_json: JsonOption = False,
) -> None:
    """Hold a window against its forecast, and learn of it."""
    found = api.post(f"{PATH}/{deployment}/observe", {"start": start, "end": end, "source": source})
    _outcomes([found], as_json)


@app.command("outcomes")
@with_management
def outcomes(api: Management, deployment: Planned, as_json: JsonOption = False) -> None:
    """What windows showed beside their forecasts, the latest first."""
    _outcomes(list(api.rows(f"{PATH}/{deployment}/outcomes")), as_json)


def _say(row: dict[str, Any], as_json: bool) -> None:
    print_done(row, f"{row['name']} is {row['state']}, revision {row['revision']}", as_json=as_json)


def _outcomes(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    print_table(
        ("from", "requests", "TTFT p95", "error", "ITL p95", "error", "E2E p95", "error", "drift"),
        (
            (
                row["observation"]["start"],
                row["observation"]["requests"],
                *(
                    text
                    for name in ("ttft", "itl", "e2e")
                    for text in (_ms(row["observation"][f"{name}_p95_ms"]), _share(row[f"{name}_error"]))
                ),
                row["drift"],
            )
            for row in rows
        ),
        nothing="no window was judged",
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:+.0%}"
