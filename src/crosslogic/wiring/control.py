"""`crosslogic control`: the management API, the node registry and the periodic jobs, as one process."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack

from crosslogic.gateway.operations import Operations
from crosslogic.jobs.table import control_jobs, spending_jobs
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.metering.live.boards import SqlLive
from crosslogic.net.asgi import AsgiBridge
from crosslogic.net.server import HttpServer
from crosslogic.settings.model import Settings
from crosslogic.settings.watch import SettingsWatcher
from crosslogic.store.engine import create_engine
from crosslogic.telemetry.metrics import SCHEMA, Metrics
from crosslogic.telemetry.slots import Slots
from crosslogic.wiring import translate
from crosslogic.wiring.answers import kept_answers
from crosslogic.wiring.checks import database_check
from crosslogic.wiring.coordination import Coordination
from crosslogic.wiring.management import Management
from crosslogic.wiring.process import Background, run_until_stopped, settle_memory, start_logging
from crosslogic.wiring.queue import new_board


def run_control(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM; ends the process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # asks others to reload, until settings can be reloaded here, too
    sys.exit(run_until_stopped(lambda stop: _control(settings, stop)))


async def _control(settings: Settings, stop: asyncio.Event) -> int:
    if settings.auth.admin_key is None:
        raise ConfigurationError("the management API needs an admin key; set CROSSLOGIC_AUTH__ADMIN_KEY")
    log = start_logging(settings.log)
    engine = create_engine(settings.database_url(), pool_size=settings.database.pool_size)
    background = Background(stop)
    checks = {"database": database_check(engine)}
    stack = AsyncExitStack()
    queues = await new_board(settings, stack)
    metrics = Metrics(Slots(schema=SCHEMA))
    metrics.control_leads(False)
    log.on_dropped = metrics.log_dropped
    address = f"{settings.control.host}:{settings.control.port}"
    coordination = Coordination(settings, engine, address, metrics.control_leads)
    management = Management(
        settings,
        engine=engine,
        background=background,
        checks=checks,
        coordination=coordination,
        queues=queues,
        live=SqlLive(engine),
        metrics=metrics,
    )
    cache = await kept_answers(settings, stack)
    api = AsgiBridge(management.app(settings.auth.admin_key.get_secret_value(), cache))
    server = HttpServer(
        Operations(checks, metrics.slots, api),
        translate.server_limits(settings),
        translate.trusted_proxies(settings),
    )
    try:
        static_nodes = [translate.static_node(node) for node in settings.nodes]
        await management.start(
            static_nodes, (*control_jobs(engine, SystemClock()), *spending_jobs(management.spending_caps))
        )
        port = await server.listen(settings.control.host, settings.control.port)
        sys.stdout.write(f"management API on http://{settings.control.host}:{port}\n")
        sys.stdout.flush()
        watcher = SettingsWatcher(settings, management.reconfigure)
        background.start("settings", watcher.run())
        settle_memory()
        await stop.wait()
        await server.close(settings.server.drain_s)
    finally:
        await background.close()
        await management.close()
        await stack.aclose()
        await engine.dispose()
        log.close()
    return 0
