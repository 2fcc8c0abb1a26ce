"""What the kernel says of a process of this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

# States of /proc/PID/stat in which the first thread has ended and only its exit status is left.
_ENDED: Final = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """``started``: clock ticks since boot. A number that was given to another process differs in it."""

    ended: bool
    """None of it is left but its exit status: it runs nothing any more and has no file or port open."""
    started: int


def process_status(process: int) -> ProcessStatus:
    """State, number of threads and start time: fields 3, 20 and 22 of proc(5)'s stat.

    A process whose first thread has ended is shown as a zombie though others still run, and all its files stay open:
    every killed process is so for a moment. FileNotFoundError or ProcessLookupError when there is no such process, or
    it is hidden from us.
    """
    line = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    fields = line.rpartition(")")[2].split()  # the name before them may hold anything, brackets too
    return ProcessStatus(fields[0] in _ENDED and int(fields[17]) <= 1, int(fields[19]))
