"""What is guaranteed at present, as gateways ask it for each request. Pure; `sync.py` keeps it fresh.

Invariants: a reservation counts from its start and not after its end, by the clock alone; the scopes of a principal
and model stay the same tuple until the principal or what is guaranteed changes, because limiters know it by identity.
"""

from collections.abc import Callable, Iterable

import msgspec

from crosslogic.capacity.model import Reservation
from crosslogic.capacity.promises import dedications
from crosslogic.kernel.ids import KeyId, NodeId, OrgId
from crosslogic.limits.model import Layer, Limits, Scope
from crosslogic.tenancy.model import Principal

_MOST_REMEMBERED = 10_000  # principals and models
_NEVER_S = float("inf")


class _Sum(msgspec.Struct):
    """What the reservations of one org, model and region come to."""

    units: int = 0


class _Known(msgspec.Struct, frozen=True):
    principal: Principal
    scopes: tuple[Scope, ...]


class Guarantees:
    """`now_s` is wall time in seconds since 1970. With `limits=False` no ceiling of anybody counts, only guarantees."""

    def __init__(self, now_s: Callable[[], float], *, burst_s: float = 10.0, limits: bool = True) -> None:
        self._now_s = now_s
        self._burst_s = burst_s
        self._limits = limits
        self._reservations: tuple[Reservation, ...] = ()
        self._orgs: frozenset[OrgId] = frozenset()  # with anything that is or will be in force
        self._sums: dict[tuple[OrgId, str, str | None], _Sum] = {}
        self._in_force: tuple[Reservation, ...] = ()
        self._until_s = _NEVER_S
        self._known: dict[tuple[KeyId, str], _Known] = {}
        self.version = 0  # rises with every change of what is in force

    def replace(self, reservations: Iterable[Reservation]) -> None:
        """Take over all that are or will be in force."""
        self._reservations = tuple(reservations)
        self._orgs = frozenset(reservation.org_id for reservation in self._reservations)
        self._take_stock(self._now_s())

    @property
    def next_change_s(self) -> float:
        """When a reservation begins or ends next, in seconds since 1970; infinite when none does."""
        return self._until_s

    def refresh(self) -> bool:
        """Let begin and end what is due; whether anything was."""
        now_s = self._now_s()
        due = now_s >= self._until_s
        if due:
            self._take_stock(now_s)
        return due

    def scopes_for(self, principal: Principal, model: str) -> tuple[Scope, ...]:
        """What a request is admitted against: the principal's own scopes, and the guarantee that it may be within."""
        if principal.org_id not in self._orgs:
            return principal.scopes if self._limits else ()
        self.refresh()
        known = self._known.get((principal.key_id, model))
        if known is not None and known.principal is principal:
            return known.scopes
        return self._add(principal, model)

    def tokens_per_s(self, model: str, org_id: OrgId) -> int:
        """What the org has reserved of the model, in all regions together."""
        self.refresh()
        return sum(each.units for (org, name, _), each in self._sums.items() if org == org_id and name == model)

    def orgs(self, model: str) -> set[OrgId]:
        """Those who have something of the model in force."""
        self.refresh()
        return {org_id for org_id, name, _ in self._sums if name == model}

    def __bool__(self) -> bool:
        """Whether anything is in force."""
        self.refresh()
        return bool(self._sums)

    def dedicated_nodes(self) -> dict[NodeId, OrgId]:
        """Which nodes are whose alone."""
        self.refresh()
        return dedications(self._in_force)

    def confined(self) -> frozenset[tuple[OrgId, str]]:
        """Orgs whose requests for a model never go to shared nodes."""
        self.refresh()
        return frozenset((each.org_id, each.model) for each in self._in_force if not each.shared_fallback)

    # --- inside -------------------------------------------------------------------------------------------------

    def _take_stock(self, now_s: float) -> None:
        self._sums = {}
        self._until_s = _NEVER_S
        in_force = []
        for reservation in self._reservations:
            if reservation.cancelled_at is not None:
                continue
            start_s, end_s = reservation.starts_at.timestamp(), reservation.expires_at.timestamp()
            if now_s < start_s:
                self._until_s = min(self._until_s, start_s)
            elif now_s < end_s:
                self._until_s = min(self._until_s, end_s)
                in_force.append(reservation)
                key = (reservation.org_id, reservation.model, reservation.region)
                self._sums.setdefault(key, _Sum()).units += reservation.units
        self._in_force = tuple(in_force)
        self._known.clear()
        self.version += 1

    def _add(self, principal: Principal, model: str) -> tuple[Scope, ...]:
        scopes = principal.scopes if self._limits else ()
        for region in (principal.region, None):  # an org has them with regions or without, never both
            found = self._sums.get((principal.org_id, model, region))
            if found is not None:
                shared = sum(scope.layer.shared for scope in scopes)
                guarantee = self._scope(principal.org_id, model, region, found.units)
                scopes = (*scopes[:shared], guarantee, *scopes[shared:])
                break
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[principal.key_id, model] = _Known(principal, scopes)
        return scopes

    def _scope(self, org_id: OrgId, model: str, region: str | None, units: int) -> Scope:
        """The documents' counter `reserved:org:<org_id>:tokens:second`, one for each model and region."""
        limits = Limits(tokens_per_second=units, burst_share=self._burst_s)
        return Scope(Layer.RESERVED, f"{org_id}:{region or ''}:{model}", limits, guarantee=True)
