"""`crosslogic control`: management API, node registry and periodic jobs."""

import asyncio

import typer

from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.cli.preflight import raise_open_files, require_directory, require_port
from crosslogic.cli.servers import require_database
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings import Settings
from crosslogic.wiring.control import run_control

app = typer.Typer(add_completion=False)


@app.command()
def control(config: ConfigOption = None) -> None:
    """Run the management API, node registry and periodic jobs. SIGTERM stops them."""
    settings = read_settings(config)
    require_control(settings)
    raise_open_files()  # three for each agent
    run_control(settings)


def require_control(settings: Settings) -> None:
    """All that control needs is there. Raises ConfigurationError."""
    if settings.auth.admin_key is None:
        raise ConfigurationError(
            "the management API needs an admin key; set CROSSLOGIC_AUTH__ADMIN_KEY to a long random text"
        )
    require_port(settings.control.host, settings.control.port, setting="control.port")
    if settings.control.agent_port is not None:
        require_port(settings.control.agent_listen, settings.control.agent_port, setting="control.agent_port")
    require_directory(settings.data_dir)
    asyncio.run(require_database(settings.database_url()))
