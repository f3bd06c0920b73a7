"""Values of scheduling: what a request asks for, what a node offers, and the ledger of work in flight.

Invariant: the counters of a `Ledger` are never negative, and are zero when nothing dispatched is unfinished.
Work is measured in *seconds of load*: tokens in flight over tokens per second (architecture document §26.3),
so that nodes of different speed compare.
"""

from enum import StrEnum
from typing import Protocol

import msgspec

from crosslogic.fleet.model import Node, NodeLoad, NodeStatus
from crosslogic.kernel.ids import NodeId, OrgId

DEFAULT_TOKENS_PER_S = 1000.0
"""Capacity of one GPU of which nothing is known; only its ratio to other nodes matters."""

_DEFAULT_TOKENS_PER_REQUEST = 512.0
_REQUEST_WEIGHT = 0.05
_LATENCY_WEIGHT = 0.2


class Rng(Protocol):
    """The one source of chance; `random.Random` fits."""

    def random(self) -> float:
        """Uniform in [0, 1)."""
        ...


class Ask(msgspec.Struct, frozen=True):
    """What a request wants of a node."""

    model: str
    org_id: OrgId
    region: str | None = None  # preferred; None: anywhere
    tokens: int = 0  # estimate of the prompt + maximum of output
    prefix_hash: int | None = None  # of the part of the prompt that other requests share
    excluded: tuple[NodeId, ...] = ()  # tried before for this request
    region_strict: bool = False  # data residency: rather refuse than leave `region`
    region_fallbacks: tuple[str, ...] = ()  # where the org would go next, before what the catalogue says
    allowed_regions: frozenset[str] | None = None  # a key's: none but these, ever
    journey: "Journey | None" = None
    reserved: bool = False  # paid-for capacity: never refused because nodes are full


class Journey(msgspec.Struct):
    """What is decided once for a request, however often a node is picked for it."""

    region: str | None = None  # the one that was asked for, or chosen for it
    counted: bool = False
    may_leave: bool | None = None  # None: its region was not down yet
    failover: bool = False  # the last pick was outside of the region


class NoNodeReason(StrEnum):
    UNKNOWN_MODEL = "unknown_model"  # this org can see no node with it
    NO_CAPACITY = "no_capacity"  # all that could serve are full
    NO_HEALTHY_NODE = "no_healthy_node"  # nodes have it, none may be used now
    REGION_DOWN = "region_down"  # none in its region; elsewhere there are, but its share of them is used up


class NoNode(msgspec.Struct, frozen=True):
    """The refusal of a pick; a value, not an error."""

    reason: NoNodeReason
    returns_s: float | None = None  # monotonic: when a node comes back that asked to be left alone until then


class ModelListing(msgspec.Struct, frozen=True):
    """A model as tenants see it: no node names."""

    name: str
    created_s: int  # seconds since 1970: since when the oldest node that has it is known
    own: bool  # only the org's own nodes serve it


class Ledger:
    """Work in flight on one node, shared by the candidates of all models that the node serves.

    What this gateway dispatched is counted exactly. What others dispatched is what a heartbeat reports beyond the
    most that this gateway had in flight since the heartbeat before. The most, not what is in flight now: a report
    is seconds old, and a lone gateway that has finished its work meanwhile would otherwise count it once more,
    as somebody else's, and send everything to another node (reference/gateway.md, pain 22).
    """

    __slots__ = (
        "_peak_requests",
        "_peak_tokens",
        "elsewhere_tokens",
        "load_s",
        "requests",
        "seconds_per_token",
        "tokens",
        "tokens_per_request",
    )

    def __init__(self, capacity_tokens_per_s: float) -> None:
        self.requests = 0
        self.tokens = 0
        self.tokens_per_request = _DEFAULT_TOKENS_PER_REQUEST
        self.elsewhere_tokens = 0.0
        self.seconds_per_token = 1.0 / capacity_tokens_per_s
        self.load_s = 0.0
        self._peak_requests = 0
        self._peak_tokens = 0

    def add(self, tokens: int) -> None:
        self.requests += 1
        self.tokens += tokens
        if self.requests > self._peak_requests:
            self._peak_requests = self.requests
        if self.tokens > self._peak_tokens:
            self._peak_tokens = self.tokens
        self._weigh()

    def remove(self, tokens: int) -> None:
        """Give back what `add` took; giving back more than is there leaves zero."""
        self.requests = self.requests - 1 if self.requests > 0 else 0
        self.tokens = self.tokens - tokens if self.tokens > tokens else 0
        self.tokens_per_request += _REQUEST_WEIGHT * (tokens - self.tokens_per_request)
        self._weigh()

    def report(self, load: NodeLoad) -> None:
        """Take in a heartbeat."""
        if load.tokens_in_flight is not None:
            beyond = float(load.tokens_in_flight - self._peak_tokens)
        else:
            beyond = (load.requests_running + load.requests_waiting - self._peak_requests) * self.tokens_per_request
        self.elsewhere_tokens = max(0.0, beyond)
        self._peak_requests, self._peak_tokens = self.requests, self.tokens
        self._weigh()

    def resize(self, capacity_tokens_per_s: float) -> None:
        self.seconds_per_token = 1.0 / capacity_tokens_per_s
        self._weigh()

    def _weigh(self) -> None:
        self.load_s = (self.tokens + self.elsewhere_tokens) * self.seconds_per_token


class Candidate:
    """One model on one node, with what this gateway has learned of the pair."""

    __slots__ = (
        "cooldown_s",
        "cooling_until_s",
        "failures",
        "half_open",
        "latency_ewma_ms",
        "ledger",
        "model",
        "node",
        "node_id",
        "owner",
        "probing",
        "resting_until_s",
        "seed",
        "weight",
    )

    def __init__(self, node: Node, model: str, ledger: Ledger, seed: int) -> None:
        self.node = node
        self.node_id: NodeId = node.id
        self.owner = node.org_id  # for life: a node that changes hands becomes another candidate
        self.model = model
        self.ledger = ledger
        self.weight = node.health.weight
        self.seed = seed  # 64 bits of the node's id: its place for consistent hashing
        self.latency_ewma_ms: float | None = None  # to the first token
        self.failures = 0  # in a row
        self.cooldown_s = 0.0  # the last one given; doubles while failures go on
        self.cooling_until_s: float | None = None
        self.half_open = False  # back from a rest, and not yet shown to be well
        self.probing = False  # and one request is finding out
        self.resting_until_s: float | None = None  # as the node itself asked

    @property
    def in_flight_requests(self) -> int:
        return self.ledger.requests

    @property
    def in_flight_tokens(self) -> int:
        return self.ledger.tokens

    @property
    def health_score(self) -> float:
        return self.node.health_score * self.weight

    def observe_first_token(self, latency_ms: float) -> None:
        """Fold one measured time to the first token into the moving average."""
        known = self.latency_ewma_ms
        self.latency_ewma_ms = latency_ms if known is None else known + _LATENCY_WEIGHT * (latency_ms - known)

    def __repr__(self) -> str:
        return f"Candidate({self.node_id} {self.model!r} load={self.ledger.load_s:.3f}s)"


def capacity_tokens_per_s(node: Node) -> float:
    """The measured throughput of the node, else a default for each of its GPUs; less where it is not well."""
    if node.throughput_tokens_per_s is not None and node.throughput_tokens_per_s > 0:
        return node.throughput_tokens_per_s * node.health.weight
    return DEFAULT_TOKENS_PER_S * max(1, node.gpu_count) * node.health.weight


def takes_requests(node: Node) -> bool:
    return node.status is NodeStatus.ACTIVE
