"""Which periods an org is invoiced for: months that begin on its invoice day, at midnight of its time zone. Pure.

Invariants: periods of a calendar touch and never overlap, also where the clocks change; 31 March ends in Kolkata when
it ends there. Where midnight does not exist, the day begins with the first moment that does.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from crosslogic.billing.profiles.model import BillingTerms

MOST_PERIODS = 120  # that are closed one after the other, after a long pause


class Period(msgspec.Struct, frozen=True, order=True):
    """`end` is not included. Both in UTC."""

    start: datetime
    end: datetime


def period_of(instant: datetime, terms: BillingTerms) -> Period:
    """The month that the instant lies in."""
    zone = ZoneInfo(terms.time_zone)
    day = instant.astimezone(zone).date()
    first = day.replace(day=terms.invoice_day)
    if _midnight(first, zone) > instant:
        first = _months_later(first, -1)
    elif _midnight(_months_later(first, 1), zone) <= instant:
        first = _months_later(first, 1)
    return Period(_midnight(first, zone), _midnight(_months_later(first, 1), zone))


def ended(since: datetime, now: datetime, terms: BillingTerms) -> list[Period]:
    """Those that ended by `now`, from the one that `since` lies in; what of it lies before `since` is cut off.

    (`since` is where the last invoice ended: an org that changes its invoice day gets one short or long month.)
    """
    found: list[Period] = []
    at = since
    while len(found) < MOST_PERIODS:
        period = period_of(at, terms)
        if period.end > now:
            break
        found.append(Period(max(period.start, since), period.end))
        at = period.end
    return found


def local_day(instant: datetime, time_zone: str) -> date:
    return instant.astimezone(ZoneInfo(time_zone)).date()


def end_of_day(day: date, time_zone: str) -> datetime:
    """The last moment of the day there, in UTC."""
    return _midnight(day + timedelta(days=1), ZoneInfo(time_zone)) - timedelta(microseconds=1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of the day. In a gap of the clock, Python names the moment by the time before it: that is the
    first one after the gap."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _months_later(day: date, months: int) -> date:
    """The same day of another month; invoice days end at the 28th, so it is always there."""
    count = day.year * 12 + day.month - 1 + months
    return date(count // 12, count % 12 + 1, day.day)
