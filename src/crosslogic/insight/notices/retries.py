"""When a delivery that failed is tried again. Pure.

The pauses are those that the Standard Webhooks specification recommends: quick at first, then over three days.
"""

from datetime import timedelta

PAUSES_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)


def pause_after(attempts: int) -> timedelta | None:
    """How long to wait after so many failed attempts; None when it is given up."""
    return timedelta(seconds=PAUSES_S[attempts - 1]) if attempts <= len(PAUSES_S) else None
