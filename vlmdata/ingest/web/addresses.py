"""Which network addresses a stranger's list may send us to: public ones, and those that the config opens.

A name is looked up once and the addresses that it gave are the ones that are
connected to, so there is no second look-up for a rebinding name server to
answer differently; the socket is asked once more before it connects.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_REFUSED = (
    # Public by the registries, yet not for us: protocol assignments (a cloud's metadata among them),
    # the retired 6to4 relay, and the address at which Azure talks to its machines.
    ip_network("192.0.0.0/24"),
    ip_network("192.88.99.0/24"),
    ip_network("168.63.129.16/32"),
)
_UNICAST6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")


class ForbiddenAddress(OSError):
    """An address that is not public and that the config does not open."""


class Addresses:
    """Tells public addresses, and networks that are opened by name, from all others."""

    def __init__(self, opened: Sequence[str] = ()) -> None:
        self._opened: tuple[Network, ...] = tuple(ip_network(text) for text in opened)

    def allows(self, address: str) -> bool:
        """Whether a connection may be made to an IP address."""
        ip = ip_address(address.partition("%")[0])
        return any(ip in network for network in self._opened) or _is_public(ip)

    def socket(self, info: Any) -> socket.socket:
        """The last door: a socket for an address that may be connected to.

        Raises:
            ForbiddenAddress: it may not; addresses that were no names come here unvetted.
        """
        family, kind, protocol, _, (host, *_) = info
        if not self.allows(host):
            raise _forbidden(host, [host])
        return socket.socket(family, kind, protocol)


def _is_public(ip: Address) -> bool:
    if isinstance(ip, IPv6Address):
        inner = _embedded(ip)
        return (ip in _UNICAST6 and ip.is_global and inner is None) or (inner is not None and _is_public(inner))
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _REFUSED)


def _embedded(ip: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a packet to this one ends at."""
    if ip in _NAT64:
        return IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip.sixtofour


def _forbidden(host: str, found: Sequence[str]) -> ForbiddenAddress:
    where = host if [host] == list(found) else f"{host} ({', '.join(found)})"
    return ForbiddenAddress(0, f"{where} is no public address; network.allow_networks opens private networks")


class VettingResolver(AbstractResolver):
    """Looks names up in threads, and forgets addresses that may not be connected to."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The name's addresses that may be asked.

        Raises:
            ForbiddenAddress: there are addresses, and none of them may be asked.
            OSError: the name is not known.
        """
        found = await self._system.resolve(host, port, family)
        allowed = [each for each in found if self._addresses.allows(each["host"])]
        if found and not allowed:
            raise _forbidden(host, sorted({each["host"] for each in found}))
        return allowed

    async def close(self) -> None:
        """Nothing is held."""
