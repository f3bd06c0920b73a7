"""The engine as a process: started, watched, stopped, and found again by an agent that was itself restarted.

Invariants: at most one engine of an agent runs; an engine outlives its agent (it goes on serving while the agent is
upgraded or restarted) and is taken over by the next one, known by its process id and start time.
"""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from crosslogic.kernel.errors import ConfigurationError

STOP_GRACE_S = 30.0
_POLL_S = 0.25

_log = logging.getLogger(__name__)


class _Running(msgspec.Struct, frozen=True):
    """What the file says of the engine that runs."""

    pid: int
    started_ticks: int
    command: list[str]


class EngineProcess:
    """One engine; its output goes to `log_path`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, log_path: Path, pid_path: Path
    ) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._log_path = log_path
        self._pid_path = pid_path
        self._running: _Running | None = None

    @property
    def pid(self) -> int | None:
        return None if self._running is None else self._running.pid

    def adopt(self) -> bool:
        """Take over the engine that an agent before this one started, if it still runs as it would be started now;
        one that was started otherwise is ended."""
        found = self._recorded()
        if found is None or _started_ticks(found.pid) != found.started_ticks:
            return False
        if found.command != self._command:
            _log.info("the engine %d was started otherwise; ending it", found.pid)
            _signal_group(found.pid, signal.SIGKILL)
            return False
        self._running = found
        _log.info("the engine %d runs still; watching it", found.pid)
        return True

    def start(self) -> None:
        """Raises ConfigurationError when there is no such program."""
        try:
            with self._log_path.open("ab") as output:
                process = subprocess.Popen(  # noqa: S603 - the operator says what to run
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environment or None,
                    start_new_session=True,  # a signal for the agent is not one for its engine
                )
        except FileNotFoundError:
            raise ConfigurationError(f"there is no program {self._command[0]!r}; install the engine") from None
        except PermissionError:
            raise ConfigurationError(f"{self._command[0]!r} may not be run") from None
        self._running = _Running(process.pid, _started_ticks(process.pid) or 0, self._command)
        self._pid_path.write_bytes(msgspec.json.encode(self._running))
        process.returncode = 0  # the process is watched by its id: this object is not to wait for it
        _log.info("started the engine: process %d", process.pid)

    async def wait(self) -> None:
        """Until the engine has ended."""
        running = self._running
        while running is not None and _is_alive(running):
            await asyncio.sleep(_POLL_S)
        self._running = None

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask the engine to end; after `grace_s`, end it."""
        running = self._running
        if running is None or not _is_alive(running):
            return
        _signal_group(running.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self.wait()
        if _is_alive(running):
            _signal_group(running.pid, signal.SIGKILL)
            await self.wait()
        self._pid_path.unlink(missing_ok=True)

    def _recorded(self) -> _Running | None:
        try:
            return msgspec.json.decode(self._pid_path.read_bytes(), type=_Running)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


def _is_alive(running: _Running) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(running.pid, os.WNOHANG)  # a child of ours would stay a zombie
    return _started_ticks(running.pid) == running.started_ticks


def _started_ticks(pid: int) -> int | None:
    """When the process started, by the kernel's clock: process ids are used again. None when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
