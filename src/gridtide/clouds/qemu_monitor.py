"""QEMU's monitor (QMP): how a machine is, and going on after its host's disk was full."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qemu.qmp import QMPClient, QMPError

from gridtide.clouds.qemu_command import MONITOR
from gridtide.model.ids import MachineId

DEADLINE: Final = 2.0
"""Seconds for one machine's monitor: it answers in milliseconds unless its host is overwhelmed."""

_AT_ONCE: Final = 32
"""Monitors asked at the same time; each takes two open files."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The guest stands still, in QEMU's word for why (``io-error``, ``internal-error``, ``guest-panicked`` ...)."""

    word: str


@contextlib.asynccontextmanager
async def monitor(home: Path) -> AsyncIterator[QMPClient]:
    """A connection to a machine's monitor. OSError or QMPError when there is none."""
    client = QMPClient()
    client.logger.disabled = True
    directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Through the open directory: the whole path may be longer than a socket's name may be.
        await client.connect(f"/proc/self/fd/{directory}/{MONITOR}")
        try:
            yield client
        finally:
            # A QEMU that has ended meanwhile is no fault: what was asked before was answered.
            with contextlib.suppress(OSError, EOFError, QMPError):
                await client.disconnect()
    finally:
        os.close(directory)


async def execute(client: QMPClient, order: str, arguments: Mapping[str, object] | None = None) -> Any:
    """One order, and its answer."""
    return await client.execute(order, dict(arguments) if arguments else None)


async def how_is(home: Path) -> Stopped | None:
    """Why the guest stands still; None when it runs, and when nothing can be learned: silence is no evidence."""
    try:
        async with asyncio.timeout(DEADLINE), monitor(home) as client:
            answer = await execute(client, "query-status")
            word = str(answer["status"])
            if word == "io-error" and _room(home):
                await execute(client, "cont")
                return None
            return Stopped(word) if word in _STANDING else None
    except (OSError, EOFError, QMPError, KeyError, TypeError):
        return None


async def how_are(homes: Mapping[MachineId, Path]) -> Mapping[MachineId, Stopped]:
    """Those of them that stand still."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def ask(name: MachineId, home: Path) -> tuple[MachineId, Stopped | None]:
        async with turn:
            return name, await how_is(home)

    answers = await asyncio.gather(*(ask(name, home) for name, home in homes.items()))
    return {name: answer for name, answer in answers if answer is not None}


_STANDING: Final = frozenset({"io-error", "internal-error", "guest-panicked", "shutdown", "watchdog"})

_NEEDED: Final = 256 * 1024 * 1024
"""Bytes that must be free before a machine goes on: with less it stops again at once."""


def _room(home: Path) -> bool:
    status = os.statvfs(home)
    return status.f_bavail * status.f_frsize >= _NEEDED
