"""The snapshot of the fleet that the scheduler filters: nodes by model, owner and region, failing ones apart.

Invariants:
- An org's node is offered to that org only, whatever else is overloaded or down.
- Only ACTIVE nodes are offered. A node that is cooling down after failures, or that control ejected, is offered only
  when the same request would otherwise find none: the last candidate is never ejected.
- A node that cooled down gets one request as a probe, and others only when that went well: a breaker for each node
  and model, half open.
- A node that asked to be left alone for a time (`Retry-After`) is offered to nobody before.
- Eligible candidates are kept ready as tuples and rebuilt when the fleet changes, not for each request. A tuple
  handed out is stable (strategies may remember what they computed from it); a list is for one request only.

A request prefers, in this order: its org's own nodes in its region, shared nodes in its region, then the same in
each fallback region, then anywhere (§26.4 of the architecture document: "region empty → nearest region"). As long
as its region has a node to offer, it stays there. With `region_strict` it never leaves.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from crosslogic.catalog.regions import Regions
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
from crosslogic.scheduling.tiers import Route, Tier, Tiers, is_offered, is_well, route_of, tiers_of

LEFT_FOR_S = 3_600.0  # a region that all nodes left is down, and not yet empty: as long as dead nodes are remembered

_NEVER_S = float("inf")

_LEFT_KEPT = 1_000  # models; their names come from nodes
_ROUTES_KEPT = 4096  # of each model; tenants choose their regions freely


class CooldownPolicy(msgspec.Struct, frozen=True):
    """Passive ejection: after `failures` in a row the candidate rests, twice as long each further time."""

    failures: int = 3
    first_s: float = 2.0
    longest_s: float = 20.0  # a node that recovered is back well within 30 s


class _Shelf:
    """All candidates of one model, with the tiers that were asked for so far."""

    __slots__ = ("candidates", "next_return_s", "owners", "shared", "tiers", "usable")

    def __init__(self, candidates: list[Candidate]) -> None:
        self.candidates = candidates
        self.owners: frozenset[OrgId] = frozenset(
            candidate.node.org_id for candidate in candidates if candidate.node.org_id is not None
        )
        self.shared = any(candidate.node.org_id is None for candidate in candidates)
        self.usable: dict[OrgId | None, int] = {}
        self.tiers: dict[Route, Tiers] = {}
        returns = [until_s for c in candidates for until_s in (c.cooling_until_s, c.resting_until_s)]
        self.next_return_s = min((until_s for until_s in returns if until_s is not None), default=_NEVER_S)


class Pool:
    """The nodes that this gateway knows. Not thread-safe: it lives in one event loop."""

    def __init__(
        self,
        *,
        cooldown: CooldownPolicy | None = None,
        regions: Regions | None = None,
    ) -> None:
        self._cooldown = cooldown or CooldownPolicy()
        self._regions = regions or Regions()
        self._nodes: dict[NodeId, Node] = {}
        self._ledgers: dict[NodeId, Ledger] = {}
        self._candidates: dict[tuple[NodeId, str], Candidate] = {}
        self._shelves: dict[str, _Shelf] = {}
        # By model: where nodes of which owner were and are no more, and since when somebody has missed them.
        self._left: dict[str, dict[tuple[str, OrgId | None], float | None]] = {}
        self._confined: frozenset[tuple[OrgId, str]] = frozenset()

    def confine(self, confined: frozenset[tuple[OrgId, str]]) -> None:
        """Which orgs may use nothing but their own nodes for a model, whatever becomes of these."""
        self._confined = confined

    def is_confined(self, model: str, org_id: OrgId) -> bool:
        return (org_id, model) in self._confined

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
            self._note_who_left(before)

    def candidates(
        self, ask: Ask, now_s: float, *, shared_only: bool = False, leave: bool = True
    ) -> Sequence[Candidate]:
        """Those that may serve `ask`, of the best tier that has any; `now_s` is of the monotonic clock.

        `shared_only` leaves the org's own nodes out; without `leave` none outside of its region is offered.
        """
        tiers = self._tiers(ask, now_s, shared_only)
        if tiers is None:
            return ()
        found = _first(tiers.home, ask.excluded)
        if not found and leave:
            found = _first(tiers.away, ask.excluded)
        if not found:
            found = _first(tiers.home_resting, ask.excluded)
        return found if found or not leave else _first(tiers.away_resting, ask.excluded)

    def at_home(self, ask: Ask, now_s: float, *, shared_only: bool = False) -> Sequence[Candidate]:
        """Those of them in the region that it asks for, without any that rests after failures."""
        tiers = self._tiers(ask, now_s, shared_only)
        return () if tiers is None else _first(tiers.home, ask.excluded)

    def is_down(self, ask: Ask, now_s: float) -> bool:
        """Whether the region that it asks for has nodes for the model, but none that may be used now, while others
        elsewhere may; also when all have left within the last hour. One that never had any is not down: it is empty."""
        tiers = self._tiers(ask, now_s, shared_only=False)
        if tiers is None or _first(tiers.home, ask.excluded) or not (tiers.served or self._has_left(ask, now_s)):
            return False
        return bool(_first(tiers.away, ask.excluded) or _first(tiers.away_resting, ask.excluded))

    def is_within(self, candidate: Candidate, region: str) -> bool:
        return self._regions.within(candidate.node.region, region)

    def regions_serving(self, model: str, org_id: OrgId) -> frozenset[str]:
        """Regions with a node for the model that this org may use and that takes requests now."""
        shelf = self._shelves.get(model)
        if shelf is None:
            return frozenset()
        return frozenset(
            c.node.region for c in shelf.candidates if c.owner in (None, org_id) and is_offered(c) and is_well(c)
        )

    def nodes(self) -> Iterable[Node]:
        return self._nodes.values()

    def _tiers(self, ask: Ask, now_s: float, shared_only: bool) -> Tiers | None:
        shelf = self._shelves.get(ask.model)
        if shelf is None:
            return None
        if now_s >= shelf.next_return_s:
            shelf = self._return_cooled(ask.model, shelf, now_s)
        org_id = ask.org_id if ask.org_id in shelf.owners and not shared_only else None
        own_only = bool(self._confined) and (ask.org_id, ask.model) in self._confined
        if own_only and org_id is None:
            return None
        route = route_of(ask, org_id, own_only=own_only)
        tiers = shelf.tiers.get(route)
        if tiers is None:
            if len(shelf.tiers) >= _ROUTES_KEPT:
                shelf.tiers.clear()
            tiers = shelf.tiers[route] = tiers_of(shelf.candidates, route, self._regions)
        return tiers

    def knows(self, model: str, org_id: OrgId) -> bool:
        """Whether any node that this org may see has the model, in whatever state the node is."""
        shelf = self._shelves.get(model)
        return shelf is not None and (shelf.shared or org_id in shelf.owners)

    def owns(self, model: str, org_id: OrgId) -> bool:
        """Whether the org has nodes of its own for the model."""
        shelf = self._shelves.get(model)
        return shelf is not None and org_id in shelf.owners

    def own_nodes(self, model: str, org_id: OrgId) -> list[Node]:
        """The org's own nodes for the model that take requests."""
        shelf = self._shelves.get(model)
        if shelf is None or org_id not in shelf.owners:
            return []
        return [c.node for c in shelf.candidates if c.node.org_id == org_id and takes_requests(c.node)]

    def usable(self, model: str, owner: OrgId | None) -> int:
        """How many nodes of this owner (None: shared ones) take requests for the model now."""
        shelf = self._shelves.get(model)
        if shelf is None:
            return 0
        count = shelf.usable.get(owner)
        if count is None:
            active = [c for c in shelf.candidates if c.node.org_id == owner and is_offered(c)]
            count = shelf.usable[owner] = sum(is_well(c) for c in active) or len(active)
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

    def rests_until_s(self, ask: Ask) -> float | None:
        """When the first node returns that could serve `ask`, but asked to be left alone; None when there is none."""
        shelf = self._shelves.get(ask.model)
        own_only = self.is_confined(ask.model, ask.org_id)
        strictly = ask.region if ask.region_strict else None
        found = [
            candidate.resting_until_s
            for candidate in (shelf.candidates if shelf is not None else ())
            if candidate.resting_until_s is not None
            and (candidate.owner == ask.org_id or (candidate.owner is None and not own_only))
            and (strictly is None or self.is_within(candidate, strictly))
            and (ask.allowed_regions is None or any(self.is_within(candidate, name) for name in ask.allowed_regions))
            and takes_requests(candidate.node)
            and candidate.node_id not in ask.excluded
        ]
        return min(found, default=None)

    def leave_alone(self, candidate: Candidate, until_s: float) -> None:
        """The node asked for it; `until_s` is of the monotonic clock."""
        candidate.resting_until_s = max(until_s, candidate.resting_until_s or until_s)
        self._reshelve(candidate.model)

    def probed(self, candidate: Candidate, *, running: bool) -> None:
        """The one request that a candidate gets after a rest begins, or ended without showing anything."""
        candidate.probing = running
        self._reshelve(candidate.model)

    def failed(self, candidate: Candidate, now_s: float, *, grave: bool = False) -> None:
        """Count a failure; enough of them in a row, or a grave one, send the candidate to rest."""
        candidate.failures = max(candidate.failures + 1, self._cooldown.failures if grave else 0)
        if candidate.failures < self._cooldown.failures or candidate.cooling_until_s is not None:
            return
        candidate.half_open = candidate.probing = False
        candidate.cooldown_s = min(
            self._cooldown.longest_s, candidate.cooldown_s * 2 if candidate.cooldown_s else self._cooldown.first_s
        )
        candidate.cooling_until_s = now_s + candidate.cooldown_s
        self._reshelve(candidate.model)

    def succeeded(self, candidate: Candidate) -> None:
        """A success ends the count of failures, and the rest of a candidate that was used as the last one."""
        candidate.failures = 0
        candidate.cooldown_s = 0.0
        if candidate.cooling_until_s is not None or candidate.half_open:
            candidate.cooling_until_s = None
            candidate.half_open = candidate.probing = False
            self._reshelve(candidate.model)

    def _note_who_left(self, before: dict[NodeId, Node]) -> None:
        if len(self._left) > _LEFT_KEPT:
            self._left.clear()
        for node_id in before.keys() - self._nodes.keys():
            node = before[node_id]
            for model in node.models:
                self._left.setdefault(model, {})[(node.region, node.org_id)] = None
        for node in self._nodes.values():
            for model in node.models:
                self._left.get(model, {}).pop((node.region, node.org_id), None)

    def _has_left(self, ask: Ask, now_s: float) -> bool:
        """Whether nodes that it could have used were in its region lately."""
        left = self._left.get(ask.model)
        if not left:
            return False
        own_only = self.is_confined(ask.model, ask.org_id)
        for (region, owner), since_s in list(left.items()):
            if since_s is None:
                since_s = left[(region, owner)] = now_s
            if now_s - since_s >= LEFT_FOR_S:
                del left[(region, owner)]
            elif (owner == ask.org_id or (owner is None and not own_only)) and (
                ask.region is None or self._regions.within(region, ask.region)
            ):
                return True
        return False

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
                candidate.weight = node.health.weight

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
                candidate.half_open, candidate.probing = True, False
            if candidate.resting_until_s is not None and now_s >= candidate.resting_until_s:
                candidate.resting_until_s = None
        renewed = self._shelves[model] = _Shelf(shelf.candidates)
        return renewed


def _first(tiers: tuple[Tier, ...], excluded: tuple[NodeId, ...]) -> Sequence[Candidate]:
    """The first tier that has any left; the tuple itself where all of it is."""
    for tier in tiers:
        if not excluded:
            return tier
        left = [candidate for candidate in tier if candidate.node_id not in excluded]
        if left:
            return tier if len(left) == len(tier) else left
    return ()


def _shape(node: Node) -> tuple[object, ...]:
    """What tiers, and what strategies remember of them, depend on: all but what each heartbeat changes."""
    return (
        node.status,
        node.models,
        node.region,
        node.org_id,
        node.deployment_id,
        node.spot_price_usd_per_hour,
        node.health.ejected,
        capacity_tokens_per_s(node),
    )


def _is_new_report(known: Node | None, node: Node) -> bool:
    if known is None:
        return node.load != NodeLoad()
    return known.load != node.load or known.last_heartbeat_at != node.last_heartbeat_at


def _seed(node_id: NodeId) -> int:
    return int.from_bytes(hashlib.blake2b(node_id.encode(), digest_size=8).digest(), "big")
