"""Checking the address of a node before anybody connects to it.

Whoever may register a node chooses where this product sends requests, so an address must not reach what only
machines inside may reach: the metadata services of clouds hand out credentials to whoever asks. Loopback and
private networks stay allowed, since nodes live there. A host name that *resolves* to such an address is not
seen here; networks that matter should also drop the route.
"""

import ipaddress
from urllib.parse import SplitResult, urlsplit

from crosslogic.kernel.errors import InvalidRequest

MAX_URL_CHARS = 2_048
TUNNEL = "tunnel://"
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "metadata.azure.internal"})
_METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text) for text in ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254")
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_tunnel(url: str) -> bool:
    """Whether nobody can connect to the node there: its agent dials out to gateways."""
    return url.startswith(TUNNEL)


def tunnel_endpoint(node_id: str, path: str = "") -> str:
    """The address of a node behind its own tunnel; `path` is what its engine's paths begin with."""
    return f"{TUNNEL}{node_id}{path}"


def checked_endpoint(url: str, node_id: str | None = None, *, allow_link_local: bool = False) -> str:
    """`url` as it is stored: without trailing slash and without `/v1`, which every path of ours begins with.

    Raises InvalidRequest for what is no HTTP address, carries credentials, leads to a metadata service (which
    `allow_link_local` permits), or is the tunnel of another node than `node_id`.
    """
    if len(url) > MAX_URL_CHARS or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise _refused("is too long or has blanks in it")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _refused("cannot be read") from None
    if is_tunnel(url):
        return _checked_tunnel(parts, node_id)
    if parts.scheme not in ("http", "https"):
        raise _refused("must begin with http://, https:// or tunnel://")
    if not host or port == 0:
        raise _refused("names no host to connect to")
    if parts.username is not None or parts.password is not None:
        raise _refused("must not carry credentials; give the node's key as api_key")
    if parts.query or parts.fragment or "\\" in url:
        raise _refused("must end with its path")
    if not allow_link_local and _is_metadata(host):
        raise _refused("leads to a link-local or metadata address")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def _checked_tunnel(parts: SplitResult, node_id: str | None) -> str:
    if not node_id or parts.netloc != node_id:
        raise _refused("is a tunnel that is not this node's own; write tunnel:// and the node's id")
    if parts.query or parts.fragment or "\\" in parts.path:
        raise _refused("must end with its path")
    return tunnel_endpoint(node_id, parts.path.rstrip("/").removesuffix("/v1").rstrip("/"))


def _refused(why: str) -> InvalidRequest:
    # The URL itself is left out: it may carry a password.
    return InvalidRequest(f"the endpoint URL {why}", param="endpoint_url")


def _is_metadata(host: str) -> bool:
    if host.lower().rstrip(".") in _METADATA_NAMES:
        return True
    address = _address(host)
    if address is None:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            address = inner
    return address.is_link_local or address in _METADATA_ADDRESSES


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    return _loose_ipv4(host.rstrip("."))


def _loose_ipv4(host: str) -> ipaddress.IPv4Address | None:
    """What the C library takes for an address too: 2852039166, 0xa9fea9fe, 0251.0376.43518 (inet_aton(3))."""
    parts = host.split(".")
    try:
        numbers = [_c_number(part) for part in parts]
    except ValueError:
        return None
    *leading, last = numbers
    if len(parts) > 4 or any(number > 255 for number in leading) or last >= 256 ** (5 - len(parts)):
        return None
    value = last
    for place, number in enumerate(leading):
        value |= number << (24 - 8 * place)
    return ipaddress.IPv4Address(value)


def _c_number(text: str) -> int:
    if not text.isascii() or not text.isalnum() or len(text) > 16:
        raise ValueError(text)
    if text[:2] in ("0x", "0X"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if text[0] == "0" and len(text) > 1 else int(text)
