"""Numbers that people read: series, fiscal year, and a serial without a hole. Pure.

Invariant: a number has at most 16 characters, letters, digits, `-` and `/` (Central Goods and Services Tax Rules 2017,
rule 46(b)), and tells series, year and serial apart.
"""

from datetime import datetime

from crosslogic.billing.invoices.periods import local_day
from crosslogic.kernel.errors import ConfigurationError

MOST_CHARACTERS = 16
LEAST_DIGITS = 6


def fiscal_year(instant: datetime, time_zone: str, first_month: int) -> str:
    """`2026` where years begin in January, `2627` for the one from April 2026 on."""
    day = local_day(instant, time_zone)
    if first_month == 1:
        return f"{day.year:04d}"
    begins = day.year if day.month >= first_month else day.year - 1
    return f"{begins % 100:02d}{(begins + 1) % 100:02d}"


def number_of(series: str, year: str, serial: int) -> str:
    """Raises ConfigurationError where the series is too long for it, or has other characters."""
    number = f"{series}/{year}/{serial:0{LEAST_DIGITS}d}"
    shorter = f"{series}/{year}/{serial}"
    number = number if len(number) <= MOST_CHARACTERS else shorter
    if len(number) > MOST_CHARACTERS:
        raise ConfigurationError(
            f"the invoice number {number} has more than {MOST_CHARACTERS} characters; use a shorter billing.series"
        )
    return number
