"""What an image gets from Gridtide: the agent, and a first program that starts it."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Final

from gridtide.errors import ImageError
from gridtide.guest.prepare import PYTHON, prepare

_HERE: Final = Path(__file__).parent
_AGENT: Final = _HERE.parent / "agent" / "agent.py"

MACHINE: Final = _HERE / "machine.py"
PROCESS: Final = _HERE / "process.sh"
"""The first program of a virtual machine, and of a machine that is a process with a root of its own."""


class GuestKind(StrEnum):
    """Which program is the first one in the machine."""

    GRIDTIDE = "gridtide"
    """``machine.py``: a machine that does nothing but run jobs, and is up in seconds."""
    SYSTEMD = "systemd"
    """systemd; cloud-init, or whatever the image has, writes the context and starts ``gridtide-agent@.service``."""


def install(tree: Path, *, kind: GuestKind) -> None:
    """Put the agent into an unpacked Debian tree. ImageError when the tree has no Python 3.

    Byte code is made by the tree's own Python and never checked against its source: a machine compiles nothing and
    looks nothing up.
    """
    library = tree / "usr/lib/gridtide"
    library.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_AGENT, library / "agent.py")
    if kind is GuestKind.GRIDTIDE:
        shutil.copyfile(MACHINE, library / "machine.py")
    else:
        unit = tree / "etc/systemd/system/gridtide-agent@.service"
        unit.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_HERE / "gridtide-agent@.service", unit)
    prepare(tree)
    if not list((library / "__pycache__").glob("agent.*.pyc")):
        raise ImageError("the tree's Python cannot compile the agent", where=str(tree), remedy=PYTHON)
