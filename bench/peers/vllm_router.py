"""vLLM's router (Rust, a fork of SGLang's)."""

from __future__ import annotations

from bench.peers.rust_router import start_router
from bench.target import Target

TARGET = Target(
    "vllm-router",
    "routing round robin over 2 workers, health checks; no keys, limits or metering",
    lambda site: start_router(site, "vllm-router", "vllm_router.launch_router"),
    installed=True,
)
