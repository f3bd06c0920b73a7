"""Which charges make which windows, and what is to be done next for one. Pure.

Invariants: every charge is in exactly one window of each of its meters, for the cursor only moves over what is sealed
with it; usage of an hour that comes late makes a further window of that hour. An identifier is sent again only while
the provider surely remembers it; after that its sums decide.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import combinations

from crosslogic.billing.exports.model import COUNTING, Counted, Window, WindowStatus
from crosslogic.kernel.ids import OrgId

HOUR = timedelta(hours=1)
GRACE = timedelta(minutes=5)  # after its end, before an hour is sealed
AHEAD = timedelta(minutes=5)  # usage from further ahead than this is from a clock that was wrong
RESEND_WITHIN = timedelta(hours=23)  # identifiers are forgotten after 24 h at the earliest
CLAIM = timedelta(minutes=2)
RETRY = timedelta(minutes=15)  # architecture document §37
SUMS_SETTLE = timedelta(hours=2)  # after the last sending, before the provider's sums decide
OLDEST_EVENT = timedelta(days=34)  # Stripe takes 35
MOST_DOUBTFUL = 12  # of one hour, that sums can tell apart

Key = tuple[str, datetime]  # meter and hour


class Step(StrEnum):
    SEND = "send"
    DOUBT = "doubt"  # from now on only the provider's sums may decide
    COMPARE = "compare"
    REPLACE = "replace"
    NOTHING = "nothing"


def meter_of(model: str, kind: str) -> str:
    """The event name of a model's tokens of a kind, `qwen-2-5-7b-1a2b3c4d_input`: short, and different for each."""
    slug = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:24].strip("-")
    return f"{slug}-{hashlib.sha256(model.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}_{kind}"


def quantities_of(charge: Counted) -> dict[str, int]:
    """Tokens by meter; below zero in a correction that takes back."""
    kinds = {
        "input": charge.prompt_tokens - charge.cached_tokens,
        "cached": charge.cached_tokens,
        "output": charge.completion_tokens,
    }
    return {meter_of(charge.model, kind): tokens for kind, tokens in kinds.items() if tokens}


def hour_of(at: datetime, now: datetime) -> datetime:
    """The hour that usage is told under. What a wrong clock put into the future counts for the last hour that is over:
    it must not hold up what comes after it."""
    hour = _floor(now) - HOUR if at > now + AHEAD else _floor(at)
    return min(hour, _floor(now))


def sealed(charges: Iterable[Counted], now: datetime) -> tuple[dict[Key, int], int | None]:
    """What can be told of these charges, in order of the ledger, and the position up to which that is all.

    It ends before the first charge whose hour is not over; None when nothing can be told.
    """
    sums: dict[Key, int] = {}
    through: int | None = None
    for charge in charges:
        hour = hour_of(charge.at, now)
        if hour + HOUR + GRACE > now:
            break
        for meter, tokens in quantities_of(charge).items():
            sums[meter, hour] = sums.get((meter, hour), 0) + tokens
        through = charge.seq
    return {key: tokens for key, tokens in sums.items() if tokens}, through


def identifier(org_id: OrgId, meter: str, hour: datetime, n: int) -> str:
    """At most 100 characters: `cic:org_…:meter:2026010203:1`."""
    return f"cic:{org_id}:{meter}:{hour.astimezone(UTC):%Y%m%d%H}:{n}"


def event_time(hour: datetime, now: datetime) -> datetime:
    """What the event says: its hour, or the oldest that is still taken."""
    return max(hour, _floor(now - OLDEST_EVENT))


def next_step(window: Window, now: datetime) -> Step:
    if window.next_step_at is None or window.next_step_at > now:
        return Step.NOTHING
    if window.status is WindowStatus.SEALED:
        return Step.SEND
    if window.status is WindowStatus.SENDING:
        assert window.first_sent_at is not None
        young = timedelta(0) <= now - window.first_sent_at < RESEND_WITHIN
        return Step.SEND if young else Step.DOUBT
    if window.status is WindowStatus.DOUBTFUL:
        return Step.COMPARE
    return Step.REPLACE if window.status is WindowStatus.REJECTED else Step.NOTHING


def in_order(waiting: Sequence[Window]) -> list[Window]:
    """Of each meter the oldest that is still to be sent; what is compared or replaced holds nobody up."""
    first: dict[str, Window] = {}
    others = []
    for window in sorted(waiting, key=lambda each: (each.hour, each.n)):
        if window.status in (WindowStatus.SEALED, WindowStatus.SENDING):
            first.setdefault(window.meter, window)
        else:
            others.append(window)
    return [*first.values(), *others]


def told_apart(windows: Sequence[Window], total: int) -> Mapping[str, bool] | None:
    """Which of the doubtful windows of an hour count, when the provider's sum of that hour is `total`.

    Where several choices fit, any of them leaves the same to be told again. None where no choice fits: the sum may not
    be complete yet, or a person has to look.
    """
    rest = total - sum(each.quantity for each in windows if each.status in COUNTING)
    doubtful = [each for each in windows if each.status is WindowStatus.DOUBTFUL]
    if len(doubtful) > MOST_DOUBTFUL:
        return None
    for size in range(len(doubtful), -1, -1):
        for chosen in combinations(doubtful, size):
            if sum(each.quantity for each in chosen) == rest:
                return {each.id: each in chosen for each in doubtful}
    return None


def pause(sendings: int) -> timedelta:
    """Exponential back-off at first, then every quarter of an hour."""
    return min(timedelta(seconds=15 << min(max(sendings, 1) - 1, 12)), RETRY)


def _floor(instant: datetime) -> datetime:
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
