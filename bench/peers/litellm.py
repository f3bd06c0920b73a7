"""LiteLLM's proxy with its master key only: its key database needs a download that is not always to be had."""

from __future__ import annotations

import json

from bench.peers.rust_router import version_of
from bench.processes import free_port
from bench.target import Running, Site, Target
from bench.upstream import MODEL

KEY = "sk-bench"


def start(site: Site) -> Running:
    """Starts the proxy with one worker and two deployments of the model."""
    port = free_port()
    models = [
        {
            "model_name": MODEL,
            "litellm_params": {
                "model": f"hosted_vllm/{MODEL}",
                "api_base": f"http://127.0.0.1:{upstream}/v1",
                "api_key": "none",
            },
        }
        for upstream in site.upstreams
    ]
    config = site.scratch / "litellm.yaml"
    # JSON is YAML, and needs no writer.
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
    argv = [site.peer("litellm"), "--config", config, "--num_workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    process = site.processes.start("litellm", argv, site.cores.server, env)
    site.processes.wait_ready("litellm", process, f"http://127.0.0.1:{port}/health/liveliness", 120)
    return Running(port, process, version_of(site, "litellm"), headers={"authorization": f"Bearer {KEY}"})


TARGET = Target(
    "litellm", "master key and routing over 2 deployments; no key database, limits or metering", start, installed=True
)
