"""Which addresses a stranger's list may lead to."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.ingest.web.addresses import Addresses, ForbiddenAddress, VettingResolver

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "203.0.113.7", "240.0.0.1"),
    *("224.0.0.1", "239.255.255.250", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1"),
    *("fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:db8::1", "2001::1", "5f00::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_ones_are_allowed(address: str) -> None:
    assert Addresses().allows(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_all_others_are_not(address: str) -> None:
    assert not Addresses().allows(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(ForbiddenAddress, match="allow_networks"):
        Addresses().socket((family, socket.SOCK_STREAM, 0, "", (address, 80)))


def test_a_network_is_opened_by_name_and_no_other() -> None:
    addresses = Addresses(("127.0.0.2/32", "fd00::/8"))
    assert addresses.allows("127.0.0.2") and addresses.allows("fd00::7")
    assert not addresses.allows("127.0.0.3") and not addresses.allows("fe80::1")
    addresses.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", 80))).close()


@given(st.ip_addresses(v=4))
def test_however_an_address_is_wrapped(inner: IPv4Address) -> None:
    plain = Addresses().allows(str(inner))
    for wrapped in (f"::ffff:{inner}", str(IPv6Address((0x64FF9B << 96) | int(inner)))):
        assert Addresses().allows(wrapped) == plain


@given(st.ip_addresses())
def test_nothing_private_is_allowed(address: IPv4Address | IPv6Address) -> None:
    if Addresses().allows(str(address)):
        assert not address.is_loopback and not address.is_link_local and not address.is_multicast
        assert not any(address in ip_network(private) for private in ("10.0.0.0/8", "192.168.0.0/16", "fc00::/7"))


def test_a_name_that_leads_inside_is_refused_when_it_is_looked_up() -> None:
    async def resolved(addresses: Addresses) -> list[str]:
        return [each["host"] for each in await VettingResolver(addresses).resolve("localhost", 80, socket.AF_INET)]

    with pytest.raises(ForbiddenAddress, match=r"localhost \(127.0.0.1\) is no public address"):
        asyncio.run(resolved(Addresses()))
    assert asyncio.run(resolved(Addresses(("127.0.0.1/32",)))) == ["127.0.0.1"]
