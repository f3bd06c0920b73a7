"""A PostgreSQL of this run alone: stopped at once, stopped in its tracks, without room on its disk, and back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg
from tests.ports import free_port
from tests.servers import _copied, _postgres_programs

START_S = 120.0
STOP_S = 30.0
NAME = "crosslogic"
# A killed server recovers quickly; what the operating system has is safe from all that is done here.
OPTIONS = {
    "fsync": "off",
    "max_connections": "120",
    "shared_buffers": "128MB",
    "checkpoint_timeout": "30s",
    "max_wal_size": "192MB",
    "min_wal_size": "32MB",
    "unix_socket_directories": "",
    "restart_after_crash": "on",
}


class Postgres:
    def __init__(self, directory: Path, disk: Path, more: Mapping[str, str] = MappingProxyType({})) -> None:
        """Programs and log in `directory`, data on `disk`. `more`: options besides `OPTIONS`, or instead of them."""
        self._options = OPTIONS | dict(more)
        self._uid: int | None = None
        self._programs = _postgres_programs()
        if os.geteuid() == 0:  # it refuses to run as root
            self._uid = pwd.getpwnam("nobody").pw_uid
            self._programs = _copied(self._programs, directory)
            directory.chmod(0o755)
        self._log = directory / "postgres.log"
        self._data = disk / "data"
        self._data.mkdir(mode=0o700)
        if self._uid is not None:
            disk.chmod(0o755)
            shutil.chown(self._data, self._uid)
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/{NAME}"

    def create(self) -> None:
        command = [self._programs / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--encoding=utf8"]
        subprocess.run([*command, "--no-sync"], check=True, capture_output=True, user=self._uid, cwd=self._data)
        self.start("postgres")
        self.execute(f"CREATE DATABASE {NAME}", database="postgres")

    def start(self, database: str = NAME) -> None:
        """Returns when it answers."""
        options = [part for name, value in self._options.items() for part in ("-c", f"{name}={value}")]
        command = [self._programs / "postgres", "-D", self._data, "-h", "127.0.0.1", "-p", str(self._port), *options]
        deadline = time.monotonic() + START_S
        while True:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self._uid, cwd=self._data
                )
            while self._process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    self.execute("SELECT 1", database=database)
                    return
                time.sleep(0.05)
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {self._log.read_text()[-1500:]}")
            time.sleep(0.2)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop_at_once(self) -> None:
        """As a crash: nothing is finished, and the next start recovers from the log."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def stop(self) -> None:
        """In order: all is written, and sessions end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()

    def pause(self) -> None:
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)

    def execute(self, statement: str, database: str = NAME) -> list[Any]:
        async def run() -> list[Any]:
            url = self.url.removesuffix(NAME) + database
            conn = await asyncpg.connect(url, timeout=3, command_timeout=30)
            try:
                rows: list[Any] = await conn.fetch(statement)
                return rows
            finally:
                await conn.close()

        return asyncio.run(run())
