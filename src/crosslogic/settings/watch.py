"""Reloading the settings of a running process when their file changes, or on SIGHUP.

Invariant: the process never runs on settings that did not pass validation as a whole; a wrong new file changes
nothing and is reported once.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings.load import load_settings
from crosslogic.settings.model import Settings
from crosslogic.settings.reload import Reloadable, changes, reloadable

POLL_INTERVAL_S = 1.0

_log = logging.getLogger("crosslogic.settings")
_Signature = tuple[int, int, int]


class SettingsWatcher:
    """Calls `apply` with what may change, whenever the settings of `settings.source` become other valid ones."""

    def __init__(
        self,
        settings: Settings,
        apply: Callable[[Reloadable], None],
        *,
        poll_interval_s: float = POLL_INTERVAL_S,
        reload_on_hangup: bool = True,
    ) -> None:
        self._settings = settings
        self._apply = apply
        self._poll_interval_s = poll_interval_s
        self._reload_on_hangup = reload_on_hangup
        self._asked = asyncio.Event()
        self._seen = _signature(settings.source.path)

    @property
    def settings(self) -> Settings:
        """The latest valid settings, including what waits for a restart."""
        return self._settings

    async def run(self) -> None:
        """Watch until cancelled. SIGHUP reloads at once, where the loop can hear it.

        A program in a terminal should not listen to it (`reload_on_hangup=False`): there it means that the
        terminal is gone, and whoever outlives that runs on unseen.
        """
        loop = asyncio.get_running_loop()
        handles_signal = self._reload_on_hangup
        if handles_signal:
            try:
                loop.add_signal_handler(signal.SIGHUP, self._asked.set)
            except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or not a Unix
                handles_signal = False
        try:
            while True:
                await self._until_something_happened()
                await self.reload()
        finally:
            if handles_signal:
                loop.remove_signal_handler(signal.SIGHUP)

    async def reload(self) -> bool:
        """Read the settings again now; True when `apply` was called. A wrong file is logged and changes nothing."""
        try:
            new = await asyncio.to_thread(load_settings, self._settings.source)
        except ConfigurationError as error:
            _log.error("the settings stay as they are: %s", error)
            return False
        changed = changes(self._settings, new)
        if changed.waiting_for_restart:
            _log.warning("changes of %s take effect after a restart", ", ".join(changed.waiting_for_restart))
        self._settings = new
        if not changed.reloaded:
            return False
        self._apply(reloadable(new))
        _log.info("reloaded %s", ", ".join(changed.reloaded))
        return True

    async def _until_something_happened(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._asked.wait(), self._poll_interval_s)
            except TimeoutError:
                found = _signature(self._settings.source.path)
                # None: an editor is between unlink and rename, or the file is gone; both keep what we have.
                if found is None or found == self._seen:
                    continue
            self._asked.clear()
            self._seen = _signature(self._settings.source.path)
            return


def _signature(path: Path | None) -> _Signature | None:
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
