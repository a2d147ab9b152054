from __future__ import annotations

import re
import socket
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.access import addresses
from core.access.addresses import MAX_ENTRIES, NO_ADDRESS, Network, address_key, client_address, parse_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.1/32"))
CLIENT = "203.0.113.7"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4:567", "1.2.3.4"),
        (" \t1.2.3.4 ", "1.2.3.4"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:80", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[::ffff:102:304]:9", "1.2.3.4"),
        ("::1:80", "::1:80"),
    ],
)
def test_address_is_read_without_port_zone_and_mapping(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "_hidden",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "256.1.1.1",
        "1.2.3.4:",
        "1.2.3.4:x",
        "1.2.3.4:123456",
        "1.2.3.4%eth0",
        "[1.2.3.4]",
        "[1.2.3.4]:80",
        "[::1",
        "::1]",
        "[::1]80",
        "[]",
        "[[::1]]",
        "::1%",
        '"1.2.3.4"',
        "1.2.3.4\n",
        "１.2.3.4",
        "1.2.3.4,5.6.7.8",
        "16909060",
        "a" * 100_000,
        "fe80::1%" + "z" * 100_000,
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None


@given(st.text(max_size=80) | st.from_regex(r"[\[\]0-9a-f:.%, ]{0,60}", fullmatch=True))
def test_any_text_is_an_address_or_none(text: str) -> None:
    parsed = parse_address(text)
    assert parsed is None or parse_address(str(parsed)) == parsed
    assert address_key(text) == (NO_ADDRESS if parsed is None else address_key(str(parsed)))


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        # Nobody vouches for what the peer says.
        (CLIENT, ["198.51.100.1"], CLIENT),
        ("[2001:db8::1]:80", [], "2001:db8::1"),
        ("::ffff:203.0.113.7", ["198.51.100.1"], CLIENT),
        # One proxy, and two; IPv6 ones; one that is seen as IPv4-mapped.
        ("10.0.0.1", [CLIENT], CLIENT),
        ("::ffff:10.0.0.1", [CLIENT], CLIENT),
        ("10.0.0.1", [f"{CLIENT}, 10.0.0.2"], CLIENT),
        ("10.0.0.1", [CLIENT, "10.0.0.2"], CLIENT),
        ("fd00::1", ["[2001:db8::5%25eth0]:1234, [fd00::2]:99"], "2001:db8::5"),
        # What the client itself wrote is not looked at.
        ("10.0.0.1", [f"10.9.9.9, 198.51.100.1, {CLIENT}"], CLIENT),
        ("10.0.0.1", ["198.51.100.1", f"rubbish,{CLIENT}:5555, 10.0.0.2:80"], CLIENT),
        # A caller inside is the farthest trusted one.
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        # What is no address ends the walk at the last good one.
        ("10.0.0.1", [f"{CLIENT}, unknown"], "10.0.0.1"),
        ("10.0.0.1", [f"{CLIENT}, unknown, 10.0.0.2"], "10.0.0.2"),
        # Empty elements are none.
        ("10.0.0.1", [f",{CLIENT}, ,10.0.0.2,", ""], CLIENT),
        # No address at all.
        ("", [CLIENT], ""),
    ],
)
def test_client_is_the_first_from_the_right_that_is_no_trusted_proxy(peer: str, header: list[str], client: str) -> None:
    assert client_address(peer, header, PROXIES) == client


def test_header_is_ignored_where_no_proxy_is_trusted() -> None:
    assert client_address("10.0.0.1", [CLIENT], ()) == "10.0.0.1"


def test_walk_ends_after_so_many_entries() -> None:
    chain = ",".join([CLIENT] + [f"10.1.0.{number}" for number in range(MAX_ENTRIES)])
    assert client_address("10.0.0.1", [chain], PROXIES) == "10.1.0.0"
    assert client_address("10.0.0.1", [chain.replace("10.1.0.0,", "")], PROXIES) == CLIENT


