"""Virtual token counters: how much service each tenant of one line has had, divided by its weight.

Invariant: a change of a counter is always one of two operations, `lift` (to at least a value) and `add`. Any
sequence of them is again "lift to r, then add d", so what one worker did between two reports to the others is two
numbers a tenant (`Change`), whatever happened.
"""

import msgspec

_MOST_FORGOTTEN = 1024
NO_LIFT = -1e300


class Counters:
    """Counters of one process. `virtual` is where the tenant stood that was served last: the lane's present."""

    __slots__ = ("_prune_at", "values", "virtual")

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.virtual = 0.0
        self._prune_at = _MOST_FORGOTTEN

    def value(self, tenant: str) -> float:
        """Where this tenant stands; one that nothing is known of stands in the present."""
        return self.values.get(tenant, self.virtual)

    def lift(self, tenant: str, floor: float) -> float:
        """A tenant that comes back has saved nothing up while it was away."""
        value = self.values.get(tenant)
        if value is None or value < floor:
            value = self.values[tenant] = floor
            if len(self.values) > self._prune_at:
                self._forget_past()
        return value

    def add(self, tenant: str, amount: float) -> float:
        """Charge (or give back) service, in virtual tokens over weight."""
        value = self.values[tenant] = self.values.get(tenant, self.virtual) + amount
        return value

    def _forget_past(self) -> None:
        """Who stands behind the present would be lifted to it anyway."""
        present = self.virtual
        self.values = {tenant: value for tenant, value in self.values.items() if value >= present}
        self._prune_at = max(_MOST_FORGOTTEN, 2 * len(self.values))


class Change(msgspec.Struct):
    """x becomes max(x, floor) + amount."""

    floor: float = NO_LIFT
    amount: float = 0.0

    def applied(self, value: float) -> float:
        return max(value, self.floor) + self.amount

    def then(self, later: "Change") -> "Change":
        """This change and then the other, as one."""
        return Change(max(self.floor, later.floor - self.amount), self.amount + later.amount)


class SharedCounters(Counters):
    """Counters that several processes change. `changes` is what the others have not been told."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        super().__init__()
        self.changes: dict[str, Change] = {}

    def lift(self, tenant: str, floor: float) -> float:
        change = self._change(tenant)
        change.floor = max(change.floor, floor - change.amount)
        return super().lift(tenant, floor)

    def add(self, tenant: str, amount: float) -> float:
        self._change(tenant).amount += amount
        return super().add(tenant, amount)

    def take_changes(self) -> dict[str, Change]:
        """All changes since they were taken last; the caller answers for them from now on."""
        taken, self.changes = self.changes, {}
        return taken

    def put_back(self, changes: dict[str, Change]) -> None:
        """Changes that were taken and did not arrive."""
        for tenant, change in changes.items():
            later = self.changes.get(tenant)
            self.changes[tenant] = change if later is None else change.then(later)

    def tell_all(self) -> None:
        """Nobody else remembers anything: every counter is to be told as it stands here."""
        self.changes = {tenant: Change(floor=value) for tenant, value in self.values.items()}

    def learn(self, tenant: str, value: float) -> None:
        """What all processes together know, with all that this one had told by then."""
        change = self.changes.get(tenant)
        self.values[tenant] = value if change is None else change.applied(value)

    def _change(self, tenant: str) -> Change:
        change = self.changes.get(tenant)
        if change is None:
            change = self.changes[tenant] = Change()
        return change
