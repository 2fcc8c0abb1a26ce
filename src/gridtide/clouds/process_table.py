"""Processes of this host that carry a marker, found and ended without ever signalling another one.

A process number means nothing by itself: it is reused. So nothing here keeps one. Processes are found by what was put
into their environment when they were started, which their children inherit, and are signalled through a pidfd: the
kernel then guarantees that the process that was looked at is the one that gets the signal, or nobody.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

VARIABLE: Final = "GRIDTIDE_MACHINE"
"""Environment variable that every process of a machine carries: ``<site>/<worker id>``."""

_PREFIX: Final = VARIABLE.encode() + b"="

_AT_ONCE: Final = 100
"""Processes ended per step. Each takes a file descriptor for a moment; a usual limit is 1024 for the controller."""

_DEATH_WAIT: Final = 1.0
"""Seconds to wait for the death of one step's processes. A killed process dies in milliseconds unless the kernel
holds it; the caller looks again anyway."""


def marked(markers: Collection[str]) -> dict[str, list[int]]:
    """Numbers of the processes whose environment holds exactly one of these markers, by marker. One pass over /proc.

    A process is invisible for an instant while it executes another program, so that absence in one pass proves
    nothing; absence in two passes with a pause between them does. Raises OSError when there is no /proc.
    """
    wanted = {marker.encode(): marker for marker in markers}
    found: dict[str, list[int]] = {}
    for number in _numbers():
        value = _marker(number)
        if value is not None and value in wanted:
            found.setdefault(wanted[value], []).append(number)
    return found


def any_of_site(site: str) -> bool:
    """Whether any process of any machine of the site lives."""
    start = site.encode() + b"/"
    return any((value := _marker(number)) is not None and value.startswith(start) for number in _numbers())


def kill(processes: Mapping[str, Sequence[int]]) -> None:
    """End these (as :func:`marked` returned them) with SIGKILL, and wait a moment for their death.

    Each is looked at again behind its pidfd: what no longer carries its marker is left alone.
    """
    pairs = [(marker, number) for marker, numbers in processes.items() for number in numbers if number != os.getpid()]
    for start in range(0, len(pairs), _AT_ONCE):
        _kill_step(pairs[start : start + _AT_ONCE])


def _numbers() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _marker(number: int) -> bytes | None:
    """The marker's value of a process; None without one, and for those that ended or are not ours to read."""
    try:
        descriptor = os.open(f"/proc/{number}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        environment = _read_all(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if _PREFIX not in environment:
        return None
    for variable in environment.split(b"\0"):
        if variable.startswith(_PREFIX):
            return variable[len(_PREFIX) :]
    return None


def _read_all(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def _kill_step(pairs: Sequence[tuple[str, int]]) -> None:
    waiting = select.poll()
    opened: list[int] = []
    signalled = 0
    try:
        for marker, number in pairs:
            try:
                handle = os.pidfd_open(number)
            except ProcessLookupError:
                continue
            opened.append(handle)
            # From here on the number is looked up a second time: if it was reused before the handle was opened, the
            # marker is missing; if it was reused after, the signal goes to the one that is dead.
            if _marker(number) == marker.encode() and _signal(handle):
                waiting.register(handle, select.POLLIN)
                signalled += 1
        _await_deaths(waiting, signalled)
    finally:
        for handle in opened:
            os.close(handle)


def _signal(handle: int) -> bool:
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # it changed its user since it was read: the caller sees that the machine does not end
    return True


def _await_deaths(waiting: select.poll, count: int) -> None:
    while count:
        dead = waiting.poll(_DEATH_WAIT * 1000)
        if not dead:
            return
        for handle, _event in dead:
            waiting.unregister(handle)
        count -= len(dead)
