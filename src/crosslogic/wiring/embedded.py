"""`crosslogic up`: the whole cloud as one process on one port, with SQLite, in-process limits and simulated nodes."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.gateway.upstream import FORWARDED_HEADERS
from crosslogic.jobs.table import control_jobs, metering_jobs, spending_jobs
from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.flush import JournalFlusher
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.live.boards import MemoryLive
from crosslogic.net.asgi import AsgiBridge
from crosslogic.net.server import HttpServer
from crosslogic.pricing.book import PriceBook
from crosslogic.pricing.sync import PublishedPrices
from crosslogic.queueing.board.memory import MemoryBoard
from crosslogic.settings.model import Settings
from crosslogic.settings.options import UpOptions
from crosslogic.settings.reload import Reloadable
from crosslogic.settings.watch import SettingsWatcher
from crosslogic.store import migrate
from crosslogic.store.engine import create_engine
from crosslogic.telemetry.log import LogWriter
from crosslogic.telemetry.metrics import SCHEMA, Metrics
from crosslogic.telemetry.slots import Slots
from crosslogic.tenancy.bootstrap import ensure_bootstrap
from crosslogic.tenancy.keys import KeyKind, generate
from crosslogic.tunnel.entrance import Entrance
from crosslogic.wiring import translate
from crosslogic.wiring.answers import new_answers
from crosslogic.wiring.banner import banner
from crosslogic.wiring.billed import counting, watching
from crosslogic.wiring.checks import database_check, journal_check
from crosslogic.wiring.coordination import Alone
from crosslogic.wiring.credentials import Credentials, read_credentials, write_credentials, write_private
from crosslogic.wiring.gateway import GatewayProcess
from crosslogic.wiring.limiter import new_limiter
from crosslogic.wiring.management import Management
from crosslogic.wiring.process import Background, run_until_stopped, settle_memory, start_logging
from crosslogic.wiring.redis import redis_connection
from crosslogic.wiring.scrape import serve_metrics
from crosslogic.wiring.simulated import SimulatedNodes
from crosslogic.wiring.tunnels import Tunnels

NODES_TIMEOUT_S = 10.0
_FAULT_HEADER = b"x-simulate-fault"  # simulated nodes may be told to fail, through the gateway too


class Ready(msgspec.Struct):
    """What the ready file holds."""

    base_url: str
    api_key: str
    admin_key: str
    models: list[str]


def run_up(settings: Settings, options: UpOptions) -> None:
    """Run until SIGINT or SIGTERM, or until its terminal is closed; ends the process."""
    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    sys.exit(run_until_stopped(lambda stop: _up(settings, options, stop), ends))


async def _up(settings: Settings, options: UpOptions, stop: asyncio.Event) -> int:
    log = start_logging(settings.log)
    async with AsyncExitStack() as stack:
        stack.callback(log.close)
        cloud = _EmbeddedCloud(settings, options, stop, stack, log)
        ready = await cloud.start()
        settle_memory()
        if options.ready_file is not None:
            write_private(options.ready_file, msgspec.json.encode(ready))
        sys.stdout.write(banner(ready))
        sys.stdout.flush()
        await stop.wait()
        sys.stdout.write("\nstopping: running answers may finish\n")
        sys.stdout.flush()
    return 0


class _EmbeddedCloud:
    """Each started part puts its end on `stack`, so that a start that fails half-way leaves nothing behind."""

    def __init__(
        self, settings: Settings, options: UpOptions, stop: asyncio.Event, stack: AsyncExitStack, log: LogWriter
    ) -> None:
        self._settings = settings
        self._options = options
        self._stop = stop
        self._stack = stack
        self._log = log
        self._prices = translate.price_book(settings.prices, settings.regions)

    async def start(self) -> Ready:
        settings, stack = self._settings, self._stack
        simulated = SimulatedNodes(self._options.simulated_nodes)
        starting = asyncio.create_task(simulated.start())
        stack.push_async_callback(simulated.stop)

        engine = create_engine(settings.database_url(), pool_size=settings.database.pool_size)
        stack.push_async_callback(engine.dispose)
        await migrate.upgrade(engine)
        background = Background(self._stop)
        journal = await FileJournal.open(settings.journal_dir(), "gateway", clock=SystemClock())
        checks = {"database": database_check(engine), "journal": journal_check(journal)}
        alone = Alone(f"{settings.server.host}:{settings.server.port}")
        board, live = MemoryBoard(), MemoryLive()
        metrics = Metrics(Slots(schema=SCHEMA))
        metrics.control_leads(True)
        journal.on_commit = metrics.journal_committed
        self._log.on_dropped = metrics.log_dropped
        management = Management(
            settings,
            engine=engine,
            background=background,
            checks=checks,
            coordination=alone,
            queues=board,
            live=live,
            metrics=metrics,
        )
        stack.push_async_callback(management.close)
        credentials = await self._credentials(management)
        await serve_metrics(settings, metrics.slots, stack)

        redis = await redis_connection(settings, stack, checks)
        answers = await new_answers(settings, stack, metrics)
        tunnels = None if settings.server.tunnel_port is None else Tunnels(settings, engine)
        gateway = GatewayProcess(
            settings,
            engine=engine,
            journal=journal,
            limiter=new_limiter(settings, redis, metrics.limiter_degraded),
            redis=redis,
            answers=answers,
            tunnels=tunnels,
            metrics=metrics,
            log=self._log,
            background=background,
            checks=checks,
            following=AsgiBridge(management.app(credentials.admin_key or "", answers.cache)),
            forwarded_headers=(*FORWARDED_HEADERS, _FAULT_HEADER)
            if self._options.simulated_nodes
            else FORWARDED_HEADERS,
        )
        board.show(gateway.queue)
        flusher = self._new_flusher(engine, metrics)
        live.show(flusher.running)
        # Undone in reverse: drain the server, stop background work, close the journal, move the last of it.
        stack.push_async_callback(flusher.flush)
        stack.push_async_callback(gateway.close)
        stack.push_async_callback(background.close)

        static_nodes = [translate.static_node(node) for node in settings.nodes]
        static_nodes += [translate.simulated_node(url) for url in await starting]
        jobs = (*metering_jobs(flusher), *control_jobs(engine, SystemClock()), *spending_jobs(management.spending_caps))
        await flusher.flush()  # the month's spend is to be whole before anybody is served
        await management.start(static_nodes, jobs)
        await gateway.start()
        self._open_to_tunnels(tunnels)
        await self._wait_for_models(gateway, len(static_nodes))
        port = await self._open_to_callers(gateway)
        watcher = SettingsWatcher(settings, lambda new: self._reload(gateway, management, new), reload_on_hangup=False)
        background.start("settings", watcher.run())
        credentials.base_url = f"http://{_reachable(settings.server.host)}:{port}"
        write_credentials(settings.data_dir, credentials)
        return Ready(
            f"{credentials.base_url}/v1",
            credentials.api_key or "",
            credentials.admin_key or "",
            gateway.served_models(),
        )

    async def _credentials(self, management: Management) -> Credentials:
        """The keys of the last start, as far as they still work, else new ones."""
        remembered = read_credentials(self._settings.data_dir)
        configured = self._settings.auth.admin_key
        if configured is not None:
            admin_key = configured.get_secret_value()
        else:
            admin_key = remembered.admin_key or generate(KeyKind.ADMIN)
        first = await ensure_bootstrap(management.tenancy, remembered.api_key)
        credentials = Credentials(first.token, admin_key, remembered.base_url)
        write_credentials(self._settings.data_dir, credentials)
        return credentials

    def _new_flusher(self, engine: AsyncEngine, metrics: Metrics) -> JournalFlusher:
        clock = SystemClock()
        ledger = Ledger(engine, published=PublishedPrices(engine), on_added=counting(metrics))
        directory = self._settings.journal_dir()
        return JournalFlusher(directory, ledger, self._current_prices, clock, watching(metrics, clock))

    def _open_to_tunnels(self, tunnels: Tunnels | None) -> None:
        port = self._settings.server.tunnel_port
        if tunnels is None or port is None:
            return
        entrance = Entrance(tunnels.hub.accept)
        self._stack.push_async_callback(entrance.close)
        entrance.listen(self._settings.server.tunnel_listen, port)

    async def _open_to_callers(self, gateway: GatewayProcess) -> int:
        """The port that is listened on, which the system chose where none was given."""
        settings = self._settings
        server = HttpServer(gateway.handler, translate.server_limits(settings), translate.trusted_proxies(settings))
        port = await server.listen(settings.server.host, settings.server.port)
        self._stack.push_async_callback(server.close, settings.server.drain_s)
        return port

    async def _wait_for_models(self, gateway: GatewayProcess, nodes: int) -> None:
        """Until a node serves, for a while: an attached server may well be started later."""
        try:
            async with asyncio.timeout(NODES_TIMEOUT_S if nodes else 0):
                while gateway.active_nodes < nodes and not self._stop.is_set():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return

    def _current_prices(self) -> PriceBook:
        return self._prices

    def _reload(self, gateway: GatewayProcess, management: Management, changed: Reloadable) -> None:
        gateway.apply(changed)
        management.reconfigure(changed)
        self._prices = translate.price_book(changed.prices, self._settings.regions)


def _reachable(host: str) -> str:
    """The address to give to people for one to listen on."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
