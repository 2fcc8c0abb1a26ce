"""Pieces of site files."""

from __future__ import annotations

SITE = '[site]\nname = "torino"\n'
QUEUE = '[queues.jobs]\ntype = "pilot"\n'
CLOUD = '[clouds.local]\ntype = "process"\n'
GROUP = '[groups.workers]\nqueue = "jobs"\nclouds = ["local"]\nmaximum = 4\n'
SMALL = SITE + QUEUE + CLOUD + GROUP
"""The smallest site file there is."""


def with_group(*lines: str) -> str:
    """The small site with more lines in its group."""
    return SMALL + "\n".join(lines) + "\n"


def with_section(header: str, *lines: str) -> str:
    """The small site with one more section."""
    return SMALL + f"[{header}]\n" + "\n".join(lines) + "\n"
