"""What a worker is told so that it becomes a dynamic node: munge's key, and how to start munged and slurmd."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gridtide.model.resources import Resources
from gridtide.queues.protocol import Batch, OrderedFile, OrderedService

_HOME: Final = "/etc/gridtide-slurm"

# Run again after a failure, so each step can be repeated. $1, if given: the controller's loopback address.
_PREPARE: Final = f"""#!/bin/sh
set -e
install -d -m 0755 -o munge -g munge /run/munge
install -d -m 0700 -o munge -g munge /etc/munge /var/lib/munge /var/log/munge
base64 -d {_HOME}/munge.key.base64 > /etc/munge/munge.key.new
chown munge: /etc/munge/munge.key.new
chmod 0400 /etc/munge/munge.key.new
mv /etc/munge/munge.key.new /etc/munge/munge.key
install -d -m 0755 /var/spool/slurmd /var/log/slurm /run/slurm
grep -q "[[:space:]]$(hostname)$" /etc/hosts || echo "127.0.1.1 $(hostname)" >> /etc/hosts
# QEMU's user network: the host's loopback, where the controller listens, is behind 10.0.2.2. The address of the
# controller must be the same inside and outside, because slurm.conf names it.
if [ -n "$1" ] && ip -4 -o address show | grep -q " 10[.]0[.]2[.]15/"; then
    device=$(ip -4 -o address show | sed -n "s/^[0-9]*: *\\([^ ]*\\) .* 10[.]0[.]2[.]15[/].*/\\1/p")
    echo 1 > "/proc/sys/net/ipv4/conf/$device/route_localnet"
    ip route replace table local unicast "$1/32" via 10.0.2.2 dev "$device" src 10.0.2.15
fi
"""

# slurmd ends at once when munged is not there yet, and would be started again only after a pause.
_SLURMD: Final = """#!/bin/sh
while [ ! -S /run/munge/munge.socket.2 ]; do sleep 0.02; done
exec /usr/sbin/slurmd "$@"
"""

BUSY: Final = "slurmstepd"
"""Name of the process that stands for each step of a running job."""


@dataclass(frozen=True, slots=True)
class NodeOrders:
    """What differs from node to node."""

    name: str
    """The worker's id; with power saving a node of slurm.conf."""
    resources: Resources
    features: tuple[str, ...]
    controllers: Sequence[str]
    """``HOST:PORT``, as workers call slurmctld."""
    munge_key: bytes
    port: int | None
    """Of slurmd, where the node shares its address with others; None: as slurm.conf says."""
    loopback: str
    """Address of a controller that listens on the host's loopback only; empty otherwise."""
    listed: bool = False
    """The node is in slurm.conf, with its size and port."""


def batch_of(orders: NodeOrders) -> Batch:
    """Nothing in it but the key is a secret."""
    key = base64.b64encode(orders.munge_key).decode()
    update = ("scontrol", "update", f"nodename={orders.name}")
    return Batch(
        files=(
            OrderedFile(f"{_HOME}/munge.key.base64", key + "\n", 0o600),
            OrderedFile(f"{_HOME}/prepare", _PREPARE, 0o700),
            OrderedFile(f"{_HOME}/slurmd", _SLURMD, 0o700),
        ),
        prepare=((f"{_HOME}/prepare", *((orders.loopback,) if orders.loopback else ())),),
        services=(
            OrderedService(
                "munged",
                ("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "/usr/sbin/munged", "--foreground"),
            ),
            OrderedService("slurmd", (f"{_HOME}/slurmd", *slurmd_arguments(orders))),
        ),
        busy=(BUSY,),
        drain=(*update, "state=drain", "reason=gridtide: its lease is over"),
        resume=(*update, "state=undrain"),
    )


def slurmd_arguments(orders: NodeOrders) -> tuple[str, ...]:
    """In the foreground, as a dynamic node, with slurm.conf from the controller ("configless")."""
    controllers = ("--conf-server", ",".join(orders.controllers))
    if orders.listed:
        # -b: it says that its machine has just booted, which slurmctld waits for after a resume.
        return ("-D", "-b", "-N", orders.name, *controllers)
    return (
        *("-D", "-Z", "-N", orders.name),
        *controllers,
        *("--conf", node_line(orders.resources, orders.features, orders.port)),
    )


def node_line(resources: Resources, features: Sequence[str], port: int | None) -> str:
    """Parameters of a node as slurm.conf has them."""
    words = [f"CPUs={resources.cores}", f"RealMemory={resources.memory}", f"Feature={','.join(features)}"]
    if resources.gpus:
        words.append(f"Gres=gpu:{resources.gpus}")
    if port is not None:
        words.append(f"Port={port}")
    return " ".join(words)
