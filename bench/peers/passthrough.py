"""Our own yardstick, bench/passthrough.py: pure relaying in Python."""

from __future__ import annotations

import sys
import time

from bench.load import Pool
from bench.processes import DidNotStart, free_port
from bench.target import Running, Site, Target


def start(site: Site) -> Running:
    """Starts the toy proxy; it is ready when it takes connections, as it has no health page."""
    port = free_port()
    argv = [sys.executable, "-m", "bench.passthrough", "--port", str(port)]
    for upstream in site.upstreams:
        argv += ["--upstream", str(upstream)]
    process = site.processes.start("passthrough", argv, site.cores.server)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with Pool(port, 1):
                return Running(port, process, "bench/passthrough.py")
        except OSError:
            time.sleep(0.05)
    raise DidNotStart(f"passthrough: {site.processes.tail('passthrough')}")


TARGET = Target("passthrough", "relaying only; the yardstick of the guard", start)
