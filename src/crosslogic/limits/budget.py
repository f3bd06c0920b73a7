"""The money that a scope may spend in one calendar month (UTC): pure counting, in whole nano-USD.

Spent is what requests were settled to; held is what those that still run have reserved. A request may pass while
`settled + held + its cost <= budget`. A request belongs to the month in which it was admitted: what is settled after
that month has ended touches no counter any more, since nobody can spend the past month's budget.

Invariant: `settled` never falls within a month. So the greatest figure that anybody knows of it (this process, Redis,
another worker, the ledger) is the best one, and `at_least` takes over any of them at any time: that is how a counter
that was lost regains the truth.
"""

from datetime import datetime
from typing import NamedTuple


class Month(NamedTuple):
    """A calendar month (UTC) and how much of it is left."""

    number: int
    left_s: float


NO_MONTH = Month(0, 0.0)


def month_number(year: int, month: int) -> int:
    """Months as consecutive whole numbers: `year * 12 + month - 1`."""
    return year * 12 + month - 1


def month_at(now: datetime) -> Month:
    """The month of an aware time in UTC."""
    ends = now.replace(year=now.year + now.month // 12, month=now.month % 12 + 1, day=1, hour=0, minute=0, second=0)
    return Month(month_number(now.year, now.month), (ends.replace(microsecond=0) - now).total_seconds())


class Spend:
    """What one scope has spent and holds in the current month."""

    __slots__ = ("held_nusd", "month", "settled_nusd")

    def __init__(self) -> None:
        self.month = 0
        self.settled_nusd = 0
        self.held_nusd = 0

    def left_nusd(self, month: Month, budget_nusd: int, workers: int) -> int:
        """What may still be reserved, for one of `workers` that share what is left."""
        self.enter(month.number)
        return (budget_nusd - self.settled_nusd - self.held_nusd) // workers

    def enter(self, month: int) -> None:
        """A new month begins with nothing spent."""
        if month > self.month:
            self.month = month
            self.settled_nusd = self.held_nusd = 0

    def hold(self, month: int, cost_nusd: int) -> None:
        """Reserve for a request that was admitted in `month`."""
        self.enter(month)
        if month == self.month:
            self.held_nusd += cost_nusd

    def settle(self, month: int, held_nusd: int, used_nusd: int) -> None:
        """Put what was used in the place of what was held since `month`; 0: nothing ran."""
        if month == self.month:
            self.held_nusd -= held_nusd
            self.settled_nusd += used_nusd

    def at_least(self, month: int, settled_nusd: int) -> None:
        """Somebody knows that so much has been spent in `month`."""
        self.enter(month)
        if month == self.month:
            self.settled_nusd = max(self.settled_nusd, settled_nusd)

    @property
    def known(self) -> tuple[int, int]:
        """(month, spent in it): what must outlive this counter."""
        return self.month, self.settled_nusd


class RemoteSpend(Spend):
    """The same where Redis has the truth: what this worker holds, what it has still to tell, what it last heard.

    What is held is told as an absolute number, a lease like that of running requests, so it is right again after
    anything; what was used is told once. `floor` is the greatest figure heard of what was spent, told every time.
    Here `settled_nusd` is what was used and not told yet.
    """

    __slots__ = ("_alone", "_elsewhere_nusd", "_floor", "_told_held_nusd", "sent_nusd")

    def __init__(self) -> None:
        super().__init__()
        self.sent_nusd = 0  # used and told in the call under way
        self._floor = (0, 0)  # (month, spent)
        self._elsewhere_nusd = 0  # spent, or held by other workers, when Redis was last heard
        self._told_held_nusd = 0  # of what is held here, as much as Redis knew of then
        self._alone = False  # the picture is kept as it was when Redis went away

    def enter(self, month: int) -> None:
        """A new month begins with nothing spent."""
        if month > self.month:
            super().enter(month)
            self.sent_nusd = self._elsewhere_nusd = self._told_held_nusd = 0

    def left_nusd(self, month: Month, budget_nusd: int, workers: int) -> int:
        """While alone: this worker's share of what was left when Redis was last heard, less its own use since."""
        self.enter(month.number)
        if not self._alone:
            self._alone = True
            if self._floor[0] == self.month:
                self._elsewhere_nusd = max(self._elsewhere_nusd, self._floor[1])
        share_nusd = (budget_nusd - self._elsewhere_nusd - self._told_held_nusd) // workers
        return share_nusd - (self.held_nusd + self.settled_nusd + self.sent_nusd - self._told_held_nusd)

    def at_least(self, month: int, settled_nusd: int) -> None:
        """Somebody knows that so much has been spent in `month`."""
        self._floor = max(self._floor, (month, settled_nusd))

    def tell(self) -> tuple[int, int, int, int, int]:
        """(month, held, used and not told before, month of the floor, floor) for Redis."""
        used_nusd, self.settled_nusd = self.settled_nusd, 0
        self.sent_nusd += used_nusd
        return self.month, self.held_nusd, used_nusd, *self._floor

    def learn(self, month: int, settled_nusd: int, held_elsewhere_nusd: int, held_here_nusd: int) -> None:
        """What Redis answered."""
        self.enter(month)
        self.at_least(month, settled_nusd)
        self.sent_nusd = 0
        self._alone = False
        self._elsewhere_nusd = settled_nusd + held_elsewhere_nusd
        self._told_held_nusd = held_here_nusd

    def untold(self) -> None:
        """What was told last has been lost: tell it again."""
        self.settled_nusd += self.sent_nusd
        self.sent_nusd = 0

    @property
    def known(self) -> tuple[int, int]:
        """(month, spent in it): what must outlive this counter."""
        return self._floor
