"""What ``gridtide check`` finds out about a QEMU cloud. Changes nothing, raises nothing."""

from __future__ import annotations

import os
import shutil
from typing import Final

from gridtide.clouds.protocol import Finding, Level
from gridtide.clouds.qemu_command import Acceleration, Accelerator, installed
from gridtide.errors import ImageError
from gridtide.images.image import DiskImage
from gridtide.images.store import ImageStore

INSTALL: Final = "apt-get install qemu-system-x86 qemu-utils"

NOT_A_TREE: Final = "build it without --tree, or use it on a process cloud"

_LITTLE_MEMORY: Final = 1024
"""MiB that should be free: two of the smallest machines."""


def program(name: str) -> Finding:
    """Whether QEMU is there."""
    qemu = installed(name)
    if qemu is None or shutil.which("qemu-img") is None:
        return Finding("qemu", Level.ERROR, f"{name} or qemu-img is not installed or does not run", INSTALL)
    return Finding("qemu", Level.OK, f"{qemu.program}: {qemu.version}")


def acceleration(found: Acceleration, wanted: Accelerator) -> Finding:
    """How quick machines will be, and why."""
    if found.chosen is Accelerator.KVM:
        if found.why.startswith("/") or wanted is not Accelerator.KVM:
            return Finding("accelerator", Level.OK, f"KVM: {found.why}")
        if found.why == "as the site file says":
            return Finding("accelerator", Level.OK, f"KVM, {found.why}")
        return Finding("accelerator", Level.ERROR, f"KVM is asked for, but {found.why}", 'set accelerator = "auto"')
    text = f"emulation (TCG), ten times slower than KVM: {found.why}"
    return Finding("accelerator", Level.WARNING if wanted is Accelerator.AUTO else Level.OK, text)


def memory() -> Finding:
    """Whether there is room for a machine or two."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    level = Level.OK if free >= _LITTLE_MEMORY else Level.WARNING
    return Finding("memory", level, f"{free} MiB are free", "" if level is Level.OK else "machines may be refused")


def image(store: ImageStore, name: str) -> Finding:
    """Whether it is there and what it was when it was made."""
    try:
        found = store.use(name)
    except ImageError as error:
        return Finding(f"image {name}", Level.ERROR, error.what, error.remedy)
    if not isinstance(found, DiskImage):
        return Finding(f"image {name}", Level.ERROR, "is a tree: a virtual machine boots a disk", NOT_A_TREE)
    return Finding(f"image {name}", Level.OK, f"{found.digest[:19]}, {found.size >> 20} MiB, whole")
