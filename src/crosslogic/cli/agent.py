"""`crosslogic agent`: one node of the fleet, beside its engine."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from crosslogic.agent.model import AgentOptions, EngineName, EngineOptions, MetadataAddresses, WeightsOptions
from crosslogic.agent.run import data_directory, run_agent
from crosslogic.agent.tunnel import gateway_address
from crosslogic.agent.upgrade import start_anew
from crosslogic.cli.flags import given
from crosslogic.cli.options import ConfigOption, read_settings
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings import Settings
from crosslogic.telemetry.log import configure_logging


def agent(
    engine_arguments: Annotated[
        list[str] | None, typer.Argument(metavar="-- ENGINE OPTIONS", help="Passed on to the engine.")
    ] = None,
    config: ConfigOption = None,
    control: Annotated[str | None, typer.Option(metavar="URL", help="Address of the management API.")] = None,
    token: Annotated[
        str | None, typer.Option(help="Join token, for the first start; better in CROSSLOGIC_AGENT__TOKEN.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where key and certificate are kept.")] = None,
    node_id: Annotated[str | None, typer.Option(help="Id of its own.")] = None,
    engine: Annotated[EngineName | None, typer.Option(help="Engine to run.")] = None,
    engine_url: Annotated[str | None, typer.Option(help="Watch an engine that runs already, instead.")] = None,
    host: Annotated[str | None, typer.Option(help="Address that the engine listens on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port that the engine listens on.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to serve.")] = None,
    deployment: Annotated[str | None, typer.Option(help="Deployment that it is a part of, `dep_…`.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="How gateways reach the engine.")] = None,
    tunnel: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Dial this gateway's tunnel port, for it to reach the engine; repeat."),
    ] = None,
    spot: Annotated[bool | None, typer.Option("--spot/--no-spot", help="May be taken away at short notice.")] = None,
    cloud: Annotated[str | None, typer.Option(help="aws, gcp, azure or local.  [default: ask]")] = None,
    benchmark: Annotated[
        bool | None, typer.Option("--benchmark/--no-benchmark", help="Measure the engine first.")
    ] = None,
) -> None:
    """Run a node: join the fleet, keep an engine running, report how it does. SIGTERM drains and leaves."""
    flags: dict[str, Any] = given(
        control=control,
        token=token,
        data_dir=data_dir,
        node_id=node_id,
        engine=None if engine is None else engine.value,
        engine_url=engine_url,
        engine_host=host,
        engine_port=port,
        model=model,
        deployment=deployment,
        endpoint=endpoint,
        tunnel=tuple(tunnel) if tunnel else None,
        spot=spot,
        cloud=cloud,
        benchmark=benchmark,
        engine_arguments=tuple(engine_arguments) if engine_arguments else None,
    )
    settings = read_settings(config, flags={"agent": flags} if flags else {})
    options = agent_options(settings)
    data_directory(options.data_dir)
    writer = configure_logging(
        _write_stderr, level=settings.log.level, style="console" if sys.stderr.isatty() else "json"
    )
    try:
        ending = asyncio.run(run_agent(options))
    finally:
        writer.close()
    if ending.start_anew:
        start_anew(sys.argv[1:])
    raise typer.Exit(ending.code)


def agent_options(settings: Settings) -> AgentOptions:
    """What the settings make of the agent. Raises ConfigurationError."""
    said = settings.agent
    if said.control is None:
        raise ConfigurationError("the agent needs the address of control; give --control URL")
    engine = EngineOptions(
        name=EngineName(said.engine),
        model=said.model,
        host=said.engine_host,
        port=said.engine_port,
        arguments=said.engine_arguments,
        command=said.engine_command,
        url=None if said.engine_url is None else said.engine_url.rstrip("/").removesuffix("/v1"),
        api_key=None if said.engine_key is None else said.engine_key.get_secret_value(),
    )
    weights = None
    if said.weights.source is not None:
        weights = WeightsOptions(
            said.weights.source,
            said.weights.dir or said.data_dir / "weights",
            said.weights.sha256,
            said.weights.max_bytes,
        )
    return AgentOptions(
        weights=weights,
        control_url=said.control,
        data_dir=said.data_dir,
        engine=engine,
        token=None if said.token is None else said.token.get_secret_value(),
        node_id=said.node_id,
        endpoint_url=said.endpoint,
        gateways=tuple(gateway_address(text) for text in said.tunnel),
        region=said.region,
        deployment_id=said.deployment,
        cloud=said.cloud,
        spot=said.spot,
        metadata=MetadataAddresses(said.metadata.aws_url, said.metadata.gcp_url, said.metadata.azure_url),
        metadata_timeout_s=said.metadata.timeout_s,
        spot_poll_s=said.spot_poll_s,
        metrics_interval_s=said.metrics_interval_s,
        drain_s=said.drain_s,
        benchmark=said.benchmark,
        environment={
            name: value for name, value in settings.source.environ.items() if not name.startswith("CROSSLOGIC_")
        },
    )


def _write_stderr(lines: bytes) -> None:
    sys.stderr.buffer.write(lines)
    sys.stderr.buffer.flush()
