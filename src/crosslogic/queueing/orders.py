"""In which order those go that wait: first come, or by priority with ageing; fair shares have a file of their own.

Every order is a strategy over one lane. Adding, taking and asking for a position cost O(log n) comparisons, beside
one move of pointers inside a list (a few µs at 10,000 waiting).

With ageing a request gains one level of priority for each `ageing_s` that it waits. All age alike, so which of two
goes first never changes: the order is fixed when a request is added, by `enqueued - priority · ageing_s`.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from typing import Protocol

from crosslogic.queueing.model import Turn, TurnAsk

AGEING_S = 5.0


class Order(Protocol):
    def __len__(self) -> int: ...
    def add(self, ask: TurnAsk) -> None:
        """`ask` waits from now on. Its `sequence` is unique and grows; one that is put back keeps its own."""
        ...

    def first(self) -> TurnAsk | None:
        """Whose turn is next; it stays until it is removed."""
        ...

    def remove(self, ask: TurnAsk) -> None:
        """`ask` waits no more."""
        ...

    def position(self, ask: TurnAsk) -> int:
        """How many turns until it has its own; 1 is next."""
        ...

    def wait_s(self, ask: TurnAsk, per_s: float) -> float:
        """How long until then, where `per_s` turns are given in a second."""
        ...

    def charge(self, ask: TurnAsk, now_s: float) -> float:
        """`ask` starts (it may never have waited): count its service. Returns what `settle` has to correct."""
        ...

    def settle(self, turn: Turn, cost: float) -> None:
        """The turn took `cost` virtual tokens in truth."""
        ...


NewOrder = Callable[[], Order]


class _Ranked:
    """Those waiting, sorted by a rank that never changes."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, TurnAsk]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def _insert(self, ask: TurnAsk) -> None:
        insort(self._waiting, (ask.rank, ask.sequence, ask))

    def first(self) -> TurnAsk | None:
        return self._waiting[0][2] if self._waiting else None

    def remove(self, ask: TurnAsk) -> None:
        del self._waiting[bisect_left(self._waiting, (ask.rank, ask.sequence))]

    def position(self, ask: TurnAsk) -> int:
        return bisect_left(self._waiting, (ask.rank, ask.sequence)) + 1

    def wait_s(self, ask: TurnAsk, per_s: float) -> float:
        return self.position(ask) / per_s

    def charge(self, ask: TurnAsk, now_s: float) -> float:
        return 0.0

    def settle(self, turn: Turn, cost: float) -> None:
        """Nothing was counted."""


class Fifo(_Ranked):
    """First come, first served."""

    def add(self, ask: TurnAsk) -> None:
        self._insert(ask)


class PriorityAgeing(_Ranked):
    """Higher priority first; each `ageing_s` of waiting counts for one level."""

    def __init__(self, ageing_s: float = AGEING_S) -> None:
        super().__init__()
        self._ageing_s = ageing_s

    def add(self, ask: TurnAsk) -> None:
        ask.rank = (ask.enqueued_s or 0.0) - ask.priority * self._ageing_s
        self._insert(ask)
