"""How much capacity can still be promised, given the nodes there are and what was promised before. Pure.

Invariant: what is promised on all models and regions together can be carried by the nodes at every moment, each token
of a node's throughput counted once, also where nodes serve several models. That is a flow from promises to nodes,
solved exactly by augmenting paths (Ford and Fulkerson, 1956).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

import msgspec

from crosslogic.capacity.model import Reservation, Terms
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.kernel.ids import NodeId, OrgId

_COUNTED = (NodeStatus.ACTIVE, NodeStatus.STARTING)


class Room(msgspec.Struct, frozen=True):
    """What is free for a wanted reservation at the tightest moment of its time.

    `broken_units`: units promised to others that would no longer fit, because it takes nodes away from them.
    """

    units: int
    broken_units: int = 0


class _Supply(msgspec.Struct, frozen=True):
    """Nodes that are alike for every promise."""

    models: frozenset[str]
    region: str
    owner: OrgId | None


class _Demand(msgspec.Struct, frozen=True):
    """Promises that the same nodes can carry."""

    org_id: OrgId
    model: str
    region: str | None
    own_only: bool


def node_units(node: Node, terms: Terms) -> int:
    """Units that may be promised on this node."""
    known = node.throughput_tokens_per_s
    tokens_per_s = known if known is not None and known > 0 else terms.tokens_per_s_per_gpu * max(1, node.gpu_count)
    return int(tokens_per_s * terms.overcommit)


def dedications(in_force: Iterable[Reservation]) -> dict[NodeId, OrgId]:
    """Which nodes these reservations dedicate to whom."""
    return {node_id: reservation.org_id for reservation in in_force for node_id in reservation.nodes}


def room_for(wanted: Reservation, others: Sequence[Reservation], nodes: Sequence[Node], terms: Terms) -> Room:
    """What is free for `wanted` beside `others`, over all of its time; its own `units` do not matter here."""
    most: int | None = None
    broken = 0
    for moment in _moments(wanted, others):
        beside = [other for other in others if other.in_force(moment)]
        before, _ = _placed(beside, None, nodes, terms)
        after, free = _placed(beside, wanted, nodes, terms)
        broken = max(broken, before - after)
        most = free if most is None else min(most, free)
    return Room(most or 0, broken)


def placeable(amounts: Sequence[int], reach: Sequence[Sequence[int]], supplies: Sequence[int]) -> list[int]:
    """How much of each amount the supplies can carry, where amount `i` may use the supplies `reach[i]`.

    Earlier amounts go first: a later one never takes from them, but may move them to another supply.
    """
    left = list(supplies)
    carried: dict[tuple[int, int], int] = {}  # (amount, supply) -> how much of it lies there
    placed = [0] * len(amounts)
    for index, amount in enumerate(amounts):
        while placed[index] < amount and (path := _path(index, reach, left, carried)):
            push = min(amount - placed[index], left[path[-1][1]])
            for mover, from_supply in _moves(path):
                push = min(push, carried[mover, from_supply])
            for mover, from_supply in _moves(path):
                carried[mover, from_supply] -= push
            for mover, to_supply in path:
                carried[mover, to_supply] = carried.get((mover, to_supply), 0) + push
            left[path[-1][1]] -= push
            placed[index] += push
    return placed


def _moments(wanted: Reservation, others: Sequence[Reservation]) -> set[datetime]:
    """When more begins to be promised: nothing can be tighter in between."""
    return {wanted.starts_at} | {
        other.starts_at for other in others if wanted.starts_at < other.starts_at < wanted.expires_at
    }


def _placed(
    beside: Sequence[Reservation], wanted: Reservation | None, nodes: Sequence[Node], terms: Terms
) -> tuple[int, int]:
    """Units of `beside` that fit, and the most that fits for `wanted` besides."""
    dedicated = dedications(beside if wanted is None else (*beside, wanted))
    supplies: dict[_Supply, int] = {}
    for node in nodes:
        if node.status in _COUNTED:
            supply = _Supply(frozenset(node.models), node.region, _owner(node, dedicated))
            supplies[supply] = supplies.get(supply, 0) + node_units(node, terms)
    demands: dict[_Demand, int] = {}
    for promise in beside:
        demand = _demand(promise)
        demands[demand] = demands.get(demand, 0) + promise.units
    asked = list(demands)
    amounts = list(demands.values())
    if wanted is not None:
        asked.append(_demand(wanted))
        amounts.append(sum(supplies.values()))
    reach = [[place for place, supply in enumerate(supplies) if _reaches(demand, supply)] for demand in asked]
    placed = placeable(amounts, reach, list(supplies.values()))
    return (sum(placed), 0) if wanted is None else (sum(placed[:-1]), placed[-1])


def _owner(node: Node, dedicated: Mapping[NodeId, OrgId]) -> OrgId | None:
    return dedicated.get(node.id, node.org_id)


def _demand(promise: Reservation) -> _Demand:
    return _Demand(promise.org_id, promise.model, promise.region, not promise.shared_fallback)


def _reaches(demand: _Demand, supply: _Supply) -> bool:
    if demand.model not in supply.models or demand.region not in (None, supply.region):
        return False
    return supply.owner == demand.org_id or (supply.owner is None and not demand.own_only)


def _path(
    start: int, reach: Sequence[Sequence[int]], left: Sequence[int], carried: Mapping[tuple[int, int], int]
) -> list[tuple[int, int]]:
    """The shortest chain of (amount, supply it goes to) that ends where something is left: each amount after the
    first makes room by leaving the supply that the one before goes to. Empty: there is none."""
    came: dict[int, tuple[int, int | None]] = {}  # supply -> (amount that goes there, supply it leaves)
    fringe: list[tuple[int, int | None]] = [(start, None)]
    while fringe:
        following: list[tuple[int, int | None]] = []
        for amount, leaving in fringe:
            for supply in reach[amount]:
                if supply in came:
                    continue
                came[supply] = (amount, leaving)
                if left[supply] > 0:
                    return _back(supply, came)
                following += [(other, supply) for other, at in carried if at == supply and carried[other, at] > 0]
        fringe = following
    return []


def _back(supply: int, came: Mapping[int, tuple[int, int | None]]) -> list[tuple[int, int]]:
    path: list[tuple[int, int]] = []
    at: int | None = supply
    while at is not None:
        amount, leaving = came[at]
        path.append((amount, at))
        at = leaving
    return path[::-1]


def _moves(path: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(amount, supply that it leaves) for each amount of a path after the first."""
    return [(amount, before[1]) for before, (amount, _) in pairwise(path)]