@pytest.mark.parametrize("piece", [",", "10.0.0.1,", "[", "%", "x"])
def test_little_of_a_long_header_is_looked_at(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []

    def parse(text: str) -> addresses.Address | None:
        looked_at.append(text)
        return parse_address(text)

    monkeypatch.setattr(addresses, "parse_address", parse)
    client_address("10.0.0.1", [piece * (65_536 // len(piece))], PROXIES)
    assert len(looked_at) <= 1 + MAX_ENTRIES


# Against a naive reference, which knows the entries before they were written down.

V4 = st.integers(0, 2**32 - 1).map(lambda number: socket.inet_ntop(socket.AF_INET, number.to_bytes(4, "big")))
V6 = (
    st.integers(0, 2**128 - 1)
    .map(lambda number: socket.inet_ntop(socket.AF_INET6, number.to_bytes(16, "big")))
    .filter(lambda text: "." not in text and not text.startswith("::ffff:"))
)
PROXY = st.sampled_from(["10.0.0.1", "10.255.3.4", "fd00::1", "fdab:1::2", "127.0.0.1"])
ADDRESS = PROXY | V4 | V6
BAD = st.sampled_from(["unknown", "_x", "1.2.3", "::g", "[::1", "999.1.1.1", "%", "-"])
SPACE = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def spelled(draw: st.DrawFn, address: str) -> str:
    port = draw(st.sampled_from(["", ":1", ":65535"]))
    if ":" in address:
        zone = draw(st.sampled_from(["", "%eth0", "%25en1"]))
        return f"[{address}{zone}]{port}" if port or draw(st.booleans()) else address + zone
    if draw(st.booleans()):
        return f"[::ffff:{address}]{port}" if port else f"::ffff:{address}"
    return address + port


def is_proxy(address: str) -> bool:
    return re.match(r"10\.|fd[0-9a-f]{2}:|127\.0\.0\.1$", address) is not None


def naive_client(peer: str, hops: list[str | None]) -> str:
    """`hops` from left to right, None for one that is no address."""
    here = peer
    while is_proxy(here) and hops:
        *hops, said = hops
        if said is None:
            return here
        here = said
    return here


@settings(deadline=None)  # a busy machine is no defect
@given(st.data(), ADDRESS, st.lists(st.none() | PROXY | ADDRESS, max_size=8))
def test_client_is_the_one_of_a_naive_walk(data: st.DataObject, peer: str, hops: list[str | None]) -> None:
    entries = [data.draw(BAD if hop is None else spelled(hop)) for hop in hops]
    lines: list[str] = []
    for entry in entries:
        padded = data.draw(SPACE) + entry + data.draw(SPACE)
        if lines and data.draw(st.booleans()):
            lines[-1] += "," + padded
        else:
            lines.append(padded)
    assert client_address(data.draw(spelled(peer)), lines, PROXIES) == naive_client(peer, hops)


@given(ADDRESS, st.lists(st.text(max_size=20), max_size=5))
def test_peer_that_is_not_trusted_is_the_client_whatever_it_sends(peer: str, lines: list[str]) -> None:
    networks: tuple[Network, ...] = tuple(network for network in PROXIES if not is_proxy(peer))
    assert client_address(peer, lines, networks) == peer


# Keys.


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", NO_ADDRESS),
        ("0.0.0.0.0", NO_ADDRESS),
    ],
)
def test_key_of_an_address_is_the_network_of_one_subscriber(address: str, key: str) -> None:
    assert address_key(address) == key


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_addresses_share_a_key_if_and_only_if_they_share_a_64(network: int, one: int, other: int) -> None:
    def written(prefix: int, interface: int) -> str:
        return socket.inet_ntop(socket.AF_INET6, prefix.to_bytes(8, "big") + interface.to_bytes(8, "big"))

    if network == 0:  # ::ffff:0:0/96 is IPv4
        network = 1
    assert address_key(written(network, one)) == address_key(written(network, other))
    assert address_key(written(network, one)) != address_key(written(network ^ 2, one))
