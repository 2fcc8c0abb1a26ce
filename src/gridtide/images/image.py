"""An image as a cloud of this host uses it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gridtide.model.contexts import ContextFormat


class ImageKind(StrEnum):
    """What a machine gets from it."""

    DISK = "disk"
    """A disk, for virtual machines."""
    TREE = "tree"
    """An unpacked tree of files, for machines that are processes of this host with a root of their own."""


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """The hypervisor itself loads the kernel: no boot loader, no firmware menu."""

    kernel: Path
    """An ELF kernel with a PVH entry (no decompression in the guest), or a bzImage."""
    initrd: Path | None
    arguments: str
    """The kernel's command line, without the console."""


@dataclass(frozen=True, slots=True)
class FirmwareBoot:
    """The firmware finds a boot loader on the disk, as in any cloud image."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the host's store. Its files are read-only and never change while it has this digest.

    It is a :class:`DiskImage` or a :class:`TreeImage`.
    """

    name: str
    digest: str
    """``sha256:`` and 64 hexadecimal digits, over the contents of all of its files."""
    created: float
    """Seconds since the epoch."""
    size: int
    """Bytes that it takes on this host's disk."""
    context: ContextFormat
    """What its machines understand."""
    minimum_memory: int
    """MiB without which it does not boot."""


@dataclass(frozen=True, slots=True)
class DiskImage(Image):
    """What a virtual machine boots from."""

    disk: Path
    """qcow2: the base of every machine's overlay."""
    disk_size: int
    """Bytes that the disk has for the machine; an overlay may be larger, never smaller."""
    boot: DirectBoot | FirmwareBoot


@dataclass(frozen=True, slots=True)
class TreeImage(Image):
    """What lies below the root of a machine that is a process."""

    tree: Path
    """The lower layer of every machine's overlay."""
    hold: Path
    """A file that each machine keeps open with a shared lock (:func:`gridtide.locks.share_lock`): then the store
    knows that the image is in use."""
