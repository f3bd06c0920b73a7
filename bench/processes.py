"""Starts the processes of a measurement on their cores and makes sure that none outlives it.

Invariant: whatever was started is gone when the `with` block ends, by whichever way; and the kernel kills the direct
children if this process itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class DidNotStart(Exception):
    """A process ended or stayed silent before it was ready; the message holds the end of its log."""


def raise_file_limit() -> int:
    """Raises this process's limit of open files as far as it may go, children inherit it; returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def http_get(url: str, headers: Mapping[str, str] | None = None, timeout_s: float = 2.0) -> tuple[int, bytes]:
    """Status and body of a GET; raises OSError when there is no answer."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=dict(headers or {})), timeout=timeout_s
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Processes:
    """The running processes of one measurement; use as a context manager."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(*self._running)

    def start(
        self,
        name: str,
        argv: Iterable[str | Path],
        cores: Iterable[int],
        env: Mapping[str, str] | None = None,
        nice: int = 0,
    ) -> subprocess.Popen[bytes]:
        """Starts a command on those cores, in a process group of its own, its output in `<logs>/<name>.log`."""
        where = set(cores)

        def prepare() -> None:
            os.sched_setaffinity(0, where)
            os.nice(nice)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        with (self.logs / f"{name}.log").open("ab") as log:
            try:
                process = subprocess.Popen(
                    [str(word) for word in argv],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(env or {})},
                    start_new_session=True,
                    preexec_fn=prepare,
                )
            except OSError as error:
                raise DidNotStart(f"{name}: {error}") from error
        self._running.append(process)
        return process

    def run(
        self, name: str, argv: Iterable[str | Path], env: Mapping[str, str] | None = None, timeout_s: float = 120
    ) -> str:
        """Runs a command to its end and returns its output; raises DidNotStart when it fails."""
        try:
            ended = subprocess.run(
                [str(word) for word in argv],
                env={**os.environ, **(env or {})},
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DidNotStart(f"{name}: {error}") from error
        if ended.returncode != 0:
            raise DidNotStart(f"{name} exited {ended.returncode}: {(ended.stderr or ended.stdout).strip()[-600:]}")
        return ended.stdout

    def wait_ready(self, name: str, process: subprocess.Popen[bytes], url: str, timeout_s: float) -> None:
        """Waits until the URL answers 200; raises DidNotStart when it does not in time or the process ends."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise DidNotStart(f"{name} exited {process.returncode}: {self.tail(name)}")
            with contextlib.suppress(OSError):
                if http_get(url)[0] == 200:
                    return
            time.sleep(0.1)
        raise DidNotStart(f"{name} not ready after {timeout_s:.0f} s: {self.tail(name)}")

    def tail(self, name: str, size: int = 600) -> str:
        """The end of a process's log."""
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace")[-size:].strip() if path.exists() else ""

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        """Asks those processes to end, and ends the groups of those that have not after 5 s."""
        for process in processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 5
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.05, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running = [process for process in self._running if process not in processes]
