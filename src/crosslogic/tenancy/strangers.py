"""Who keeps knocking with keys that nobody has: bad keys from one address are slowed more and more. Pure.

Invariants: a key that is known is never slowed, whatever else comes from its address, for many callers may share one
(NAT); memory is bounded, and an address that is forgotten begins anew. Each worker counts for itself.

The failures of an address fill a bucket that drains at `per_minute`. Each failure that finds it full doubles the
pause, from one second to five minutes, in which further bad keys are answered without being looked at. Only when the
bucket is empty again, after a quiet minute, does the pause begin at one second. (OWASP ASVS 4.0, 2.2.1.)
"""

from ipaddress import IPv6Address, ip_address
from math import ceil

import msgspec

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 300.0
MOST_ADDRESSES = 10_000
_MINUTE_S = 60.0


class _Knocks(msgspec.Struct, gc=False):
    empty_at_s: float = 0.0  # when the bucket of failures is empty again
    closed_until_s: float = 0.0
    pause_s: float = FIRST_PAUSE_S  # of the next failure above the rate


class Strangers:
    """`per_minute` 0: nobody is slowed."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._knocks: dict[str, _Knocks] = {}

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._knocks)

    def wait_s(self, address: str, now_s: float) -> int | None:
        """Whole seconds until a bad key from here is looked at again; None: at once."""
        knocks = self._knocks.get(_place(address)) if self._knocks and self.per_minute else None
        if knocks is None or now_s >= knocks.closed_until_s:
            return None
        return max(1, ceil(knocks.closed_until_s - now_s))

    def failed(self, address: str, now_s: float) -> None:
        """A bad key came from here, and was looked at."""
        if not self.per_minute:
            return
        place = _place(address)
        knocks = self._knocks.pop(place, None)
        if knocks is None or knocks.empty_at_s <= now_s:
            while len(self._knocks) >= MOST_ADDRESSES:
                del self._knocks[next(iter(self._knocks))]
            knocks = _Knocks(empty_at_s=now_s)
        self._knocks[place] = knocks  # the one that was heard of last is forgotten last
        each_s = _MINUTE_S / self.per_minute
        knocks.empty_at_s += each_s
        if knocks.empty_at_s + each_s > now_s + _MINUTE_S + 1e-6:
            knocks.closed_until_s = now_s + knocks.pause_s
            # A minute's worth of quiet after the pause, and all is forgotten.
            knocks.empty_at_s = knocks.closed_until_s + _MINUTE_S
            knocks.pause_s = min(knocks.pause_s * 2, LONGEST_PAUSE_S)


def _place(address: str) -> str:
    """IPv6 callers choose among 2^64 addresses of their own: the network stands for them."""
    if ":" not in address:
        return address
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{int(found) >> 64:x}/64"
