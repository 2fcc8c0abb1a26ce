"""Addresses for machines of the process cloud with a network of their own: a veth pair each, on a bridge of the host.

Which address is taken is written down nowhere: the host's end of a pair is named after it (``gt0a630005`` is
10.99.0.5), and the kernel lets no two links have one name. It goes when the machine's network name space does. Making
the bridge, and what it is connected to, is the host's own business.
"""

from __future__ import annotations

import fcntl
import random
import shutil
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from gridtide.errors import LaunchRejected, NoCapacity

_SIOCGIFADDR: Final = 0x8915
_SIOCGIFNETMASK: Final = 0x891B
"""netdevice(7)."""

_TRIED: Final = 32
"""Addresses that one machine tries: another controller may take some in the meantime."""

_BIRTH: Final = 60.0
"""Seconds after which a machine has made its link, or never will. Less makes machines of a busy host try in vain."""


class Reserved:
    """Links that machines of this controller are about to make."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def add(self, link: str) -> None:
        """From now on for :data:`_BIRTH` seconds."""
        self._since[link] = time.monotonic()

    def links(self) -> set[str]:
        """Those of now."""
        past = time.monotonic() - _BIRTH
        self._since = {link: since for link, since in self._since.items() if since > past}
        return set(self._since)


@dataclass(frozen=True, slots=True)
class Bridge:
    """Where machines are connected."""

    name: str
    addresses: IPv4Network
    """What they may have."""

    def address(self) -> IPv4Interface:
        """The bridge's own. LaunchRejected when there is no such bridge, when it has none, or one in
        another network than the addresses."""
        try:
            own = IPv4Interface(f"{self._ask(_SIOCGIFADDR)}/{self._ask(_SIOCGIFNETMASK)}")
        except OSError as error:
            raise LaunchRejected(
                f"bridge {self.name} has no IPv4 address: {error.strerror}",
                remedy=f"ip link add {self.name} type bridge; ip address add ADDRESS dev {self.name}; "
                f"ip link set {self.name} up",
            ) from None
        if not self.addresses.subnet_of(own.network):
            raise LaunchRejected(
                f"addresses {self.addresses} are not in the network of bridge {self.name}, {own.network}",
                remedy="correct the site file, or the bridge's address",
            )
        return own

    def variables(self, own: IPv4Interface, reserved: Reserved) -> Mapping[str, str]:
        """For ``process.sh``: addresses to try. The first one is reserved. NoCapacity when none is free.

        They are looked for from a random place on, so that controllers that launch at once seldom try the same.
        """
        taken = {name for _, name in socket.if_nameindex()} | reserved.links()
        count = self.addresses.num_addresses
        start = random.randrange(count)  # noqa: S311
        free: list[IPv4Address] = []
        for number in range(count):
            address = self.addresses[(start + number) % count]
            outside = address in (own.ip, own.network.network_address, own.network.broadcast_address)
            if not outside and link_of(address) not in taken:
                free.append(address)
            if len(free) == _TRIED:
                break
        if not free:
            raise NoCapacity(f"all addresses of {self.addresses} are taken", remedy="widen the range in the site file")
        reserved.add(link_of(free[0]))
        lines = (f"{link_of(address)} {address}/{own.network.prefixlen}" for address in free)
        return {
            "GRIDTIDE_IP": shutil.which("ip") or "/usr/sbin/ip",
            "GRIDTIDE_BRIDGE": self.name,
            "GRIDTIDE_GATEWAY": str(own.ip),
            "GRIDTIDE_ADDRESSES": "\n".join(lines),
        }

    def _ask(self, question: int) -> IPv4Address:
        """OSError."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            answer = fcntl.ioctl(channel, question, struct.pack("256s", self.name.encode()[:15]))
        return IPv4Address(answer[20:24])


def link_of(address: IPv4Address) -> str:
    """The name of the host's end of the pair whose machine has this address."""
    return f"gt{int(address):08x}"
