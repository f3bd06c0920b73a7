"""`crosslogic gateway`: the parent of the workers. It binds the port, keeps the workers alive, and moves their journals
to the ledger; it never touches a request."""

import asyncio
import contextlib
import logging
import random
import socket
import sys
from contextlib import AsyncExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from crosslogic.jobs.runner import JobRunner
from crosslogic.jobs.table import metering_jobs
from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.flush import JournalFlusher
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.live.boards import LiveReporter
from crosslogic.pricing.sync import PublishedPrices
from crosslogic.settings.model import Settings
from crosslogic.settings.reload import Reloadable
from crosslogic.settings.watch import SettingsWatcher
from crosslogic.store.engine import DATABASE_ERRORS, create_engine
from crosslogic.telemetry.metrics import SCHEMA, Metrics
from crosslogic.telemetry.slots import Slots, remove, shared_directory
from crosslogic.tunnel.entrance import Entrance, Passing
from crosslogic.wiring import translate
from crosslogic.wiring.billed import counting, watching
from crosslogic.wiring.coordination import Presence
from crosslogic.wiring.process import Background, run_until_stopped, start_logging
from crosslogic.wiring.scrape import serve_metrics
from crosslogic.wiring.worker import run_worker

FIRST_RESTART_S = 0.1
LONGEST_RESTART_S = 5.0
PARENT = -1  # its place among the workers' metrics
STEADY_S = 10.0  # a worker that lived this long is restarted without delay

log = logging.getLogger(__name__)


def run_gateway(settings: Settings, workers: int) -> None:
    """Run until SIGINT or SIGTERM; ends the process."""
    sys.exit(run_until_stopped(lambda stop: _gateway(settings, workers, stop)))


async def _gateway(settings: Settings, workers: int, stop: asyncio.Event) -> int:
    lines = start_logging(settings.log)
    async with AsyncExitStack() as stack:
        stack.callback(lines.close)
        sock = _bind(settings.server.host, settings.server.port)
        stack.callback(sock.close)
        passing = await _tunnel_entrance(settings, workers, stack)
        metrics_dir = shared_directory()
        stack.callback(remove, metrics_dir)
        slots = Slots(metrics_dir, PARENT, schema=SCHEMA)
        await serve_metrics(settings, slots, stack)
        engine = create_engine(settings.database_url(), pool_size=2)
        stack.push_async_callback(engine.dispose)
        prices = [translate.price_book(settings.prices, settings.regions)]
        metrics, clock = Metrics(slots), SystemClock()
        lines.on_dropped = metrics.log_dropped
        ledger = Ledger(engine, published=PublishedPrices(engine), on_added=counting(metrics))
        flusher = JournalFlusher(settings.journal_dir(), ledger, lambda: prices[-1], clock, watching(metrics, clock))
        stack.push_async_callback(_flush_last, flusher)
        background = Background(stop)
        stack.push_async_callback(background.close)

        def reload(changed: Reloadable) -> None:
            prices[:] = [translate.price_book(changed.prices, settings.regions)]

        background.start("settings", SettingsWatcher(settings, reload).run())
        presence = Presence(engine, "gateway", f"{settings.server.host}:{sock.getsockname()[1]}")
        presence.start(background)
        with contextlib.suppress(*DATABASE_ERRORS):  # the month's spend is to be whole before anybody is served
            await flusher.flush()
        background.start("jobs", JobRunner(metering_jobs(flusher), SystemClock(), random.Random()).run())
        background.start("live usage", LiveReporter(engine, presence.id, flusher.running).run())
        crew = [_Worker(settings, number, workers, sock, metrics_dir, passing) for number in range(workers)]
        keeping = [asyncio.create_task(worker.keep(stop)) for worker in crew]
        first = asyncio.gather(*(worker.first_start.wait() for worker in crew))
        done, _ = await asyncio.wait((first, asyncio.ensure_future(stop.wait())), return_when=asyncio.FIRST_COMPLETED)
        if first in done:
            sys.stdout.write(
                f"gateway on http://{settings.server.host}:{sock.getsockname()[1]} with {workers} worker(s)\n"
            )
            sys.stdout.flush()
        await stop.wait()
        sock.close()  # as long as one process has it open, callers could still connect, and would wait for nobody
        first.cancel()
        await asyncio.gather(*keeping)
    return 0


class _Worker:
    """One place in the crew: a process, and another one when it dies."""

    def __init__(
        self,
        settings: Settings,
        number: int,
        workers: int,
        sock: socket.socket,
        metrics_dir: Path,
        passing: Passing | None,
    ) -> None:
        self._passing = passing
        self._settings = settings
        self._number = number
        self._workers = workers
        self._sock = sock
        self._metrics_dir = metrics_dir
        self.first_start = asyncio.Event()

    async def keep(self, stop: asyncio.Event) -> None:
        """Run the worker, again and again, until `stop`; then let it drain."""
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while not stop.is_set():
            process, ready = self._spawn()
            loop.add_reader(ready.fileno(), self._heard, ready)
            began_s = loop.time()
            ended = asyncio.Event()
            loop.add_reader(process.sentinel, ended.set)
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait((asyncio.ensure_future(ended.wait()), stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if stop.is_set():
                process.terminate()
                await self._drained(process, ended)
            loop.remove_reader(process.sentinel)
            loop.remove_reader(ready.fileno())
            ready.close()
            process.join()
            if stop.is_set():
                return
            steady = loop.time() - began_s >= STEADY_S
            pause_s = 0.0 if steady else min(max(FIRST_RESTART_S, pause_s * 2), LONGEST_RESTART_S)
            log.error("worker %d ended with code %s; starting it again", self._number, process.exitcode)
            await _sleep_unless(stop, pause_s)

    def _spawn(self) -> tuple[SpawnProcess, Connection]:
        context = get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        tunnels = None if self._passing is None else self._passing.channel(self._number)
        process = context.Process(
            target=run_worker,
            args=(self._settings, self._number, self._workers, self._sock, self._metrics_dir, theirs, tunnels),
            name=f"crosslogic-worker-{self._number}",
        )
        process.start()
        theirs.close()
        if tunnels is not None:
            tunnels.close()
        return process, ours

    def _heard(self, ready: Connection) -> None:
        try:
            ready.recv_bytes()
        except EOFError:
            asyncio.get_running_loop().remove_reader(ready.fileno())
            return
        self.first_start.set()

    async def _drained(self, process: SpawnProcess, ended: asyncio.Event) -> None:
        try:
            await asyncio.wait_for(ended.wait(), self._settings.server.drain_s + 5.0)
        except TimeoutError:
            process.kill()
            await ended.wait()


def _bind(host: str, port: int) -> socket.socket:
    """The socket that all workers accept on. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    sock.setblocking(False)
    return sock


async def _tunnel_entrance(settings: Settings, workers: int, stack: AsyncExitStack) -> Passing | None:
    """Where agents dial; what they open goes to the workers. Raises OSError."""
    if settings.server.tunnel_port is None:
        return None
    passing = Passing(workers)
    stack.callback(passing.close)
    entrance = Entrance(passing.accept)
    stack.push_async_callback(entrance.close)
    port = entrance.listen(settings.server.tunnel_listen, settings.server.tunnel_port)
    log.info("tunnels are let in at port %d", port)
    return passing


async def _flush_last(flusher: JournalFlusher) -> None:
    """What the workers wrote last; a database that is away gets it at the next start."""
    try:
        await flusher.flush()
    except DATABASE_ERRORS:
        log.warning("the last usage records stay in the journal: the database is away")


async def _sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
