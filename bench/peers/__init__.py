"""The servers beside which the gateway is measured, one file each: how to start it, and what is on.

Each is given what it needs to relay to two upstreams over kept-alive connections on one core, and nothing that would
slow it: no access log, no tracing.
"""

from __future__ import annotations

from bench.peers import envoy, litellm, nginx, passthrough, sglang_router, vllm_router
from bench.target import Target

PEERS: tuple[Target, ...] = (
    passthrough.TARGET,
    nginx.TARGET,
    envoy.TARGET,
    sglang_router.TARGET,
    vllm_router.TARGET,
    litellm.TARGET,
)
