"""`crosslogic migrate`: the only way to a new schema in production; nothing migrates by itself at start."""

import asyncio
from typing import Annotated

import typer

from crosslogic.cli.flags import JsonOption
from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.cli.output import print_json
from crosslogic.cli.preflight import require_directory
from crosslogic.cli.servers import database_state
from crosslogic.store.engine import create_engine
from crosslogic.store.migrate import upgrade

app = typer.Typer(add_completion=False)


@app.command()
def migrate(
    config: ConfigOption = None,
    status: Annotated[bool, typer.Option("--status", help="Only say what is pending; exit 1 if anything is.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the database to the schema of this version. Old and new version both work with it meanwhile."""
    settings = read_settings(config)
    url = settings.database_url()
    if settings.database.address() is None:
        require_directory(settings.data_dir)
    pending = asyncio.run(database_state(url)).pending
    if status:
        if as_json:
            print_json({"pending": pending})
        else:
            typer.echo("\n".join(f"pending: {name}" for name in pending) or "the database is up to date")
        raise typer.Exit(int(bool(pending)))
    if pending:
        asyncio.run(_upgrade(url))
    if as_json:
        print_json({"applied": pending})
    else:
        typer.echo("\n".join(f"applied: {name}" for name in pending) or "the database is up to date")


async def _upgrade(url: str) -> None:
    engine = create_engine(url, pool_size=1)
    try:
        await upgrade(engine)
    finally:
        await engine.dispose()
