"""What rating remembers of an org between two rows of its ledger: how much of the month's allowances is used up.

Invariant: it is a function of the rows rated so far, in their order, and stays small: months and hours that lie far
behind the latest usage are forgotten. (A row that comes later than that begins their allowances anew.)
"""

from datetime import UTC, datetime, timedelta

import msgspec

from crosslogic.billing.charges.model import Charge

KEPT_MONTHS = 3
KEPT_HOURS = timedelta(days=7)


class RatingState(msgspec.Struct):
    """Changed in place, by `rate` alone. Months are "2026-01", hours "2026-01-01T05", both in UTC."""

    free_used: dict[str, int] = {}  # tokens, by month
    positions: dict[str, dict[str, int]] = {}  # by month, then by what is counted: tokens, or pico-units
    ladder_rates: dict[str, str] = {}  # by month and currency: where the month's steps were placed
    reserved_used: dict[str, dict[str, int]] = {}  # tokens, by hour, then by reservation
    drawn: dict[str, int] = {}  # pico-units, by grant
    spent: dict[str, int] = {}  # pico-units before credits, by day: "2026-01-05"
    quantities: dict[str, dict[str, int]] = {}  # by month, then by item and model: "input llama-3-8b"
    month: str = ""  # the latest there was usage in
    hour: str = ""

    def copy(self) -> "RatingState":
        return RatingState(
            dict(self.free_used),
            {month: dict(positions) for month, positions in self.positions.items()},
            dict(self.ladder_rates),
            {hour: dict(used) for hour, used in self.reserved_used.items()},
            dict(self.drawn),
            dict(self.spent),
            {month: dict(each) for month, each in self.quantities.items()},
            self.month,
            self.hour,
        )

    def enter(self, at: datetime) -> None:
        """Usage of this time comes next."""
        month, hour = month_of(at), hour_of(at)
        if month > self.month:
            self.month = month
            oldest = _months_before(at, KEPT_MONTHS)
            self.free_used = {name: used for name, used in self.free_used.items() if name >= oldest}
            self.positions = {name: each for name, each in self.positions.items() if name >= oldest}
            self.ladder_rates = {name: each for name, each in self.ladder_rates.items() if name >= oldest}
            self.spent = {name: each for name, each in self.spent.items() if name >= oldest}
            self.quantities = {name: each for name, each in self.quantities.items() if name >= oldest}
        if hour > self.hour:
            self.hour = hour
            if self.reserved_used:
                first = hour_of(at - KEPT_HOURS)
                self.reserved_used = {name: used for name, used in self.reserved_used.items() if name >= first}

    def note(self, charge: Charge) -> None:
        """For estimates: what was spent on which day, and what was used in which month."""
        day = charge.at.astimezone(UTC).isoformat()[:10]
        if charge.amount:
            self.spent[day] = self.spent.get(day, 0) + charge.amount
        used = self.quantities.setdefault(day[:7], {})
        for line in charge.terms.lines:
            name = f"{line.item} {charge.model}"
            used[name] = used.get(name, 0) + line.quantity

    def use_free(self, month: str, tokens: int) -> None:
        self.free_used[month] = self.free_used.get(month, 0) + tokens

    def position(self, month: str, counted: str) -> int:
        return self.positions.get(month, {}).get(counted, 0)

    def move(self, month: str, counted: str, by: int) -> None:
        positions = self.positions.setdefault(month, {})
        positions[counted] = positions.get(counted, 0) + by

    def use_reserved(self, hour: str, reservation_id: str, tokens: int) -> None:
        used = self.reserved_used.setdefault(hour, {})
        used[reservation_id] = used.get(reservation_id, 0) + tokens


def month_of(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()[:7]  # ten times as quick as strftime, and each row asks several times


def hour_of(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()[:13]


def _months_before(at: datetime, months: int) -> str:
    number = at.year * 12 + at.month - 1 - months
    return f"{number // 12:04}-{number % 12 + 1:02}"
