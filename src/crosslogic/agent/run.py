"""The agent as a process: joins if it has to, runs until its node has left, and ends in order on SIGTERM.

Exit codes: 0 drained and left; 2 control refuses this machine, or the configuration is wrong (trying again would not
help, and systemd is told so).
"""

import asyncio
import logging
import random
import re
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from crosslogic.agent import backoff
from crosslogic.agent.commands import command
from crosslogic.agent.disk import clean_up
from crosslogic.agent.engine import EngineProcess
from crosslogic.agent.joining import join
from crosslogic.agent.keeper import EngineKeeper
from crosslogic.agent.log_stream import LogStream
from crosslogic.agent.metadata import Metadata
from crosslogic.agent.model import AgentOptions, EngineName, Place
from crosslogic.agent.papers import Papers, read_papers, write_papers
from crosslogic.agent.service import Agent, Ending
from crosslogic.agent.weights import fetch_weights
from crosslogic.fleet.endpoint import tunnel_endpoint
from crosslogic.fleet.fetch import HttpFetch
from crosslogic.kernel.errors import ConfigurationError, Unavailable

ENGINE_LOG = "engine.log"
ENGINE_PID = "engine.json"

_log = logging.getLogger(__name__)


async def run_agent(options: AgentOptions) -> Ending:
    """Raises ConfigurationError before anything is started, where it can."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    engine_process(options)  # a command line that cannot be made is told before anything happens
    papers = await _papers(options, stop)
    if papers is None:
        return Ending()
    options = await _with_weights(options, stop)
    if stop.is_set():
        return Ending()
    process = engine_process(options)
    logs = LogStream()
    logging.getLogger("crosslogic.agent").addHandler(logs)
    async with (
        HttpFetch() as fetch,
        Metadata(options.metadata, options.metadata_timeout_s) as metadata,
    ):
        place = await _place(options, papers, metadata)
        keeper = EngineKeeper(options, fetch, process)
        endpoint_url = options.endpoint_url or _endpoint_url(options, papers)
        agent = Agent(options, papers, keeper, metadata, place, endpoint_url, logs)
        _log.info("node %s at %s, in %s %s", papers.node_id, endpoint_url, place.cloud, place.zone or papers.region)
        stopping = asyncio.create_task(_drain_on(stop, agent))
        following = asyncio.create_task(logs.follow(options.data_dir / ENGINE_LOG))
        try:
            return await agent.run()
        finally:
            for task in (stopping, following):
                task.cancel()
            logging.getLogger("crosslogic.agent").removeHandler(logs)


def engine_process(options: AgentOptions) -> EngineProcess | None:
    """The engine to start; None where one that runs already is watched. Raises ConfigurationError."""
    if options.engine.url is not None:
        return None
    words, environment = command(options.engine)
    return EngineProcess(
        words,
        {**options.environment, **environment},
        log_path=options.data_dir / ENGINE_LOG,
        pid_path=options.data_dir / ENGINE_PID,
    )


async def _papers(options: AgentOptions, stop: asyncio.Event) -> Papers | None:
    """Those of an earlier start, as long as they are valid, else new ones; None when stopped meanwhile."""
    known = read_papers(options.data_dir)
    if known is not None and known.is_valid(datetime.now(UTC)):
        return known
    if options.token is None:
        if known is not None:
            raise ConfigurationError("the certificate of this node has expired; give a new join token with --token")
        raise ConfigurationError(
            "this machine has not joined yet; make a token with `crosslogic nodes token create`, and give it as --token"
        )
    node_id = options.node_id or (known.node_id if known is not None else "")
    failures = 0
    while not stop.is_set():
        try:
            papers = await join(options.control_url, options.token, node_id)
        except Unavailable as error:
            failures += 1
            if failures == 1:
                _log.warning("%s; trying on", error)
            await asyncio.sleep(backoff.pause_s(failures, random.random()))
            continue
        write_papers(options.data_dir, papers)
        _log.info("joined as node %s", papers.node_id)
        return papers
    return None


async def _with_weights(options: AgentOptions, stop: asyncio.Event) -> AgentOptions:
    """Fetch the weights, if there are any to be fetched: for as long as it takes, or until stopped."""
    wanted = options.weights
    if wanted is None:
        return options
    target = wanted.directory / (re.sub(r"[^A-Za-z0-9._-]+", "--", options.engine.model).strip(".") or "model")
    failures = 0
    while not stop.is_set():
        try:
            if wanted.budget_bytes is not None:
                await asyncio.to_thread(clean_up, wanted.directory, wanted.budget_bytes, target)
            await asyncio.to_thread(fetch_weights, wanted.source, target, wanted.checksums)
        except Unavailable as error:
            failures += 1
            _log.warning("%s; trying on", error)
            await asyncio.sleep(backoff.pause_s(failures, random.random()))
            continue
        if wanted.budget_bytes is not None:
            await asyncio.to_thread(clean_up, wanted.directory, wanted.budget_bytes, target)
        break
    path = target
    if options.engine.name is EngineName.LLAMACPP:  # wants a file, of which there is one in its folder
        path = min(target.rglob("*.gguf"), default=target)
    return msgspec.structs.replace(options, engine=msgspec.structs.replace(options.engine, weights=path))


async def _place(options: AgentOptions, papers: Papers, metadata: Metadata) -> Place:
    place = Place() if options.cloud == "local" else await metadata.place(options.cloud)
    if options.spot is not None:
        place = msgspec.structs.replace(place, spot=options.spot)
    return msgspec.structs.replace(place, region=papers.region or options.region or place.region)


async def _drain_on(stop: asyncio.Event, agent: Agent) -> None:
    await stop.wait()
    agent.drain("stopped")


def _endpoint_url(options: AgentOptions, papers: Papers) -> str:
    """How others reach the engine: through the tunnel, or at the address by which this machine reaches control."""
    parts = urlsplit(options.engine.base_url)
    if options.gateways:
        return tunnel_endpoint(papers.node_id, parts.path)
    if parts.hostname not in ("127.0.0.1", "localhost", "::1") or papers.control_host in ("127.0.0.1", "localhost"):
        return options.engine.base_url
    address = _own_address(papers.control_host, papers.control_port)
    host = f"[{address}]" if ":" in address else address
    return f"{parts.scheme}://{host}:{parts.port or 80}{parts.path}"


def _own_address(host: str, port: int) -> str:
    """Nothing is sent: connecting a datagram socket only asks the routing table."""
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(info[0], info[1]) as probe:
            probe.connect(info[4])
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def data_directory(path: Path) -> None:
    """Raises ConfigurationError."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationError(f"the data directory {path} cannot be made: {error.strerror}") from None
