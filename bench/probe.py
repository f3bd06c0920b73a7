"""What the kernel knows of a process tree (CPU time, memory) and of this machine."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
LOWEST_PRIORITY = 19


def tree(pid: int) -> list[int]:
    """The process and all that descend from it and are alive."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(word) for word in children.read_text().split()]
            except OSError:
                continue
    return found


def cpu_ns(pids: list[int]) -> int:
    """CPU time, user and system, of those processes with all their threads, also ended ones; nanoseconds.

    A process's own CPU clock counts to the nanosecond, where /proc/PID/stat counts to the hundredth of a second and
    /proc/PID/schedstat only the first thread. Raises ProcessLookupError when one of them is gone.
    """
    total = 0
    for pid in pids:
        clock = ctypes.c_int()
        if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)) != 0:
            raise ProcessLookupError(f"process {pid} is gone")
        total += time.clock_gettime_ns(clock.value)
    return total


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of those processes; shared pages count once for each, kernel socket buffers not at all."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


def command_line(pid: int) -> str:
    """The words that the process was started with; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def move_aside(pid: int, cores: tuple[int, ...]) -> None:
    """Moves a process with all its threads to those cores, at the lowest priority."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)
        os.setpriority(os.PRIO_PROCESS, int(task.name), LOWEST_PRIORITY)


def stolen_ticks() -> int:
    """Clock ticks that the hypervisor has kept from this machine since it started."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])


@dataclass(frozen=True)
class Cores:
    """Which cores serve and which make load. Invariant: disjoint, unless the machine has one core only."""

    server: tuple[int, ...]
    load: tuple[int, ...]

    def servers(self, count: int) -> tuple[int, ...]:
        """Cores for that many workers: one each while one is left over for the load, else all on the server core."""
        spare = self.server + self.load[: max(0, len(self.load) - 2)]
        return spare[:count] if count <= len(spare) else self.server

    def loads(self, count: int) -> tuple[int, ...]:
        """The cores left for load beside that many workers."""
        taken = set(self.servers(count))
        return tuple(core for core in self.load if core not in taken) or self.load


def cores() -> Cores:
    """Splits the cores that this process may use: the first serves, the rest make load."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores((usable[0],), tuple(usable[1:]) or (usable[0],))


def machine() -> dict[str, str | int | float]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory_kb / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }
