"""What a measured server is: a name, how to start it, and how to talk to it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.probe import Cores
from bench.processes import Processes


@dataclass(frozen=True)
class Site:
    """Where targets are started: running upstreams, cores, a scratch folder, the peers' programs, and an end.

    `end` runs when the target has been measured and its processes are gone.
    """

    processes: Processes
    cores: Cores
    upstreams: tuple[int, ...]
    scratch: Path
    peers_bin: Path | None
    end: ExitStack

    def peer(self, program: str) -> Path:
        """A program of the peers' virtual environment."""
        if self.peers_bin is None:
            raise FileNotFoundError("the peers are not installed")
        return self.peers_bin / program


@dataclass
class Running:
    """A server that answers, and the processes that are measured as this server."""

    port: int
    process: subprocess.Popen[bytes]
    version: str
    cores: int = 1
    cpu_pids: list[int] | None = None
    """Whose CPU time counts; the whole process tree when None. Memory is always that of the whole tree."""
    afterwards: Callable[[int], str] | None = None
    """Called at the end with the number of right answers; says whether the server's own books agree."""
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """A server to be measured. `start` returns when it answers, or raises DidNotStart."""

    name: str
    what: str
    start: Callable[[Site], Running]
    workers: int = 1
    ours: bool = False
    installed: bool = False
    """It is a program of the peers' virtual environment."""
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot be measured on this machine; None when it can."""
