"""`crosslogic up`: the whole cloud in one process, for a laptop or a first look."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from crosslogic.cli.flags import given
from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.cli.preflight import (
    directory_held,
    raise_open_files,
    require_directory,
    require_place_for,
    require_port,
)
from crosslogic.cli.servers import database_state, redis_state
from crosslogic.settings import Settings
from crosslogic.settings.options import UpOptions
from crosslogic.wiring.embedded import run_up

SIMULATED_NODES = 2
# Nobody else's business, unless the configuration says so.
DEFAULTS = {"server": {"host": "127.0.0.1"}}

app = typer.Typer(add_completion=False)


@app.command()
def up(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.  [default: 8080]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where to keep files.  [default: .crosslogic]")] = None,
    nodes: Annotated[
        int | None, typer.Option(min=0, max=64, help="Simulated nodes.  [default: 2, or 0 with --node]")
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A running vLLM, SGLang, Ollama, llama.cpp or other server; repeatable."),
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Gets base_url, api_key, admin_key and models as JSON once all is ready.")
    ] = None,
) -> None:
    """Run the whole cloud in this terminal, on one port, with nothing to install. Ctrl-C drains and stops it."""
    flags: dict[str, Any] = given(data_dir=data_dir, server=given(host=host, port=port) or None)
    if node:
        flags["nodes"] = [{"endpoint": url} for url in node]
    settings = read_settings(config, flags=flags, defaults=DEFAULTS, embedded=True)
    if nodes is None:
        nodes = 0 if settings.nodes else SIMULATED_NODES
    require_port(settings.server.host, settings.server.port, setting="--port")
    if settings.control.agent_port is not None:
        require_port(settings.control.agent_listen, settings.control.agent_port, setting="control.agent_port")
    if settings.server.tunnel_port is not None:
        require_port(settings.server.tunnel_listen, settings.server.tunnel_port, setting="server.tunnel_port")
    if ready_file is not None:
        require_place_for(ready_file, setting="--ready-file")
    asyncio.run(_require_servers(settings))
    require_directory(settings.data_dir)
    raise_open_files()
    with directory_held(settings.data_dir):
        run_up(settings, UpOptions(simulated_nodes=nodes, ready_file=ready_file))


async def _require_servers(settings: Settings) -> None:
    """A database or Redis that the configuration names must be there; by default there is none to ask."""
    if not settings.database_url().startswith("sqlite"):
        await database_state(settings.database_url())
    redis_url = settings.redis.address()
    if redis_url is not None:
        await redis_state(redis_url)
