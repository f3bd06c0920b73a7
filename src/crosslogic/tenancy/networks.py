"""IP allow-lists: CIDR blocks as people write them, and whether an address lies in one. Pure.

Invariant: an address that cannot be read lies in no block, so an allow-list fails closed. An IPv4 caller that a
dual-stack socket shows as `::ffff:192.0.2.1` is the same caller.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec


class Networks(msgspec.Struct, frozen=True, gc=False):
    """Blocks as (number of the network, mask), by address family."""

    v4: tuple[tuple[int, int], ...]
    v6: tuple[tuple[int, int], ...]

    def contain(self, address: str | None) -> bool:
        """Whether this textual address lies in one of the blocks."""
        if address is None:
            return False
        try:
            found = _plain(ip_address(address.partition("%")[0]))  # a zone names an interface, not a network
        except ValueError:
            return False
        number = int(found)
        blocks = self.v4 if isinstance(found, IPv4Address) else self.v6
        return any(number & mask == network for network, mask in blocks)


def canonical(block: str) -> str:
    """One spelling for each block: `10.0.0.7/8` is `10.0.0.0/8`, an address alone its own block.

    Raises ValueError.
    """
    return str(_network(block))


def compiled(blocks: Iterable[str]) -> Networks:
    """Raises ValueError for what is no block."""
    found = [_network(block) for block in blocks]
    return Networks(
        v4=tuple((int(net.network_address), int(net.netmask)) for net in found if net.version == 4),
        v6=tuple((int(net.network_address), int(net.netmask)) for net in found if net.version == 6),
    )


def _network(block: str) -> IPv4Network | IPv6Network:
    network = ip_network(block.strip(), strict=False)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96), strict=False)
    return network


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped if mapped is not None else address
