"""`crosslogic nodes tunnel-certificate`: what a gateway on another machine shows to agents that dial it."""

from pathlib import Path
from typing import Annotated

import typer

from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.cli.preflight import require_place_for
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.tunnel.wire import GATEWAY_NAME
from crosslogic.wiring.authority import has_authority, read_or_create_authority
from crosslogic.wiring.credentials import write_private


def tunnel_certificate(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write it, readable by its owner only.")],
    config: ConfigOption = None,
) -> None:
    """Make key and certificate of a gateway for tunnels, good for 90 days. Run it on control's machine."""
    settings = read_settings(config)
    directory = settings.data_dir / "ca"
    if not has_authority(settings.control, directory):
        raise ConfigurationError(f"there is no CA in {directory}; start control with control.agent_port once")
    require_place_for(out, setting="--out")
    clock = SystemClock()
    authority = read_or_create_authority(settings.control, directory, clock)
    write_private(out, authority.server_pem(clock.now(), GATEWAY_NAME))
    typer.echo(f"{out}: set server.tunnel_certificate_file to it on the gateway")
