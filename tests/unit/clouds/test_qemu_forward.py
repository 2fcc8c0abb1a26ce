"""The one port by which a machine in QEMU's user network can be called."""

from pathlib import Path

from gridtide.clouds.qemu_command import Accelerator, MachineKind, Qemu, command
from gridtide.images.image import DiskImage, FirmwareBoot
from gridtide.model.contexts import ContextFormat
from gridtide.model.resources import Resources

IMAGE = DiskImage(
    "batch", "sha256:0", 0.0, 1, ContextFormat.AGENT, 256, disk=Path("base"), disk_size=1, boot=FirmwareBoot()
)


def network(port: int | None) -> str:
    """What the command line says of it."""
    kind = MachineKind(Qemu("qemu", "7.2", None), Accelerator.TCG, IMAGE, Resources(1, 256))
    line = command(kind, disk=Path("disk"), seed=Path("seed"), state=None, saving=False, port=port)
    return line[line.index("-netdev") + 1]


def test_nothing_is_forwarded_unless_it_is_wanted() -> None:
    assert network(None) == "user,id=network,ipv6=off"


def test_only_the_hosts_loopback_leads_to_it() -> None:
    assert network(12_345) == "user,id=network,ipv6=off,hostfwd=tcp:127.0.0.1:12345-:12345"
