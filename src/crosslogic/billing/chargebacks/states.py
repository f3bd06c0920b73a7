"""What the provider's word makes of a chargeback. Pure.

Invariant: what follows depends on what the provider says last alone, and not on what it said before: so its events may
come twice, late and in any order, and a case that is lost, reinstated and lost again comes out right.
"""

from datetime import datetime, timedelta

import msgspec

from crosslogic.billing.chargebacks.model import DECIDED, Chargeback
from crosslogic.billing.payments.model import ChargebackFound, ChargebackStatus, Withdrawal

LOOK_AGAIN = timedelta(hours=6)  # while it is undecided, should a webhook be lost
REINSTATED_WITHIN = timedelta(days=30)  # of a decision for us; money follows later than the word


def told(before: Chargeback, found: ChargebackFound, now: datetime) -> Chargeback:
    """The chargeback by the provider's word of now; `before` itself where nothing of it is new.

    What is withdrawn counts as lost only where the bank has decided against us: of a case that is won it is still on
    its way back.
    """
    lost = found.withdrawn_minor if found.status is ChargebackStatus.LOST else 0
    after = msgspec.structs.replace(
        before,
        amount_minor=found.amount_minor,
        reason=found.reason,
        status=found.status,
        withdrawn_minor=found.withdrawn_minor,
        lost_minor=lost,
        respond_by=found.respond_by,
        closed_at=(before.closed_at or now) if found.status in DECIDED else None,
        next_look_at=before.next_look_at,
    )
    if after == before:
        return before
    return msgspec.structs.replace(after, version=before.version + 1, updated_at=now)


def next_look_at(chargeback: Chargeback, now: datetime) -> datetime | None:
    closed = chargeback.closed_at
    if closed is not None and (chargeback.held_minor == 0 or now - closed > REINSTATED_WITHIN):
        return None
    return now + LOOK_AGAIN


def withdrawal(before: Chargeback, after: Chargeback, held_minor: int, at: datetime) -> Withdrawal:
    """What is to be done to what was paid for; `held_minor` is of all chargebacks of the payment."""
    return Withdrawal(
        chargeback_id=after.id,
        ref=f"{after.id}:{after.version}",
        held_minor=held_minor,
        withdrawn_delta_minor=after.withdrawn_minor - before.withdrawn_minor,
        lost_minor=after.lost_minor,
        lost_delta_minor=after.lost_minor - before.lost_minor,
        at=at,
    )
