"""The life of a node, pure: which moves are legal, and what a heartbeat, a silence or a registration does.

    STARTING ──healthy──▶ ACTIVE ──drain──▶ DRAINING ──TTL──▶ (removed)
        │                 │    ▲               │
        │  silence, 15 s  │    │ heartbeat     │ silence
        └───────▶ DEAD ◀──┘────┘  of a dead    └──▶ DEAD ──retention──▶ (removed)

Invariants: only ACTIVE nodes are given requests. DRAINING is left only by silence, removal, or a new
registration: a heartbeat does not undo a drain; the TTL counts from the stored `draining_since`, whoever watches.
How *well* an ACTIVE node is, is no status: `fleet/health.py` judges it, and nothing here moves by it.
Architecture document §21.3, §22, §31.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from crosslogic.fleet.model import BackendKind, Node, NodeHealth, NodeLoad, NodeStatus
from crosslogic.kernel.errors import Conflict

HEARTBEAT_INTERVAL_S = 5.0
SILENCE_S = 15.0
DRAIN_TTL_S = 600.0
DEAD_RETENTION_S = 3_600.0

_HEALTH_WEIGHT = 0.3

LEGAL_MOVES: Mapping[NodeStatus, frozenset[NodeStatus]] = {
    NodeStatus.STARTING: frozenset({NodeStatus.ACTIVE, NodeStatus.DRAINING, NodeStatus.DEAD}),
    NodeStatus.ACTIVE: frozenset({NodeStatus.STARTING, NodeStatus.DRAINING, NodeStatus.DEAD}),
    NodeStatus.DRAINING: frozenset({NodeStatus.DEAD, NodeStatus.STARTING, NodeStatus.ACTIVE}),
    NodeStatus.DEAD: frozenset({NodeStatus.STARTING, NodeStatus.ACTIVE}),
}


class Heartbeat(msgspec.Struct, frozen=True):
    """What a node says every 5 s, or what a probe of a static node found; None says nothing new."""

    load: NodeLoad = NodeLoad()
    status: NodeStatus | None = None  # STARTING while the engine loads, DRAINING to leave; else it is serving
    models: tuple[str, ...] | None = None
    health_score: float | None = None
    vram_free_mb: int | None = None
    throughput_tokens_per_s: float | None = None
    backend: BackendKind | None = None  # as a probe found it


def moved(node: Node, to: NodeStatus, now: datetime) -> Node:
    """`node` in status `to`, with the time since which it drains. Raises Conflict when that is no legal move."""
    if node.status is to:
        return node
    if to not in LEGAL_MOVES[node.status]:
        raise Conflict(f"a node that is {node.status.value} cannot become {to.value}")
    return msgspec.structs.replace(node, status=to, draining_since=now if to is NodeStatus.DRAINING else None)


def registered(known: Node | None, new: Node, now: datetime) -> Node:
    """What is stored when a node registers: at first, again after a restart, or again for no reason.

    Who registers is alive, so a registration counts as a heartbeat. It takes a node out of DRAINING and DEAD,
    for it is how a node comes back from maintenance.
    """
    if known is None:
        return msgspec.structs.replace(new, last_heartbeat_at=now)
    status = moved(known, new.status, now).status
    return msgspec.structs.replace(
        new,
        id=known.id,
        created_at=known.created_at,
        status=status,
        static=known.static,
        load=known.load,
        health=known.health,
        last_heartbeat_at=now,
    )


def declared(known: Node | None, new: Node, now: datetime, silence_s: float = SILENCE_S) -> Node:
    """What is stored of a node of the configuration when a process that watches it starts.

    One that was healthy a moment ago goes on serving while its watcher is restarted; of any other nothing is
    known until it is probed.
    """
    if known is None:
        return msgspec.structs.replace(new, status=NodeStatus.STARTING, static=True)
    fresh = not is_silent(known, now, silence_s) and known.endpoint_url == new.endpoint_url
    keeps = known.status is NodeStatus.DRAINING or (known.status is NodeStatus.ACTIVE and fresh)
    return msgspec.structs.replace(
        new,
        id=known.id,
        created_at=known.created_at,
        status=known.status if keeps else NodeStatus.STARTING,
        static=True,
        models=new.models or known.models,
        load=known.load if keeps else NodeLoad(),
        health_score=known.health_score if keeps else 1.0,
        health=known.health if keeps else NodeHealth(),
        draining_since=known.draining_since if keeps else None,
        last_heartbeat_at=known.last_heartbeat_at if keeps else None,
    )


def heard(node: Node, beat: Heartbeat, now: datetime) -> Node:
    """The node after a heartbeat: a starting or dead one is active again, unless it says otherwise."""
    said = NodeStatus.ACTIVE
    if beat.status in (NodeStatus.STARTING, NodeStatus.DRAINING):
        said = beat.status
    if node.status is NodeStatus.DRAINING:
        said = NodeStatus.DRAINING
    elif node.status is NodeStatus.DEAD and said is NodeStatus.DRAINING:
        said = NodeStatus.DEAD  # it was lost and is leaving: nothing to wait for
    return msgspec.structs.replace(
        moved(node, said, now),
        load=beat.load,
        models=node.models if beat.models is None else beat.models,
        backend=node.backend if beat.backend is None else beat.backend,
        health_score=node.health_score if beat.health_score is None else min(1.0, max(0.0, beat.health_score)),
        vram_free_mb=node.vram_free_mb if beat.vram_free_mb is None else beat.vram_free_mb,
        throughput_tokens_per_s=(
            node.throughput_tokens_per_s if beat.throughput_tokens_per_s is None else beat.throughput_tokens_per_s
        ),
        last_heartbeat_at=now,
    )


def drained(node: Node, now: datetime) -> Node:
    """The node, taking nothing new. Raises Conflict for a dead one."""
    return moved(node, NodeStatus.DRAINING, now)


def dated(node: Node, now: datetime) -> Node:
    """The node with a time since which it drains, where a process of an earlier version wrote down none."""
    unknown = node.status is NodeStatus.DRAINING and node.draining_since is None
    return msgspec.structs.replace(node, draining_since=now) if unknown else node


def is_drained(node: Node, now: datetime, ttl_s: float = DRAIN_TTL_S) -> bool:
    """Whether a draining node's time is over; those of the configuration stay as long as they stand there."""
    if node.status is not NodeStatus.DRAINING or node.draining_since is None or node.static:
        return False
    return now - node.draining_since >= timedelta(seconds=ttl_s)


