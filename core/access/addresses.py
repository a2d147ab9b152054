"""Whose address a request comes from, behind proxies or not, and which are one caller's (docs/contract.md#addresses)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Who has no address, as behind a Unix socket, is one caller.
NO_ADDRESS: Final = "none"

# A proxy adds one entry each; the rest of a long header is somebody's invention and not read.
MAX_ENTRIES: Final = 32

# An address as proxies write it: bare, or with a port, IPv6 then in brackets. Ports are not checked further.
_with_port = re.compile(r"\[([^\[\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}").fullmatch
_MAX_LENGTH = 64
_INTERFACE_BITS = 64


def parse_address(text: str) -> Address | None:
    """The address that is written here, without port and zone and IPv4-mapped IPv6 as IPv4; None: not an address."""
    text = text.strip(" \t")
    if len(text) > _MAX_LENGTH:
        return None
    if match := _with_port(text):
        text = match[1] or match[2] or ""
        if match[1] is not None and ":" not in text:
            return None  # brackets are for IPv6 (RFC 3986 section 3.2.2)
    address, percent, zone = text.partition("%")
    if percent and (not zone or ":" not in address):
        return None
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Iterable[Network]) -> str:
    """The address of the client: the peer's, or what trusted proxies say of it in `X-Forwarded-For`.

    `forwarded_for` are the header's values as they came, one for each line. Each proxy writes down, at the right end,
    who spoke to it; so an entry is as good as the one to its right, and the first that is no trusted proxy is the
    client. An entry that is no address ends the walk at the last good one. What is left of the client was written by
    the client and is not looked at. A peer that is no address (a Unix socket) is given back as it is.
    """
    address = parse_address(peer)
    if address is None:
        return peer
    networks = tuple(trusted)
    if networks and _is_in(address, networks):
        for entry in reversed(",".join(forwarded_for).rsplit(",", MAX_ENTRIES)[-MAX_ENTRIES:]):
            if not entry.strip(" \t"):
                continue  # RFC 9110 section 5.6.1.2: empty elements of a list are no elements
            said = parse_address(entry)
            if said is None:
                break
            address = said
            if not _is_in(address, networks):
                break
    return str(address)


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def address_key(address: str) -> str:
    """What limits by address count under: IPv4 whole, IPv6 by /64 (one subscriber's network), else `NO_ADDRESS`."""
    parsed = parse_address(address)
    if parsed is None:
        return NO_ADDRESS
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return f"{IPv6Address(int(parsed) >> _INTERFACE_BITS << _INTERFACE_BITS)}/{_INTERFACE_BITS}"
