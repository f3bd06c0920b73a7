"""`crosslogic nodes`: the GPU machines that serve."""

from typing import Annotated, Any

import typer

from crosslogic.cli import node_agents
from crosslogic.cli.client import Management, with_management
from crosslogic.cli.flags import JsonOption, given
from crosslogic.cli.output import print_done, print_json, print_table
from crosslogic.cli.tunnel_certificate import tunnel_certificate

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, register, drain and revoke nodes.")
app.add_typer(node_agents.token_app, name="token")
for command in (
    node_agents.revoke,
    node_agents.certificates,
    node_agents.report,
    node_agents.logs,
    node_agents.upgrade,
    tunnel_certificate,
):
    app.command(command.__name__.replace("_", "-"))(command)


@app.command("list")
@with_management
def list_nodes(
    api: Management,
    status: Annotated[str | None, typer.Option(help="starting, active, draining or dead.")] = None,
    region: Annotated[str | None, typer.Option(help="Only of this region.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those that serve this model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List nodes with their present work."""
    rows = list(api.rows("/admin/nodes", status=status, region=region, model=model))
    if as_json:
        print_json(rows)
        return
    print_table(
        (
            *("id", "status", "engine", "models", "endpoint", "region", "GPUs"),
            *("health", "why", "running", "waiting", "heard"),
        ),
        (
            (
                row["node_id"],
                row["status"],
                row["backend"],
                row["model_list"],
                row["endpoint_url"],
                row["region"],
                f"{row['gpu_count']} {row['gpu_type'] or ''}".strip(),
                f"{row['health_score']:.2f}",
                _why(row["health"]),
                row["load"]["requests_running"],
                row["load"]["requests_waiting"],
                row["last_heartbeat_at"],
            )
            for row in rows
        ),
        nothing="there are no nodes",
    )


@app.command()
@with_management
def register(
    api: Management,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Base URL of the node, `http://host:port`.")],
    model: Annotated[list[str] | None, typer.Option(help="Model it serves; repeatable.")] = None,
    engine: Annotated[str, typer.Option(help="vllm, sglang, ollama, llamacpp or openai.")] = "openai",
    node_id: Annotated[str | None, typer.Option("--id", help="Id of its own; made for it when absent.")] = None,
    region: Annotated[str, typer.Option(help="Region.")] = "local",
    cloud: Annotated[str, typer.Option(help="Provider.")] = "local",
    gpu_type: Annotated[str | None, typer.Option(help="GPU type.")] = None,
    gpu_count: Annotated[int, typer.Option(min=0, help="Number of GPUs.")] = 1,
    spot: Annotated[bool, typer.Option("--spot", help="May be taken away at short notice.")] = False,
    deployment: Annotated[str | None, typer.Option(help="Deployment that it is a part of, `dep_…`.")] = None,
    node_key: Annotated[
        str | None, typer.Option(envvar="CROSSLOGIC_NODE_KEY", help="Key that the node itself asks for.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Register a node. It takes requests until its heartbeats stop."""
    body = given(
        endpoint_url=endpoint,
        model_list=model or [],
        backend=engine,
        node_id=node_id,
        region=region,
        cloud=cloud,
        gpu_type=gpu_type,
        gpu_count=gpu_count,
        spot=spot,
        deployment_id=deployment,
        api_key=node_key,
    )
    row = api.post("/admin/nodes/register", body)
    _tell(row, as_json)


@app.command()
@with_management
def drain(
    api: Management,
    node_id: Annotated[str, typer.Argument(help="The node's id.")],
    as_json: JsonOption = False,
) -> None:
    """Give a node nothing new; what runs on it is finished."""
    row = api.post(f"/admin/nodes/{node_id}/drain")
    _tell(row, as_json)


def _why(health: dict[str, Any]) -> str:
    """What is wrong with a node; nothing of a healthy one."""
    if health["symptom"] is None:
        return ""
    return f"{health['symptom']}{', ejected' if health['ejected'] else ''}: {health['detail']}"


def _tell(row: dict[str, Any], as_json: bool) -> None:
    print_done(row, f"{row['node_id']} is {row['status']}", as_json=as_json)
