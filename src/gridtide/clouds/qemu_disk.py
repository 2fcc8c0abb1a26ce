"""Disks of QEMU machines: an overlay on a base that is never copied and never written."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

from gridtide.model.resources import Resources


def make_overlay(target: Path, base: Path, base_size: int, resources: Resources) -> None:
    """A qcow2 file that holds only what differs from ``base``; as large as the shape's disk, or the base if that is
    larger. OSError when it cannot be written."""
    size = max(base_size, resources.disk << 20)
    line = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(target), str(size)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    if done.returncode:
        words = " ".join(done.stderr.split())
        number = errno.ENOSPC if "No space left" in words else errno.EIO
        raise OSError(number, words or "qemu-img failed", str(target))
