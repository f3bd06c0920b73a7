"""The life of one idempotency key, as a state machine. Pure: a slot and `now` in, a decision and a slot out.

    (none) ──begin──▶ running ──complete──▶ done ──time to live──▶ (none)
                        │ ▲
                        │ └─ renew, while the holder lives
                        └─ release, or lease over ──▶ (none)

    begin on      running: Join      done: Replay, or Spent when the answer was not kept
    with another body in either: Conflict

Invariants: while a slot runs there is one holder, and only that holder renews, completes or releases it; a done slot
never runs again before its time to live has passed. A holder that was given up for dead (it did not renew within its
lease) may still complete, but only if nobody has begun anew. `slot.lua` is the same machine in Redis, and
`tests/contract/test_cache_idempotency.py` holds both to it.
"""

import msgspec

from crosslogic.cache.model import Recording


class Slot(msgspec.Struct, frozen=True):
    """What is remembered of one key. Times are seconds of one clock."""

    fingerprint: bytes
    holder: str
    until_s: float  # end of the lease while running, of the memory when done
    done: bool = False
    recording: Recording | None = None  # None in a done slot: the answer was too large to be kept


class Run(msgspec.Struct, frozen=True):
    """This request is the first: it runs, and holds the slot."""


class Join(msgspec.Struct, frozen=True):
    """The same request is running: wait for its answer."""


class Replay(msgspec.Struct, frozen=True):
    """The same request has been answered: this is what was said."""

    recording: Recording


class Spent(msgspec.Struct, frozen=True):
    """The same request has been answered and billed, but its answer is no longer at hand."""


class Conflict(msgspec.Struct, frozen=True):
    """The key was used for another request."""


Decision = Run | Join | Replay | Spent | Conflict

RUN, JOIN, SPENT, CONFLICT = Run(), Join(), Spent(), Conflict()


def live(slot: Slot | None, now_s: float) -> Slot | None:
    """The slot, unless its time is over."""
    return slot if slot is not None and now_s < slot.until_s else None


def begin(
    slot: Slot | None, fingerprint: bytes, holder: str, now_s: float, lease_s: float
) -> tuple[Decision, Slot | None]:
    """Decide what becomes of a request that names this slot. Asking again with the same holder changes nothing."""
    slot = live(slot, now_s)
    if slot is None:
        return RUN, Slot(fingerprint, holder, now_s + lease_s)
    if slot.fingerprint != fingerprint:
        return CONFLICT, slot
    if not slot.done:
        return (RUN if slot.holder == holder else JOIN), slot
    return (SPENT if slot.recording is None else Replay(slot.recording)), slot


def renew(slot: Slot | None, holder: str, now_s: float, lease_s: float) -> Slot | None:
    """The slot with a new lease; unchanged when it is not this holder's to renew."""
    slot = live(slot, now_s)
    if slot is None or slot.done or slot.holder != holder:
        return slot
    return msgspec.structs.replace(slot, until_s=now_s + lease_s)


def complete(
    slot: Slot | None, fingerprint: bytes, holder: str, recording: Recording | None, now_s: float, ttl_s: float
) -> Slot:
    """The slot with the answer in it; unchanged when another holder has begun, or finished, in the meantime."""
    slot = live(slot, now_s)
    if slot is not None and (slot.done or slot.holder != holder):
        return slot
    return Slot(fingerprint, holder, now_s + ttl_s, True, recording)


def release(slot: Slot | None, holder: str, now_s: float) -> Slot | None:
    """Nothing, so that the next request runs; unchanged when it is not this holder's running slot."""
    slot = live(slot, now_s)
    if slot is None or slot.done or slot.holder != holder:
        return slot
    return None
