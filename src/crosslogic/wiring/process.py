"""What every long-running process does alike: an event loop, logs, and an orderly end on SIGINT or SIGTERM."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Literal

from crosslogic.settings.sections import LogSettings
from crosslogic.telemetry.log import LogWriter, configure_logging

if sys.platform != "win32":
    import uvloop

log = logging.getLogger(__name__)


class Background:
    """Tasks that run as long as the process; one that fails is told, and stops the process rather than limp on."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.critical("%s failed; stopping", task.get_name(), exc_info=task.exception())
            self._stop.set()


def start_logging(settings: LogSettings) -> LogWriter:
    """Logs go to standard error: for people on a terminal, as JSON otherwise."""
    style: Literal["json", "console"] = "json"
    if settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty()):
        style = "console"
    return configure_logging(_write_stderr, level=settings.level, style=style)


def run_until_stopped(
    main: Callable[[asyncio.Event], Awaitable[int]],
    signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM),
) -> int:
    """Run `main(stop)`; `stop` is set by the first of `signals`, the second one kills. Returns the exit code."""

    async def supervised() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if stop.is_set():
                os._exit(130)
            stop.set()

        for number in signals:
            loop.add_signal_handler(number, on_signal)
        return await main(stop)

    factory = uvloop.new_event_loop if sys.platform != "win32" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(supervised())


def settle_memory() -> None:
    """What the start left behind lives as long as the process: the collector need not look at it again and again.

    After it, young objects are collected less often too: requests leave hardly any cycles, and each collection is a
    pause of all of them. Call it once the process is ready.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _write_stderr(lines: bytes) -> None:
    sys.stderr.buffer.write(lines)
    sys.stderr.buffer.flush()
