"""What ``gridtide check`` finds out about a process cloud. Changes nothing, raises nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from gridtide.clouds import process_table
from gridtide.clouds.protocol import Finding, Level

_DISK_ERROR: Final = 256 * 2**20
_DISK_WARNING: Final = 2 * 2**30
"""Bytes. A site's first jobs fill less than the one; below the other nothing can be expected to work."""


def directory(path: Path) -> Finding:
    """Whether machines can be made there."""
    place = _nearest(path)
    if place.is_dir() and os.access(place, os.R_OK | os.W_OK | os.X_OK):
        text = "is writable" if place == path else f"will be made in {place}"
        return Finding("directory", Level.OK, f"{path} {text}")
    return Finding("directory", Level.ERROR, f"{place} is not writable", f"make it a directory of user {os.getuid()}")


def disk(path: Path) -> Finding:
    """Whether there is room."""
    place = _nearest(path)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding("disk", Level.ERROR, f"{place}: {error.strerror}", "look at the disk")
    level = Level.ERROR if free < _DISK_ERROR else Level.WARNING if free < _DISK_WARNING else Level.OK
    remedy = "" if level is Level.OK else "free some space"
    return Finding("disk", level, f"{free // 2**20} MiB are free below {place}", remedy)


def python(program: str) -> Finding:
    """Whether the interpreter can run the agent."""
    question = "import sys; print('%d.%d' % sys.version_info[:2]); sys.exit(sys.version_info < (3, 8))"
    try:
        answer = subprocess.run(  # noqa: S603 - the site's own interpreter
            [program, "-I", "-c", question], capture_output=True, timeout=20, stdin=subprocess.DEVNULL, text=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            "python", Level.ERROR, f"{program} does not run: {type(error).__name__}", "install Gridtide again"
        )
    if answer.returncode != 0:
        return Finding(
            "python", Level.ERROR, f"{program} is no Python 3.8 or newer", "install Gridtide with one that is"
        )
    return Finding("python", Level.OK, f"{program} is Python {answer.stdout.strip()}")


def agent(path: Path) -> Finding:
    """Whether what machines run is there."""
    if path.is_file():
        return Finding("agent", Level.OK, f"{path} is there")
    return Finding("agent", Level.ERROR, f"{path} is missing", "install Gridtide again")


def kernel() -> Finding:
    """Whether processes can be found and signalled without confusing them."""
    try:
        os.close(os.pidfd_open(os.getpid()))
        process_table.marked(())
    except OSError as error:
        text = f"processes cannot be told apart safely: {error.strerror}"
        return Finding("kernel", Level.ERROR, text, "use Linux 5.3 or newer with /proc")
    return Finding("kernel", Level.OK, "processes can be found and ended safely")


def _nearest(path: Path) -> Path:
    """The path, or what exists of the way to it."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))
