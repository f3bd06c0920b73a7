"""Scopes whose truth is in Redis, as one worker knows them, and the list of those about which Redis must be told.

Pure. Invariant: what was given back is told once; what is held (running requests, reserved money) is told as an
absolute number, so telling it again is harmless.
"""

from collections import deque

import msgspec

from crosslogic.limits.bucket import Units
from crosslogic.limits.budget import RemoteSpend
from crosslogic.limits.model import RATES, Scope
from crosslogic.limits.plan import UNITS, Counter, terms, unit_and_capacity_s, unit_of

_US = 1e6
_SHARED, _GUARANTEE, _SHADOW = 1, 2, 4  # as `admit.lua` reads them
_encode = msgspec.msgpack.Encoder().encode

Row = tuple[object, ...]


class RemoteCounter(Counter):
    """A scope whose truth is in Redis: here is what Redis has to be told next.

    Its own buckets (`full_at_s`) are in use only while this worker is alone.
    """

    __slots__ = ("_back", "_terms", "alone_us", "batch", "has_budget", "held", "key", "row", "spend", "told", "units")

    spend: RemoteSpend

    def __init__(self, scope: Scope, prefix: str) -> None:
        super().__init__(scope)
        self.spend = RemoteSpend()
        self.key = f"{prefix}{scope.layer.value}:{scope.id}".encode()
        self._back: list[int] | None = None  # of each unit
        self.alone_us: dict[int, float] | None = None
        self.told = True  # False: it waits in the limiter's list of counters to tell Redis about
        self.batch: object = None  # the batch being written that has it, at place `row`
        self.row = 0

    def governed_by(self, scope: Scope) -> None:
        slots, budget_nusd, rates = terms(scope)
        shadow = scope.limits.shadow and not scope.guarantee
        flags = _SHARED * scope.layer.shared + _GUARANTEE * scope.guarantee + _SHADOW * shadow
        flat: list[float] = [-1 if slots is None else slots, flags, -1 if budget_nusd is None else budget_nusd]
        for place, limit in rates:
            unit_s, capacity_s = unit_and_capacity_s(RATES[place], limit, scope.limits.burst_share)
            flat += [place + 1, unit_of(place) + 1, unit_s * _US, capacity_s * _US, limit]
        self._terms = msgspec.Raw(_encode(flat))
        self.units = tuple({unit_of(place) for place, _ in rates})
        self.has_budget = budget_nusd is not None
        self.held = slots is not None or self.has_budget  # leases are written here

    def idle(self, now_s: float) -> bool:
        return self.told and super().idle(now_s)

    def give_back(self, units: Units) -> bool:
        """Note what was not used of each unit. Returns whether Redis has to hear of it."""
        for unit in self.units:
            if units[unit]:
                back = self._back
                if back is None:
                    self._back = list(units)
                else:
                    for place, more in enumerate(units):
                        back[place] += more
                return True
        return self.held

    def tell(self) -> Row:
        """What Redis has to know, as `admit.lua` reads it; all that is told once is taken out of here."""
        back, alone_us = self._back, self.alone_us
        self._back = self.alone_us = None
        if self.has_budget:
            return self._terms, self.in_flight, back or 0, alone_us or 0, self.spend.tell()
        if alone_us is None:
            return (self._terms, self.in_flight) if back is None else (self._terms, self.in_flight, back)
        return self._terms, self.in_flight, back or 0, alone_us


class News:
    """The counters that Redis must be told about, each once, oldest first."""

    def __init__(self, most: int) -> None:
        self._untold: deque[RemoteCounter] = deque()
        self._most = most

    def __len__(self) -> int:
        return len(self._untold)

    def add(self, counter: RemoteCounter) -> None:
        if counter.told:
            counter.told = False
            self._untold.append(counter)

    def take(self) -> list[RemoteCounter]:
        """As many as fit into one batch."""
        taken = [self._untold.popleft() for _ in range(min(self._most, len(self._untold)))]
        for counter in taken:
            counter.told = True
        return taken


assert len(UNITS) == 5, "Units has one place for each"
