"""One look at a node from outside: does it serve, which models, how busy is it."""

import asyncio

from crosslogic.fleet.backends.answers import read_load, read_models
from crosslogic.fleet.backends.detect import detect
from crosslogic.fleet.backends.known import backend_of
from crosslogic.fleet.fetch import Answer, Fetch
from crosslogic.fleet.lifecycle import Heartbeat, health_after
from crosslogic.fleet.model import BackendKind, Node, NodeLoad

PROBE_TIMEOUT_S = 2.0


async def probe(
    fetch: Fetch,
    node: Node,
    *,
    kind: BackendKind | None,
    discover_models: bool,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> Heartbeat | None:
    """What the node would say in a heartbeat, if it sent any; None when it does not serve.

    `kind` None: the kind of server is found out first. `discover_models` False: those it is configured with stand.
    """
    if kind is None:
        detected = await detect(fetch, node.endpoint_url, api_key=node.api_key, timeout_s=timeout_s)
        if detected is None:
            return None
        kind = detected.kind
    backend = backend_of(kind)

    async def get(path: str | None) -> Answer | None:
        if path is None:
            return None
        return await fetch(node.endpoint_url + path, api_key=node.api_key, timeout_s=timeout_s)

    health, listed, metrics = await asyncio.gather(
        get(backend.health_path), get(backend.models_path if discover_models else None), get(backend.metrics_path)
    )
    if not _good(health):
        return None
    models: tuple[str, ...] | None = None
    if discover_models:
        models = read_models(listed.body) if listed is not None and _good(listed) else None
        if models is None:
            return None
    load = NodeLoad()
    if metrics is not None and _good(metrics):
        load = read_load(backend, metrics.body.decode("utf-8", errors="replace"))
    return Heartbeat(load=load, models=models, backend=kind, health_score=health_after(node.health_score, ok=True))


def _good(answer: Answer | None) -> bool:
    return answer is not None and answer.status == 200
