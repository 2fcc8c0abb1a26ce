"""What ``gridtide check`` finds out about machines of a process cloud with an image. It changes and raises nothing."""

from __future__ import annotations

import os
import shutil
from typing import Final

from gridtide.clouds.process_network import Bridge
from gridtide.clouds.process_root import PROGRAMS
from gridtide.clouds.protocol import Finding, Level
from gridtide.errors import CloudError, ImageError
from gridtide.images.image import TreeImage
from gridtide.images.store import ImageStore

ROOT: Final = "run the controller as root, or take the image out of the group"
NOT_A_DISK: Final = "build one with --tree, or use it on a qemu cloud"


def programs(*, bridged: bool) -> Finding:
    """Whether this user and this host can give a machine a root of its own."""
    if os.geteuid() != 0:
        return Finding("root", Level.ERROR, f"machines with an image need root, this is user {os.geteuid()}", ROOT)
    wanted = [name for name in PROGRAMS if bridged or name == "unshare"]
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing:
        packages = " ".join(sorted({PROGRAMS[name] for name in missing}))
        return Finding("root", Level.ERROR, f"missing: {', '.join(missing)}", f"apt-get install {packages}")
    return Finding("root", Level.OK, "machines can have a root of their own")


def bridge(wanted: Bridge) -> Finding:
    """Whether it is there, with an address in the right network."""
    try:
        own = wanted.address()
    except CloudError as error:
        return Finding("bridge", Level.ERROR, error.what, error.remedy)
    return Finding("bridge", Level.OK, f"{wanted.name} has {own}; machines get addresses of {wanted.addresses}")


def image(store: ImageStore, name: str) -> Finding:
    """Whether it is there, and a tree."""
    try:
        found = store.use(name)
    except ImageError as error:
        return Finding(f"image {name}", Level.ERROR, error.what, error.remedy)
    if not isinstance(found, TreeImage):
        return Finding(f"image {name}", Level.ERROR, "is a disk: a process has a tree", NOT_A_DISK)
    return Finding(f"image {name}", Level.OK, f"{found.digest[:19]}, {found.size >> 20} MiB")
