"""One gateway worker process: serves on a socket that its parent bound, until told to stop or until the parent dies."""

import asyncio
import logging
import signal
import socket
from contextlib import AsyncExitStack
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import CrossLogicError
from crosslogic.metering.journal import FileJournal
from crosslogic.net.server import HttpServer
from crosslogic.queueing.board.redis import BoardReporter
from crosslogic.settings.model import Settings
from crosslogic.settings.watch import SettingsWatcher
from crosslogic.store.engine import create_engine
from crosslogic.telemetry.log import LogWriter
from crosslogic.telemetry.metrics import SCHEMA, Metrics
from crosslogic.telemetry.slots import Slots
from crosslogic.tunnel.entrance import Receiving
from crosslogic.wiring import translate
from crosslogic.wiring.answers import new_answers
from crosslogic.wiring.cache_orders import obey_orders
from crosslogic.wiring.checks import database_check, journal_check
from crosslogic.wiring.gateway import GatewayProcess
from crosslogic.wiring.limiter import new_limiter
from crosslogic.wiring.process import Background, run_until_stopped, settle_memory, start_logging
from crosslogic.wiring.redis import redis_connection
from crosslogic.wiring.tunnels import Tunnels

log = logging.getLogger(__name__)


def run_worker(
    settings: Settings,
    number: int,
    workers: int,
    sock: socket.socket,
    metrics_dir: Path,
    ready: Connection,
    tunnels: socket.socket | None = None,
) -> None:
    """Entry point of the child process; `ready` is told once the worker serves, agents' connections come by
    `tunnels`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too, but is for the parent, which lets us drain
    raise SystemExit(
        run_until_stopped(
            lambda stop: _worker(settings, number, workers, sock, metrics_dir, ready, tunnels, stop),
            signals=(signal.SIGTERM,),
        )
    )


async def _worker(
    settings: Settings,
    number: int,
    workers: int,
    sock: socket.socket,
    metrics_dir: Path,
    ready: Connection,
    tunnels: socket.socket | None,
    stop: asyncio.Event,
) -> int:
    _watch_parent(stop)
    lines = start_logging(settings.log)
    async with AsyncExitStack() as stack:
        stack.callback(lines.close)
        try:
            await _start(settings, number, workers, sock, metrics_dir, tunnels, stop, stack, lines)
        except (CrossLogicError, SQLAlchemyError, OSError) as error:
            log.error(
                "worker %d cannot start: %s", number, error if isinstance(error, CrossLogicError) else type(error)
            )
            return 1
        settle_memory()
        ready.send_bytes(b"ready")
        await stop.wait()
    return 0


async def _start(
    settings: Settings,
    number: int,
    workers: int,
    sock: socket.socket,
    metrics_dir: Path,
    channel: socket.socket | None,
    stop: asyncio.Event,
    stack: AsyncExitStack,
    lines: LogWriter,
) -> None:
    """Build and start everything; each part puts its end on `stack`, to be undone in reverse."""
    engine = create_engine(settings.database_url(), pool_size=2)
    stack.push_async_callback(engine.dispose)
    journal = await FileJournal.open(settings.journal_dir(), f"worker{number}", clock=SystemClock())
    background = Background(stop)
    metrics = Metrics(Slots(metrics_dir, number, schema=SCHEMA))
    journal.on_commit = metrics.journal_committed
    lines.on_dropped = metrics.log_dropped
    checks = {"database": database_check(engine), "journal": journal_check(journal)}
    redis = await redis_connection(settings, stack, checks)
    answers = await new_answers(settings, stack, metrics)
    tunnels = None if channel is None else Tunnels(settings, engine, worker=number, workers=workers)
    gateway = GatewayProcess(
        settings,
        engine=engine,
        journal=journal,
        limiter=new_limiter(settings, redis, metrics.limiter_degraded),
        redis=redis,
        answers=answers,
        workers=workers,
        tunnels=tunnels,
        metrics=metrics,
        log=lines,
        background=background,
        checks=checks,
    )
    stack.push_async_callback(gateway.close)
    stack.push_async_callback(background.close)
    await gateway.start()
    if channel is not None and tunnels is not None:
        stack.callback(Receiving(channel, tunnels.hub.accept).close)
    await obey_orders(answers.cache, engine, background)
    if redis is not None and settings.enable_queuing:
        background.start("queue board", BoardReporter(gateway.queue, redis).run())
    background.start("settings", SettingsWatcher(settings, gateway.apply).run())
    server = HttpServer(gateway.handler, translate.server_limits(settings), translate.trusted_proxies(settings))
    await server.listen(sock=sock)
    stack.push_async_callback(server.close, settings.server.drain_s)


def _watch_parent(stop: asyncio.Event) -> None:
    """A parent that was killed cannot stop its workers: each notices by itself."""
    parent = parent_process()
    if parent is not None:
        asyncio.get_running_loop().add_reader(parent.sentinel, stop.set)