def silent_since(now: datetime, silence_s: float = SILENCE_S) -> datetime:
    """Who was not heard of after this is silent."""
    return now - timedelta(seconds=silence_s)


def is_silent(node: Node, now: datetime, silence_s: float = SILENCE_S) -> bool:
    """Whether the node should be marked dead. One that was never heard of is starting, not silent."""
    if node.status is NodeStatus.DEAD or node.last_heartbeat_at is None:
        return False
    return node.last_heartbeat_at <= silent_since(now, silence_s)


def is_forgotten(node: Node, now: datetime, retention_s: float = DEAD_RETENTION_S) -> bool:
    """Whether a dead node's record may go; those of the configuration stay as long as they stand there."""
    if node.status is not NodeStatus.DEAD or node.static:
        return False
    last = node.last_heartbeat_at or node.created_at
    return now - last >= timedelta(seconds=retention_s)


def health_after(score: float, *, ok: bool) -> float:
    """Moving average of probes: 1 is always healthy; three failures in a row bring it to about a third."""
    after = score + _HEALTH_WEIGHT * ((1.0 if ok else 0.0) - score)
    return 1.0 if after > 0.95 else after


def differs_materially(before: Node, after: Node) -> bool:
    """Whether gateways should hear of the change: always, but for time stamps and small movements of the load."""
    unchanged = msgspec.structs.replace(
        after,
        last_heartbeat_at=before.last_heartbeat_at,
        load=before.load,
        vram_free_mb=before.vram_free_mb,
        health_score=before.health_score,
    )
    return (
        unchanged != before
        or abs(after.health_score - before.health_score) >= 0.1
        or (after.health_score == 1.0) != (before.health_score == 1.0)
        or _load_differs(before.load, after.load)
    )


def _load_differs(before: NodeLoad, after: NodeLoad) -> bool:
    was = before.requests_running + before.requests_waiting
    is_now = after.requests_running + after.requests_waiting
    if (was == 0) != (is_now == 0) or abs(is_now - was) > max(1.0, 0.2 * was):
        return True
    if abs((after.kv_cache_used_ratio or 0.0) - (before.kv_cache_used_ratio or 0.0)) >= 0.1:
        return True
    tokens = before.tokens_in_flight or 0
    return abs((after.tokens_in_flight or 0) - tokens) > max(256.0, 0.2 * tokens)
