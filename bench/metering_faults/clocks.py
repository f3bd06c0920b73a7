"""The wall clock of the product's processes, which jumps: by libfaketime, where its wheel is installed.

Only theirs: callers, nodes, PostgreSQL and monotonic clocks go on as they did. A jump is seen within a second.
"""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path

SEEN_S = 1.0


class WallClock:
    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._library = _library()
        self.set(0)

    @property
    def can_jump(self) -> bool:
        return self._library is not None

    @property
    def environment(self) -> dict[str, str]:
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(round(SEEN_S)),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset_s: float) -> None:
        """So many seconds from the truth."""
        draft = self._file.with_suffix(".part")
        draft.write_text(f"{offset_s:+.3f}")
        draft.replace(self._file)


def before_the_end_of_the_month(now: datetime) -> float:
    """Seconds to the last two seconds of the month."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ((first + timedelta(days=32)).replace(day=1) - now).total_seconds() - 2.0


def before_april_in_india(now: datetime) -> float:
    """Seconds to the last two seconds of 31 March in India, this year or next."""
    end = datetime(now.year, 3, 31, 18, 30, tzinfo=UTC)
    return ((end if end > now else end.replace(year=now.year + 1)) - now).total_seconds() - 2.0


def _library() -> Path | None:
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return library if library.exists() else None
