"""What sglang-router and vllm-router share: one is a fork of the other, and both start alike."""

from __future__ import annotations

from importlib.metadata import distributions

from bench.processes import free_port
from bench.target import Running, Site


def version_of(site: Site, distribution: str) -> str:
    """The version of a distribution in the peers' environment."""
    library = next((site.peer("python").parent.parent / "lib").glob("python3*/site-packages"))
    for found in distributions(path=[str(library)], name=distribution):
        return found.version
    return "unknown"


def start_router(site: Site, name: str, module: str) -> Running:
    """Starts a router before the upstreams; ready once it has seen that they are healthy."""
    port = free_port()
    argv: list[object] = [site.peer("python"), "-m", module, "--host", "127.0.0.1", "--port", port]
    argv += ["--worker-urls", *(f"http://127.0.0.1:{upstream}" for upstream in site.upstreams)]
    argv += ["--policy", "round_robin", "--log-level", "error", "--prometheus-port", free_port()]
    # One core serves, so one runtime thread; its own bound on running requests is lifted for the slow streams.
    argv += ["--max-concurrent-requests", 100_000, "--request-timeout-secs", 300]
    process = site.processes.start(name, map(str, argv), site.cores.server, {"TOKIO_WORKER_THREADS": "1"})
    site.processes.wait_ready(name, process, f"http://127.0.0.1:{port}/v1/models", 60)
    return Running(port, process, version_of(site, name))
