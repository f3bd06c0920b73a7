"""When another attempt is made before the first byte. Pure: what is left of the budget, and how long to wait."""

from email.utils import parsedate_to_datetime

COME_BACK_S = 0.25  # what a node that has just died is given to come back where there is no other; more each time
LONGEST_RETRY_AFTER_S = 600.0  # a node that asks for more may be tried again all the same


def retry_after_s(value: bytes, now_s: float) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as a number or as a date (RFC 9110); None for neither.

    `now_s` counts since 1970.
    """
    text = value.decode("latin-1").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now_s
        except (ValueError, TypeError, OverflowError):
            return None
    if not seconds >= 0:  # negative, or not a number
        return 0.0 if seconds < 0 else None
    return min(seconds, LONGEST_RETRY_AFTER_S)


def backoff_s(first_s: float, failed: int, chance: float) -> float:
    """How long to wait after so many failed attempts: doubles each time, drawn from the upper half by `chance` in
    [0, 1), so that requests which failed together do not come back together."""
    return first_s * float(2 ** (failed - 1)) * (0.5 + 0.5 * chance) if failed else 0.0
