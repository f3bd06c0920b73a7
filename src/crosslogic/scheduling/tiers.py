"""Where a request may be served, best first: its region, then the next ones in order (architecture document §27.3).

In each place the org's own nodes come before shared ones. Pure.

Invariant: nothing outside of `Route.allowed` is ever offered, nor anything outside of its region to a strict route.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from crosslogic.catalog.regions import Regions
from crosslogic.kernel.ids import OrgId
from crosslogic.scheduling.model import Ask, Candidate, takes_requests

Tier = tuple[Candidate, ...]


class Route(msgspec.Struct, frozen=True):
    """What of an ask decides where it may be served."""

    org_id: OrgId | None  # None: the org has no nodes of its own for the model, or they are left out
    own_only: bool
    region: str | None
    fallbacks: tuple[str, ...]
    allowed: frozenset[str] | None
    strict: bool


class Tiers(msgspec.Struct, frozen=True):
    """`resting` nodes are cooling down after failures, or ejected: offered when nothing else is left. `away` is empty
    where the region may not be left; `served` says that nodes in the region have the model, in whatever state."""

    home: tuple[Tier, ...]
    away: tuple[Tier, ...]
    home_resting: tuple[Tier, ...]
    away_resting: tuple[Tier, ...]
    served: bool


def route_of(ask: Ask, org_id: OrgId | None, *, own_only: bool) -> Route:
    return Route(
        org_id, own_only, ask.region, ask.region_fallbacks, ask.allowed_regions, ask.region_strict and bool(ask.region)
    )


def tiers_of(candidates: Iterable[Candidate], route: Route, regions: Regions) -> Tiers:
    allowed = [
        c
        for c in candidates
        if c.node.org_id == route.org_id or (c.node.org_id is None and not route.own_only)
        if route.allowed is None or any(regions.within(c.node.region, name) for name in route.allowed)
    ]
    active = [candidate for candidate in allowed if is_offered(candidate)]
    region = route.region
    if region is None:
        return Tiers(_in_places(active, [_anywhere]), (), _in_places(active, [_anywhere], all_=True), (), True)
    home = [_in(region, regions)]
    away = [] if route.strict else [_in(name, regions) for name in _chain(region, route.fallbacks, regions)]
    away += [] if route.strict else [_anywhere]
    return Tiers(
        _in_places(active, home),
        _in_places(active, away),
        _in_places(active, home, all_=True),
        _in_places(active, away, all_=True),
        any(regions.within(candidate.node.region, region) for candidate in allowed),
    )


def is_offered(candidate: Candidate) -> bool:
    return candidate.resting_until_s is None and takes_requests(candidate.node)


def is_well(candidate: Candidate) -> bool:
    return candidate.cooling_until_s is None and not candidate.probing and not candidate.node.health.ejected


def _chain(region: str, preferred: tuple[str, ...], regions: Regions) -> list[str]:
    """The org's own preferences, then what the catalogue says of the region."""
    return list(dict.fromkeys((*preferred, *regions.fallbacks(region))))


def _in_places(
    active: Sequence[Candidate], places: Sequence[Callable[[Candidate], bool]], *, all_: bool = False
) -> tuple[Tier, ...]:
    found = []
    for is_there in places:
        there = [c for c in active if is_there(c) and (all_ or is_well(c))]
        found += [tuple(c for c in there if c.owner is not None), tuple(c for c in there if c.owner is None)]
    return tuple(tier for tier in found if tier)


def _in(region: str, regions: Regions) -> Callable[[Candidate], bool]:
    return lambda candidate: regions.within(candidate.node.region, region)


def _anywhere(_: Candidate) -> bool:
    return True
