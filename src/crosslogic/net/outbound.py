"""Requests to addresses that tenants give: to public hosts only, whatever their names say.

Invariant: a connection is opened only to an address that was checked, and it is that very address that is connected
to: a name that answers differently the second time (rebinding) gains nothing. Redirects are not followed, proxies of
the environment not used, bodies not read beyond a bound.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

import httpcore
import httpx

from crosslogic.kernel.errors import InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]

DEADLINE_S = 10.0
_MOST_BYTES = 64 * 1024
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")  # all that is given out on the internet
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")


class AddressRefused(Exception):
    """The host leads to an address that is not public."""


def is_public(address: Address) -> bool:
    """Whether it is a host of the internet: also what carries an IPv4 address is asked for that one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address in _SIX_TO_FOUR:
            return is_public(ipaddress.IPv4Address((int(address) >> 80) & 0xFFFF_FFFF))
        if address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast


def is_not_metadata(address: Address) -> bool:
    """For sites that send to hosts of their own: all but link-local addresses, where clouds keep their secrets."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return is_not_metadata(address.ipv4_mapped)
    return not (address.is_link_local or address.is_multicast or address.is_unspecified)


def check_url(url: str, *, private: bool = False) -> str:
    """The URL as it is, if it is one that may be called: https, with a host, without a name or password in it.

    `private`: the operator lets tenants send to hosts of the site, then http will do. Raises InvalidRequest. Where
    the host leads is looked at when it is connected to, each time.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidRequest("this is no URL; write https://host/path", param="target") from None
    if parts.scheme not in (("https", "http") if private else ("https",)) or not host:
        raise InvalidRequest("write a URL that begins with https://", param="target")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("the URL must not hold a name or password", param="target")
    if port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidRequest("the URL holds characters that it may not; encode them", param="target")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return url
    if not (is_not_metadata(literal) if private else is_public(literal)):
        raise InvalidRequest("the URL leads to an address that is not public", param="target")
    return url


async def resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class OutboundClient:
    """Posts to public hosts. `allow` says which addresses may be connected to; the default is `is_public`."""

    def __init__(self, allow: Callable[[Address], bool] = is_public, resolver: Resolver = resolve) -> None:
        transport = httpx.AsyncHTTPTransport(retries=0)
        # httpx offers no way to hand in a network backend; its pool takes one.
        transport._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=32,
            keepalive_expiry=5.0,
            network_backend=_CheckedBackend(allow, resolver),
        )
        self._client = httpx.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        """Status and Retry-After of the answer. Raises AddressRefused, OSError and TimeoutError."""
        try:
            async with (
                asyncio.timeout(DEADLINE_S),
                self._client.stream("POST", url, content=body, headers=headers, timeout=DEADLINE_S) as answer,
            ):
                read = 0
                async for piece in answer.aiter_raw():
                    read += len(piece)
                    if read > _MOST_BYTES:
                        break
                return answer.status_code, answer.headers.get("retry-after")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OSError(type(error).__name__) from None

    async def close(self) -> None:
        await self._client.aclose()


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a host, refuses what is not allowed, and connects to an address, never to a name."""

    def __init__(self, allow: Callable[[Address], bool], resolver: Resolver) -> None:
        self._allow = allow
        self._resolver = resolver
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = [ipaddress.ip_address(each.split("%")[0]) for each in await self._resolver(host, port)]
        except (OSError, ValueError):
            raise httpcore.ConnectError(f"{host} has no address") from None
        # One bad address refuses the host: which of several would be taken is not for its owner to gamble on.
        if not addresses or not all(map(self._allow, addresses)):
            raise AddressRefused(f"{host} leads to an address that is not public")
        return await self._network.connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("a socket file is no public address")

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)
