"""Where a list of kept answers goes on: after the end and the digest of the last one that was shown. Pure.

Invariant: the order (end, digest) of an answer never changes while it is kept, so nothing is shown twice or left out
however many others come and go between two pages.
"""

import re

import msgspec

from crosslogic.kernel.errors import InvalidRequest

_CURSOR = re.compile(r"([0-9]{1,15})-([0-9a-f]{64})", re.ASCII)


class Position(msgspec.Struct, frozen=True, order=True):
    """`end_ms` is of whatever clock the cache goes by."""

    end_ms: int
    digest: bytes

    def cursor(self) -> str:
        return f"{self.end_ms}-{self.digest.hex()}"


START = Position(0, b"")


def position_at(cursor: str | None) -> Position:
    """Raises InvalidRequest for what `Position.cursor` never was."""
    if cursor is None:
        return START
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise InvalidRequest("cursor is no cursor of this list", param="cursor")
    return Position(int(found[1]), bytes.fromhex(found[2]))
