"""Of the runs under one idempotency key one is charged: which, and what the ledger says of the others. Pure.

A repeat runs again only where the first answer was not kept: its gateway died, or Redis was away. Both runs are then
recorded, perhaps by journals of two machines, in any order. The org's log decides, in its order: the first whole answer
is charged, and what comes behind it costs nothing; an interrupted run, of which recovery closed the account, gives its
charge up when a whole answer comes. Runs that did not come to their end otherwise (their caller left, their node broke)
are charged for themselves, as ever; but nothing is charged beside a run that holds the key.

Invariants: at most one run that is whole or interrupted is charged for a key within its time. Behind a row that costs
nothing for this reason no row of its request follows; it names the request that is charged.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.metering.model import Evidence, Outcome
from crosslogic.metering.rated import SUMMED, difference

GIVEN_UP = "its gateway died before it answered; the repeat under its idempotency key is charged instead"
BY_ITSELF = "crosslogic"
_HOLDING = frozenset({Outcome.COMPLETED.value, Outcome.INTERRUPTED.value})

Run = list[LedgerRow]  # the rows of one request, in order of their `n`


def is_given_away(rows: Iterable[LedgerRow]) -> bool:
    """Whether a request's charge is that of another one."""
    return any(row.repeat_of is not None for row in rows)


class ChargedRuns:
    """The runs that hold their keys: `known` are the rows of these keys that the ledger has."""

    def __init__(self, known: Iterable[LedgerRow]) -> None:
        requests: dict[str, Run] = defaultdict(list)
        for row in sorted(known, key=lambda each: (each.seq, each.n)):
            requests[row.request_id].append(row)
        self._holding: dict[tuple[str, str | None], list[Run]] = defaultdict(list)
        for rows in requests.values():
            if not is_given_away(rows):
                self._hold(rows)

    def corrected(self, row: LedgerRow) -> None:
        """A correction of a run that the ledger has."""
        for rows in self._holding[row.org_id, row.once]:
            if rows[0].request_id == row.request_id:
                rows.append(row)

    def settled(self, row: LedgerRow, ttl_s: int) -> Sequence[LedgerRow]:
        """What the ledger writes for a new run."""
        held = self._holding[row.org_id, row.once]
        holder = next((rows for rows in held if _is_near(rows, row, ttl_s)), None)
        if holder is None:
            self._hold([row])
            return (row,)
        if row.outcome == Outcome.COMPLETED.value and holder[-1].outcome == Outcome.INTERRUPTED.value:
            held.remove(holder)
            self._hold([row])
            return given_up(holder, row), row
        return (msgspec.structs.replace(row, cost_pusd=0, cost_microdollars=0, repeat_of=holder[0].request_id),)

    def _hold(self, rows: Run) -> None:
        if rows[-1].outcome in _HOLDING:
            self._holding[rows[0].org_id, rows[0].once].append(rows)


def with_keys_settled(
    new: Sequence[LedgerRow],
    corrections: Sequence[LedgerRow],
    known: Iterable[LedgerRow],
    ttl_s: Mapping[str, int],
) -> list[LedgerRow]:
    """The rows of a batch: corrections of what the ledger has, then new requests. `ttl_s` has those under a key."""
    runs = ChargedRuns(known)
    for row in corrections:
        runs.corrected(row)
    written = list(corrections)
    for row in new:
        written += runs.settled(row, ttl_s[row.request_id]) if row.request_id in ttl_s else (row,)
    return written


def given_up(rows: Sequence[LedgerRow], instead: LedgerRow) -> LedgerRow:
    """The correction by which an interrupted run costs nothing, nor counts as anything that was used."""
    nothing = msgspec.structs.replace(
        rows[-1],
        **dict.fromkeys(SUMMED, 0),
        evidence=Evidence.NONE.value,
        recorded_us=instead.recorded_us,
        repeat_of=instead.request_id,
    )
    return difference(rows, nothing, GIVEN_UP, BY_ITSELF)


def _is_near(rows: Run, row: LedgerRow, ttl_s: int) -> bool:
    """Whether the later of two runs began before the key's time was over, which begins with the earlier one's end."""
    earlier, later = sorted((rows[-1], row), key=lambda each: each.timestamp_us)
    ended_us = earlier.timestamp_us + earlier.latency_ms * 1_000
    return later.timestamp_us < ended_us + ttl_s * 1_000_000
