"""What runs in a machine before the agent, and how it gets into an image.

Called by ``gridtide.images``; imports nothing but errors. ``machine.py``, ``initrd.sh`` and
``process.sh`` run in the machine only.
"""

from __future__ import annotations

from gridtide.guest.initrd import make_initrd
from gridtide.guest.install import MACHINE, PROCESS, GuestKind, install
from gridtide.guest.kernel import extract_kernel
from gridtide.guest.prepare import NUMBER, prepare

__all__ = ["MACHINE", "NUMBER", "PROCESS", "GuestKind", "extract_kernel", "install", "make_initrd", "prepare"]
