"""`crosslogic gateway`: the edge, as worker processes that share one port."""

import asyncio
from typing import Annotated

import typer

from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.cli.preflight import raise_open_files, require_directory, require_port
from crosslogic.cli.servers import redis_state, require_database
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings import Settings
from crosslogic.wiring.tunnels import gateway_pem
from crosslogic.wiring.workers import run_gateway

app = typer.Typer(add_completion=False)


@app.command()
def gateway(
    config: ConfigOption = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; one for each core.")] = 1,
) -> None:
    """Run gateway workers: the OpenAI-compatible edge. SIGTERM drains and stops them."""
    settings = read_settings(config)
    require_gateway(settings, workers)
    raise_open_files()
    run_gateway(settings, workers)


def require_gateway(settings: Settings, workers: int) -> None:
    """All that the workers need is there. Raises ConfigurationError."""
    redis_url = settings.redis.address()
    if workers > 1 and redis_url is None and settings.enable_rate_limit:
        raise ConfigurationError(
            f"{workers} workers need Redis, so that limits hold over all of them; set redis.url (REDIS_HOST), "
            "use one worker, or set enable_rate_limit: false"
        )
    require_port(settings.server.host, settings.server.port, setting="server.port (SERVER_PORT)")
    if settings.server.tunnel_port is not None:
        require_port(settings.server.tunnel_listen, settings.server.tunnel_port, setting="server.tunnel_port")
        gateway_pem(settings, SystemClock())
    asyncio.run(_require_servers(settings.database_url(), redis_url))
    require_directory(settings.journal_dir())


async def _require_servers(database_url: str, redis_url: str | None) -> None:
    await require_database(database_url)
    if redis_url is not None:
        await redis_state(redis_url)
