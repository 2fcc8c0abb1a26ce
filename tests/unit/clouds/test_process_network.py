"""Which addresses a machine with a network of its own tries."""

from __future__ import annotations

import socket
from ipaddress import IPv4Interface, IPv4Network

import pytest

from gridtide.clouds.process_network import Bridge, Reserved, link_of
from gridtide.errors import LaunchRejected, NoCapacity

OWN = IPv4Interface("10.99.0.1/24")
BRIDGE = Bridge("br0", IPv4Network("10.99.0.0/29"))


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the host's links, to be changed."""
    links = ["lo", "br0"]
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(enumerate(links)))
    return links


def tried(bridge: Bridge = BRIDGE, reserved: Reserved | None = None) -> list[str]:
    given = bridge.variables(OWN, Reserved() if reserved is None else reserved)
    assert given["GRIDTIDE_GATEWAY"] == "10.99.0.1"
    lines = [line.split(" ") for line in given["GRIDTIDE_ADDRESSES"].split("\n")]
    assert all(link_of(IPv4Interface(address).ip) == link for link, address in lines)
    return [address for _, address in lines]


def test_neither_the_bridges_own_nor_the_networks_first() -> None:
    assert sorted(tried()) == [f"10.99.0.{number}/24" for number in range(2, 8)]


def test_what_links_say_is_taken(taken: list[str]) -> None:
    taken += ["gt0a630002", "gt0a630005"]
    assert sorted(tried()) == [f"10.99.0.{number}/24" for number in (3, 4, 6, 7)]


def test_machines_that_are_being_born_get_different_ones() -> None:
    reserved = Reserved()
    first = [tried(reserved=reserved)[0] for _ in range(6)]
    assert len(set(first)) == 6
    with pytest.raises(NoCapacity, match=r"all addresses of 10\.99\.0\.0/29 are taken \(widen"):
        tried(reserved=reserved)


def test_of_a_large_range_some_are_enough() -> None:
    assert len(set(tried(Bridge("br0", IPv4Network("10.99.0.0/24"))))) == 32


def test_a_bridge_that_is_not_there() -> None:
    with pytest.raises(LaunchRejected, match="bridge nothing-here has no IPv4 address"):
        Bridge("nothing-here", BRIDGE.addresses).address()


def test_a_range_outside_of_the_bridges_network() -> None:
    with pytest.raises(
        LaunchRejected, match=r"addresses 10\.99\.0\.0/29 are not in the network of bridge lo, 127\.0\.0\.0/8"
    ):
        Bridge("lo", BRIDGE.addresses).address()
