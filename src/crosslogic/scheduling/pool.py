"""The snapshot of the fleet that the scheduler filters: nodes by model, owner and region, failing ones apart.

Invariants:
- An org's node is offered to that org only, whatever else is overloaded or down.
- Only ACTIVE nodes are offered. A node that is cooling down after failures is offered only when the same
  request would otherwise find none: the last candidate is never ejected.
- Eligible candidates are kept ready as tuples and rebuilt when the fleet changes, not for each request. A tuple
  handed out is stable (strategies may remember what they computed from it); a list is for one request only.

A request prefers, in this order: its org's own nodes in its region, shared nodes in its region, then the same in
each fallback region, then anywhere (§26.4 of the architecture document: "region empty → nearest region"). As long
as its region has a node to offer, it stays there. With `region_strict` it never leaves.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from crosslogic.fleet.model import Node, NodeLoad, NodeStatus
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.model import (
    Ask,
    Candidate,
    Ledger,
    ModelListing,
    capacity_tokens_per_s,
    takes_requests,
)

_NEVER_S = float("inf")

Tier = tuple[Candidate, ...]


class CooldownPolicy(msgspec.Struct, frozen=True):
    """Passive ejection: after `failures` in a row the candidate rests, twice as long each further time."""

    failures: int = 3
    first_s: float = 2.0
    longest_s: float = 20.0  # a node that recovered is back well within 30 s


class _Shelf:
    """All candidates of one model, with the tiers that were asked for so far."""

    __slots__ = ("candidates", "next_return_s", "owners", "regions", "shared", "tiers", "usable")

    def __init__(self, candidates: list[Candidate]) -> None:
        self.candidates = candidates
        self.owners: frozenset[OrgId] = frozenset(
            candidate.node.org_id for candidate in candidates if candidate.node.org_id is not None
        )
        self.shared = any(candidate.node.org_id is None for candidate in candidates)
        self.regions = frozenset(candidate.node.region for candidate in candidates)
        self.usable: dict[OrgId | None, int] = {}
        self.tiers: dict[tuple[OrgId | None, str | None, bool], tuple[Tier, ...]] = {}
        self.next_return_s = min(
            (c.cooling_until_s for c in candidates if c.cooling_until_s is not None), default=_NEVER_S
        )


class Pool:
    """The nodes that this gateway knows. Not thread-safe: it lives in one event loop."""

    def __init__(
        self,
        *,
        cooldown: CooldownPolicy | None = None,
        fallback_regions: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._cooldown = cooldown or CooldownPolicy()
        self._fallback_regions = dict(fallback_regions or {})
        self._nodes: dict[NodeId, Node] = {}
        self._ledgers: dict[NodeId, Ledger] = {}
        self._candidates: dict[tuple[NodeId, str], Candidate] = {}
        self._shelves: dict[str, _Shelf] = {}

    def update(self, nodes: Iterable[Node]) -> None:
        """Replace the snapshot; nodes that stay keep their counters, latencies and cooldowns."""
        before, self._nodes = self._nodes, {node.id: node for node in nodes}
        reshaped = before.keys() != self._nodes.keys()
        for node in self._nodes.values():
            known = before.get(node.id)
            if known is node:
                continue
            if known is None or _shape(known) != _shape(node):
                reshaped = True
            self._settle_node(known, node)
        for node_id in before.keys() - self._nodes.keys():
            del self._ledgers[node_id]
        if reshaped:
            self._rebuild()

    def candidates(self, ask: Ask, now_s: float) -> Sequence[Candidate]:
        """Those that may serve `ask`, of the best tier that has any; `now_s` is of the monotonic clock."""
        shelf = self._shelves.get(ask.model)
        if shelf is None:
            return ()
        if now_s >= shelf.next_return_s:
            shelf = self._return_cooled(ask.model, shelf, now_s)
        org_id = ask.org_id if ask.org_id in shelf.owners else None
        region = ask.region
        strict = ask.region_strict and region is not None
        if region not in shelf.regions:
            if strict:
                return ()
            if region not in self._fallback_regions:
                region = None
        tiers = shelf.tiers.get((org_id, region, strict))
        if tiers is None:
            tiers = self._tiers(shelf, org_id, region, strict)
            shelf.tiers[(org_id, region, strict)] = tiers
        excluded = ask.excluded
        for tier in tiers:
            if not excluded:
                return tier
            left = [candidate for candidate in tier if candidate.node_id not in excluded]
            if left:
                return tier if len(left) == len(tier) else left
        return ()

    def knows(self, model: str, org_id: OrgId) -> bool:
        """Whether any node that this org may see has the model, in whatever state the node is."""
        shelf = self._shelves.get(model)
        return shelf is not None and (shelf.shared or org_id in shelf.owners)

    def owns(self, model: str, org_id: OrgId) -> bool:
        """Whether the org has nodes of its own for the model."""
        shelf = self._shelves.get(model)
        return shelf is not None and org_id in shelf.owners

    def usable(self, model: str, owner: OrgId | None) -> int:
        """How many nodes of this owner (None: shared ones) take requests for the model now."""
        shelf = self._shelves.get(model)
        if shelf is None:
            return 0
        count = shelf.usable.get(owner)
        if count is None:
            active = [c for c in shelf.candidates if c.node.org_id == owner and takes_requests(c.node)]
            count = shelf.usable[owner] = sum(c.cooling_until_s is None for c in active) or len(active)
        return count

    def models(self, org_id: OrgId | None = None) -> list[ModelListing]:
        """What `/v1/models` lists for this org, sorted by name; models that only dead nodes have are left out."""
        listings: list[ModelListing] = []
        for name, shelf in sorted(self._shelves.items()):
            visible = [
                candidate.node
                for candidate in shelf.candidates
                if candidate.node.org_id in (None, org_id) and candidate.node.status is not NodeStatus.DEAD
            ]
            if visible:
                created_s = int(min(node.created_at for node in visible).timestamp())
                own = all(node.org_id is not None for node in visible)
                listings.append(ModelListing(name=name, created_s=created_s, own=own))
        return listings

    def failed(self, candidate: Candidate, now_s: float) -> None:
        """Count a failure; enough of them in a row send the candidate to rest."""
        candidate.failures += 1
        if candidate.failures < self._cooldown.failures or candidate.cooling_until_s is not None:
            return
        candidate.cooldown_s = min(
            self._cooldown.longest_s, candidate.cooldown_s * 2 if candidate.cooldown_s else self._cooldown.first_s
        )
        candidate.cooling_until_s = now_s + candidate.cooldown_s
        self._reshelve(candidate.model)

    def succeeded(self, candidate: Candidate) -> None:
        """A success ends the count of failures, and the rest of a candidate that was used as the last one."""
        candidate.failures = 0
        candidate.cooldown_s = 0.0
        if candidate.cooling_until_s is not None:
            candidate.cooling_until_s = None
            self._reshelve(candidate.model)

    def _settle_node(self, known: Node | None, node: Node) -> None:
        capacity = capacity_tokens_per_s(node)
        ledger = self._ledgers.get(node.id)
        if ledger is None:
            ledger = self._ledgers[node.id] = Ledger(capacity)
        elif known is None or capacity != capacity_tokens_per_s(known):
            ledger.resize(capacity)
        if _is_new_report(known, node):
            ledger.report(node.load)
        for model in node.models:
            candidate = self._candidates.get((node.id, model))
            if candidate is not None:
                candidate.node = node

    def _rebuild(self) -> None:
        before, self._candidates = self._candidates, {}
        by_model: dict[str, list[Candidate]] = {}
        for node in self._nodes.values():
            for model in dict.fromkeys(node.models):
                candidate = before.get((node.id, model))
                if candidate is None or candidate.owner != node.org_id:
                    candidate = Candidate(node, model, self._ledgers[node.id], _seed(node.id))
                self._candidates[(node.id, model)] = candidate
                by_model.setdefault(model, []).append(candidate)
        self._shelves = {model: _Shelf(candidates) for model, candidates in by_model.items()}

    def _reshelve(self, model: str) -> None:
        shelf = self._shelves.get(model)
        if shelf is not None:
            self._shelves[model] = _Shelf(shelf.candidates)

    def _return_cooled(self, model: str, shelf: _Shelf, now_s: float) -> _Shelf:
        for candidate in shelf.candidates:
            if candidate.cooling_until_s is not None and now_s >= candidate.cooling_until_s:
                candidate.cooling_until_s = None
                # One more failure sends it back at once, one success clears it: a half-open breaker.
                candidate.failures = self._cooldown.failures - 1
        renewed = self._shelves[model] = _Shelf(shelf.candidates)
        return renewed

    def _tiers(self, shelf: _Shelf, org_id: OrgId | None, region: str | None, strict: bool) -> tuple[Tier, ...]:
        active = [candidate for candidate in shelf.candidates if takes_requests(candidate.node)]
        own = [c for c in active if org_id is not None and c.node.org_id == org_id]
        shared = [c for c in active if c.node.org_id is None]
        places: list[Callable[[Candidate], bool]] = []
        if region is not None:
            nearest = [region] if strict else [region, *self._fallback_regions.get(region, ())]
            places += [_in_region(name) for name in nearest]
        if not strict:
            places.append(_anywhere)
        raw = [[c for c in group if place(c)] for place in places for group in (own, shared)]
        rested = [[c for c in tier if c.cooling_until_s is None] for tier in raw]
        return tuple(tuple(tier) for tier in (*rested, *raw) if tier)


def _in_region(name: str) -> Callable[[Candidate], bool]:
    return lambda candidate: candidate.node.region == name


def _anywhere(_: Candidate) -> bool:
    return True


def _shape(node: Node) -> tuple[object, ...]:
    """What tiers, and what strategies remember of them, depend on: all but what each heartbeat changes."""
    return (
        node.status,
        node.models,
        node.region,
        node.org_id,
        node.spot_price_usd_per_hour,
        capacity_tokens_per_s(node),
    )


def _is_new_report(known: Node | None, node: Node) -> bool:
    if known is None:
        return node.load != NodeLoad()
    return known.load != node.load or known.last_heartbeat_at != node.last_heartbeat_at


def _seed(node_id: NodeId) -> int:
    return int.from_bytes(hashlib.blake2b(node_id.encode(), digest_size=8).digest(), "big")
