"""The life of a node: which moves are legal, and what makes one."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from crosslogic.fleet.lifecycle import (
    LEGAL_MOVES,
    Heartbeat,
    declared,
    differs_materially,
    drained,
    health_after,
    heard,
    is_forgotten,
    is_silent,
    moved,
    registered,
)
from crosslogic.fleet.model import Node, NodeLoad, NodeStatus
from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import NodeId

START = datetime(2026, 1, 1, tzinfo=UTC)
STARTING, ACTIVE, DRAINING, DEAD = NodeStatus


def node(**changes: object) -> Node:
    known = Node(
        id=NodeId("node_a"),
        endpoint_url="http://a:8000",
        models=("m",),
        status=ACTIVE,
        created_at=START,
        last_heartbeat_at=START,
    )
    return msgspec.structs.replace(known, **changes)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize("old", list(NodeStatus))
@pytest.mark.parametrize("new", list(NodeStatus))
def test_only_legal_moves_are_made(old: NodeStatus, new: NodeStatus) -> None:
    if new is old or new in LEGAL_MOVES[old]:
        assert moved(node(status=old), new, START).status is new
    else:
        with pytest.raises(Conflict):
            moved(node(status=old), new, START)


def test_the_only_forbidden_move_is_to_drain_the_dead() -> None:
    forbidden = {
        (old, new) for old in NodeStatus for new in NodeStatus if new is not old and new not in LEGAL_MOVES[old]
    }
    assert forbidden == {(DEAD, DRAINING)}
    with pytest.raises(Conflict, match="dead"):
        drained(node(status=DEAD), START)


@pytest.mark.parametrize(
    ("before", "said", "result"),
    [
        (STARTING, None, ACTIVE),
        (STARTING, STARTING, STARTING),
        (ACTIVE, None, ACTIVE),
        (ACTIVE, STARTING, STARTING),  # its engine restarts
        (ACTIVE, DRAINING, DRAINING),
        (ACTIVE, DEAD, ACTIVE),  # who speaks is not dead
        (DRAINING, None, DRAINING),
        (DRAINING, ACTIVE, DRAINING),
        (DEAD, None, ACTIVE),
        (DEAD, STARTING, STARTING),
        (DEAD, DRAINING, DEAD),
    ],
)
def test_what_a_heartbeat_does(before: NodeStatus, said: NodeStatus | None, result: NodeStatus) -> None:
    load = NodeLoad(requests_running=3)
    heard_of = heard(node(status=before), Heartbeat(load=load, status=said), after(5))
    assert heard_of.status is result
    assert heard_of.last_heartbeat_at == after(5)
    assert heard_of.load == load


def test_a_heartbeat_leaves_what_it_does_not_mention() -> None:
    before = node(vram_free_mb=100, throughput_tokens_per_s=5.0, health_score=0.4)
    assert heard(before, Heartbeat(), START) == before
    beat = Heartbeat(models=("n",), health_score=7.0, vram_free_mb=1, throughput_tokens_per_s=6.0)
    told = heard(before, beat, START)
    assert (told.models, told.health_score, told.vram_free_mb, told.throughput_tokens_per_s) == (("n",), 1.0, 1, 6.0)


def test_fifteen_seconds_of_silence_are_death() -> None:
    for status in (STARTING, ACTIVE, DRAINING):
        assert not is_silent(node(status=status), after(14.999))
        assert is_silent(node(status=status), after(15))
    assert not is_silent(node(status=DEAD), after(1000))
    assert not is_silent(node(status=STARTING, last_heartbeat_at=None), after(1000))


def test_a_dead_node_is_forgotten_unless_the_configuration_names_it() -> None:
    assert not is_forgotten(node(status=DEAD), after(3599))
    assert is_forgotten(node(status=DEAD), after(3600))
    assert not is_forgotten(node(status=DEAD, static=True), after(10**6))
    assert not is_forgotten(node(status=ACTIVE), after(10**6))


def test_registering_again_keeps_identity_and_brings_a_node_back_from_draining_and_death() -> None:
    new = node(id=NodeId("node_new"), created_at=after(100), models=("n",), last_heartbeat_at=None)
    for status in NodeStatus:
        known = node(status=status, load=NodeLoad(requests_running=2))
        again = registered(known, new, after(100))
        assert (again.id, again.created_at, again.models) == (known.id, START, ("n",))
        assert again.status is ACTIVE
        assert again.last_heartbeat_at == after(100)
    assert registered(None, new, after(100)).id == "node_new"


def test_a_node_of_the_configuration_serves_on_while_its_watcher_restarts() -> None:
    new = node(id=NodeId("node_new"), models=(), status=ACTIVE, last_heartbeat_at=None)
    fresh = declared(node(load=NodeLoad(requests_running=1)), new, after(10))
    assert (fresh.id, fresh.status, fresh.models, fresh.static) == ("node_a", ACTIVE, ("m",), True)
    assert fresh.load.requests_running == 1
    stale = declared(node(), new, after(20))
    assert (stale.status, stale.last_heartbeat_at, stale.load) == (STARTING, None, NodeLoad())
    assert declared(node(status=DRAINING), new, after(20)).status is DRAINING
    assert declared(node(status=DEAD), new, after(1)).status is STARTING
    assert declared(None, new, START).status is STARTING


def test_health_falls_with_failures_and_comes_back_whole() -> None:
    score = 1.0
    for _ in range(3):
        score = health_after(score, ok=False)
    assert 0.3 < score < 0.4
    for _ in range(10):
        score = health_after(score, ok=True)
    assert score == 1.0


@pytest.mark.parametrize(
    ("changes", "material"),
    [
        ({}, False),
        ({"last_heartbeat_at": after(5)}, False),
        ({"vram_free_mb": 7}, False),
        ({"load": NodeLoad(requests_running=11, tokens_in_flight=1100)}, False),
        ({"load": NodeLoad(requests_running=14, tokens_in_flight=1000)}, True),
        ({"load": NodeLoad(requests_running=0, tokens_in_flight=1000)}, True),
        ({"load": NodeLoad(requests_running=10, tokens_in_flight=2000)}, True),
        ({"load": NodeLoad(requests_running=10, tokens_in_flight=1000, kv_cache_used_ratio=0.2)}, True),
        ({"health_score": 0.85}, False),
        ({"health_score": 0.7}, True),
        ({"health_score": 1.0}, True),
        ({"status": DRAINING}, True),
        ({"models": ("m", "n")}, True),
        ({"region": "eu"}, True),
        ({"throughput_tokens_per_s": 9.0}, True),
    ],
)
def test_what_gateways_hear_of(changes: dict[str, object], material: bool) -> None:
    before = node(load=NodeLoad(requests_running=10, tokens_in_flight=1000), health_score=0.9)
    assert differs_materially(before, msgspec.structs.replace(before, **changes)) is material
