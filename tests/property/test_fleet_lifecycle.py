"""Whatever happens to a node, in whatever order: moves are legal, drains hold, silence is the only way to die."""

from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crosslogic.fleet.lifecycle import (
    LEGAL_MOVES,
    SILENCE_S,
    Heartbeat,
    declared,
    differs_materially,
    drained,
    heard,
    is_silent,
    moved,
    registered,
)
from crosslogic.fleet.model import Node, NodeLoad, NodeStatus
from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import NodeId

START = datetime(2026, 1, 1, tzinfo=UTC)


def fresh(status: NodeStatus) -> Node:
    return Node(id=NodeId("n"), endpoint_url="http://n:1", models=("m",), status=status, created_at=START)


class LifeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.node = registered(None, fresh(NodeStatus.STARTING), self.now)
        self.heard_s = 0.0
        self.elapsed_s = 0.0
        self.held_by_drain = False

    def become(self, node: Node) -> None:
        before = self.node.status
        assert node.status is before or node.status in LEGAL_MOVES[before]
        assert node.id == self.node.id
        assert node.created_at == self.node.created_at
        if node.status is not before:
            assert differs_materially(self.node, node)
        self.node = node

    @rule(seconds=st.floats(0.0, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.elapsed_s += seconds
        self.now = START + timedelta(seconds=self.elapsed_s)
        if is_silent(self.node, self.now):
            assert self.elapsed_s - self.heard_s >= SILENCE_S - 1e-3
            self.become(moved(self.node, NodeStatus.DEAD, self.now))
            self.held_by_drain = False
        elif self.node.status is not NodeStatus.DEAD and self.node.last_heartbeat_at is not None:
            assert self.elapsed_s - self.heard_s < SILENCE_S + 1e-3

    @rule(said=st.sampled_from([None, *NodeStatus]), running=st.integers(0, 100))
    def heartbeat(self, said: NodeStatus | None, running: int) -> None:
        self.become(heard(self.node, Heartbeat(load=NodeLoad(running), status=said), self.now))
        self.heard_s = self.elapsed_s
        assert self.node.status is not NodeStatus.DEAD or said is NodeStatus.DRAINING
        if said is NodeStatus.DRAINING and self.node.status is NodeStatus.DRAINING:
            self.held_by_drain = True

    @rule(status=st.sampled_from([NodeStatus.STARTING, NodeStatus.ACTIVE]))
    def registers_again(self, status: NodeStatus) -> None:
        self.become(registered(self.node, fresh(status), self.now))
        self.heard_s = self.elapsed_s
        self.held_by_drain = False
        assert self.node.status is status

    @rule()
    def watcher_restarts(self) -> None:
        if self.node.status is NodeStatus.DRAINING:
            assert declared(self.node, fresh(NodeStatus.ACTIVE), self.now).status is NodeStatus.DRAINING

    @precondition(lambda self: self.node.status is not NodeStatus.DEAD)
    @rule()
    def is_drained(self) -> None:
        self.become(drained(self.node, self.now))
        self.held_by_drain = True

    @precondition(lambda self: self.node.status is NodeStatus.DEAD)
    @rule()
    def the_dead_cannot_be_drained(self) -> None:
        try:
            drained(self.node, self.now)
        except Conflict:
            return
        raise AssertionError("a dead node was drained")

    @invariant()
    def a_drain_holds(self) -> None:
        assert not self.held_by_drain or self.node.status is NodeStatus.DRAINING

    @invariant()
    def it_is_known_since_when_it_drains(self) -> None:
        assert (self.node.draining_since is not None) == (self.node.status is NodeStatus.DRAINING)


LifeMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestLife = LifeMachine.TestCase
