"""How payments and refunds move, and what is to be done next for one. Pure.

Invariants: only listed edges are taken; what is final stays; nothing is sent again under its key once the provider may
have forgotten the key, nor after the provider has answered with an error of its own, which it would only repeat: then
the provider's books are read. So no payment is ever taken twice under one id.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from crosslogic.billing.payments.model import Status

_C, _S, _P, _OK, _F, _U = Status
PAYMENT_EDGES: dict[Status, frozenset[Status]] = {
    _C: frozenset({_S, _F}),
    _S: frozenset({_S, _P, _OK, _F, _U}),
    _U: frozenset({_S, _P, _OK, _F, _U}),
    _P: frozenset({_P, _OK, _F}),
    _OK: frozenset(),
    _F: frozenset(),
}
# A bank may send a refund back after it was told to have succeeded.
REFUND_EDGES: dict[Status, frozenset[Status]] = {**PAYMENT_EDGES, _OK: frozenset({_F})}

CLAIM = timedelta(seconds=90)  # for how long whoever sends is left alone
SETTLED = timedelta(minutes=10)  # after the last sending, what the provider's books do not show did not happen
PENDING_LOOK = timedelta(hours=1)
ACTION_TIME = timedelta(hours=23)  # how long a payer may take to act
LONGEST_WAIT = timedelta(minutes=15)


class Step(StrEnum):
    SEND = "send"  # for the first time, or again under the same key
    READ_BACK = "read_back"  # look for it in the provider's books
    REFRESH = "refresh"  # the provider has it: ask how it stands
    NOTHING = "nothing"


def next_step(
    status: Status, first_sent_at: datetime | None, answered: bool, now: datetime, resend_within: timedelta
) -> Step:
    """What to do now. `answered`: the last sending was answered, with an error that may be repeated for ever."""
    if status is Status.CREATED or (status is Status.SENDING and first_sent_at is None):
        return Step.SEND
    if status is Status.PENDING:
        return Step.REFRESH
    if status not in (Status.SENDING, Status.UNKNOWN):
        return Step.NOTHING
    assert first_sent_at is not None
    # A clock that went back says nothing of how old the key is: then only reading is safe.
    age = now - first_sent_at
    if answered or not timedelta(0) <= age < resend_within:
        return Step.READ_BACK
    return Step.SEND


def absent_means_failed(last_sent_at: datetime | None, now: datetime) -> bool:
    """Whether what is not in the provider's books now will never be."""
    return last_sent_at is None or now - last_sent_at >= SETTLED


def pause(sendings: int) -> timedelta:
    """Exponential back-off, to a quarter of an hour (architecture document §37)."""
    return min(timedelta(seconds=5 << min(max(sendings, 1) - 1, 16)), LONGEST_WAIT)


def may_move(old: Status, new: Status, *, refund: bool = False) -> bool:
    return new in (REFUND_EDGES if refund else PAYMENT_EDGES)[old]
