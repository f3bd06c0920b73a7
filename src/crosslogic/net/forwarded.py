"""Where a request came from when trusted proxies handed it on (`X-Forwarded-For`). Pure.

Invariant: an address counts only as far as an unbroken chain of trusted proxies vouches for it; what a caller writes
into the header itself is never believed.
"""

from collections.abc import Callable, Iterable

Trusts = Callable[[str], bool]


def client_address(peer: str, headers: Iterable[tuple[bytes, bytes]], trusts: Trusts) -> str:
    """The address nearest to us that is no trusted proxy; each proxy appends whom it heard from."""
    if not trusts(peer):
        return peer
    chain = b",".join(value for name, value in headers if name == b"x-forwarded-for").decode("latin-1")
    nearest = peer
    for hop in reversed(chain.split(",")):
        address = hop.strip()
        if not address:
            break
        nearest = address
        if not trusts(address):
            break
    return nearest
