"""The product as its users run it: processes started by command line, with their logs in files.

Invariant: what a test session started is gone when it ends; nodes and workers end with their parents.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

CROSSLOGIC = Path(sys.executable).parent / "crosslogic"
START_TIMEOUT_S = 120.0  # of 3 s of work, beside whatever else the machine does

Found = TypeVar("Found")


class HasSeconds(Protocol):
    @property
    def seconds(self) -> float: ...


Timed = TypeVar("Timed", bound=HasSeconds)


def eventually(find: Callable[[], Found | None], timeout_s: float = 10.0, interval_s: float = 0.02) -> Found:
    """What `find` returns as soon as that is true; fails after `timeout_s` seconds."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < deadline_s, f"still {found!r} after {timeout_s} s"
        time.sleep(interval_s)


def in_time(ask: Callable[[], Timed], within_s: float) -> Timed:
    """The first of three answers that took less than `within_s` seconds: other programs keep these cores busy.

    What makes each caller wait makes all three wait. `ask` checks what has to be right however long it takes.
    """
    taken_s = []
    while len(taken_s) < 3:
        answer = ask()
        taken_s.append(answer.seconds)
        if answer.seconds < within_s:
            return answer
    raise AssertionError(f"not within {within_s} s, but after {taken_s}")


def prompt(change: Callable[[], object], seen: Callable[[], object], within_s: float) -> None:
    """`change` is seen within `within_s` seconds, in the best of three tries: other programs keep these cores busy.

    It is seen each time, though, within ten times as long.
    """
    taken_s = []
    while len(taken_s) < 3:
        change()
        began_s = time.monotonic()
        eventually(seen, within_s * 10)
        taken_s.append(time.monotonic() - began_s)
        if taken_s[-1] <= within_s:
            return
    raise AssertionError(f"not within {within_s} s, but after {taken_s}")


class Program:
    """One running `crosslogic …` with its own process group, as a shell would start it.

    All tests call from one address, so bad keys are slowed only where `env` says so.
    """

    def __init__(
        self,
        arguments: list[object],
        directory: Path,
        env: Mapping[str, str] | None = None,
        command: Sequence[object] = (CROSSLOGIC,),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.output = directory / f"{arguments[0]}.out"
        self.log = directory / f"{arguments[0]}.log"
        with self.output.open("ab") as out, self.log.open("ab") as err:
            self.process = subprocess.Popen(
                [str(part) for part in (*command, *arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment({"CROSSLOGIC_AUTH__BAD_KEYS_PER_MINUTE": "0"} | dict(env or {})),
                cwd=directory,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, ready: Callable[[], Any]) -> None:
        """Until `ready`; fails with the end of the log when the process ends before."""

        def found() -> bool:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.tail()}"
            return bool(ready())

        eventually(found, START_TIMEOUT_S)

    def tail(self) -> str:
        return (self.output.read_text() + self.log.read_text())[-3000:]

    def children(self) -> list[int]:
        """Process ids of its direct children; none once it has ended."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [int(pid) for pid in path.read_text().split()]
        except FileNotFoundError:
            return []

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        """Ask it to end; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's own, without what would configure the product."""
    prefixes = ("CROSSLOGIC_", "DB_", "REDIS_", "SERVER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | dict(more or {})


def run(
    *arguments: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """One `crosslogic …` command, to its end."""
    return subprocess.run(
        [str(part) for part in (CROSSLOGIC, *arguments)],
        capture_output=True,
        text=True,
        env=environment(env),
        cwd=cwd,
        timeout=timeout_s,
        check=False,
    )
