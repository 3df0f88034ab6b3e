"""Addresses that no URL of anybody may lead to: there, a cloud hands its credentials to whoever asks."""

from __future__ import annotations

import ipaddress

METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254")))
"""Alibaba's, AWS's and Google's metadata services where they are not link-local, by their own documentation"""


def plain_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its zone, an IPv4 one that is written as IPv6 as what it is.

    Raises `ValueError` for a name.

    >>> plain_address("::ffff:169.254.169.254")
    IPv4Address('169.254.169.254')
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def is_no_server(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Nothing that anybody would name in a URL is there.

    >>> [is_no_server(plain_address(host)) for host in ("fe80::1%eth0", "fd00:ec2::254", "fd00:ec2::253", "10.0.0.1")]
    [True, True, False, False]
    """
    return address.is_link_local or address.is_multicast or address.is_unspecified or address in METADATA
