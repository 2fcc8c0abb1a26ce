"""Saved states: a machine that has booted once and waits for its seed, from which others are continued in a second.

Machines of one kind (image, shape, QEMU) boot in the same way until they read their seed. So the first one boots, is
saved with its memory when it waits for the seed, and every machine continues from there, on a disk of its own. What
must differ (name, address, tokens, time, random numbers) is on the seed and is taken from there afterwards.
docs/explanation/qemu-cloud.md tells what that saves and what it costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog
from qemu.qmp import QMPClient, QMPError

from gridtide import locks
from gridtide.clouds.local_home import last_words, remove_tree
from gridtide.clouds.qemu_command import MachineKind, command
from gridtide.clouds.qemu_disk import make_overlay
from gridtide.clouds.qemu_monitor import execute, monitor
from gridtide.clouds.seed import SIZE
from gridtide.images.image import DirectBoot
from gridtide.model.contexts import ContextFormat

log = structlog.get_logger("gridtide.clouds")

READY: Final = b"ready to be saved"
"""What ``gridtide/guest/machine.py`` prints when it waits for its seed."""

_PATIENCE: Final = 90.0
"""Seconds for the first boot of a kind. A host that takes longer boots its machines as usual."""

_AGAIN: Final = 600.0
"""Seconds after a failure before it is tried again: each try costs a boot."""

_LOOK: Final = 0.02


@dataclass(frozen=True, slots=True)
class SavedState:
    """Memory and disk of a machine that waits for its seed."""

    key: str
    memory: Path
    disk: Path


class SavedStates:
    """Those of one cloud, below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._failed: dict[str, float] = {}

    def find(self, kind: MachineKind) -> SavedState | None:
        """None when there is none (yet)."""
        if not saveable(kind):
            return None
        home = self._directory / _key(kind)
        return _state(home) if home.is_dir() else None

    def prepare(self, kind: MachineKind, environment: dict[str, str]) -> None:
        """Make the kind's state unless there is one. A failure is logged: machines then boot as usual."""
        if not saveable(kind) or self.find(kind) is not None:
            return
        key = _key(kind)
        if self._failed.get(key, 0.0) > time.monotonic():
            return
        began = time.monotonic()
        place = self._directory / f".saving-{secrets.token_hex(4)}"
        try:
            self._sweep(kind)
            place.mkdir(parents=True, mode=0o700)
            _save(kind, place, environment)
            place.rename(self._directory / key)
        except (OSError, EOFError, QMPError, NotSaved) as error:
            log.warning("no saved state: machines boot from the start", image=kind.image.name, error=str(error))
            self._failed[key] = time.monotonic() + _AGAIN
            with contextlib.suppress(OSError):
                remove_tree(place)
        else:
            log.info("saved state made", image=kind.image.name, seconds=round(time.monotonic() - began, 1))

    def distrust(self, key: str) -> None:
        """A machine could not be continued from it: make a new one next time."""
        with contextlib.suppress(OSError):
            remove_tree(self._directory / key)

    def _sweep(self, kind: MachineKind) -> None:
        """Remove what a crashed maker left, and the states of the image of this name as it was before."""
        for home in self._directory.glob("*") if self._directory.is_dir() else ():
            told = _read(home / "state.json")
            outdated = told.get("image") == kind.image.name and told.get("digest") != kind.image.digest
            if home.name.startswith(".saving-") or (outdated and not _in_use(home / "disk.qcow2")):
                remove_tree(home)


class NotSaved(Exception):
    """The machine did not come to the point where it can be saved."""


def saveable(kind: MachineKind) -> bool:
    """Only Gridtide's own guest waits for its seed."""
    return isinstance(kind.image.boot, DirectBoot) and kind.image.context is ContextFormat.AGENT


def _key(kind: MachineKind) -> str:
    """Equal for machines that can be continued from the same state."""
    plain = replace(kind, image=replace(kind.image, name="", created=0.0))
    line = command(plain, disk=Path("disk"), seed=Path("seed"), state=None, saving=True)
    told = json.dumps([line, kind.qemu.version, kind.image.digest, kind.resources.disk])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _state(home: Path) -> SavedState:
    return SavedState(home.name, home / "memory", home / "disk.qcow2")


def _save(kind: MachineKind, place: Path, environment: dict[str, str]) -> None:
    make_overlay(place / "disk.qcow2", kind.image.disk, kind.image.disk_size, kind.resources)
    with (place / "seed").open("wb") as seed:
        seed.truncate(SIZE)
    line = command(kind, disk=place / "disk.qcow2", seed=place / "seed", state=None, saving=True)
    with _started(line, place, environment) as process:
        _await_ready(process, place)
        asyncio.run(_migrate(place))
        process.wait(timeout=30)
    told = {"image": kind.image.name, "digest": kind.image.digest}
    (place / "state.json").write_text(json.dumps(told))


@contextlib.contextmanager
def _started(line: tuple[str, ...], place: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A QEMU that dies with this process, whatever becomes of it."""
    with (place / "console.log").open("ab") as console:
        process = subprocess.Popen(  # noqa: S603
            ["setpriv", "--pdeathsig", "KILL", "--", *line],  # noqa: S607  (from the PATH in environment)
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], place: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while READY not in (place / "console.log").read_bytes():
        if process.poll() is not None:
            raise NotSaved(f"it ended: {last_words(place)}")
        if time.monotonic() > until:
            raise NotSaved(f"it was not ready after {_PATIENCE:g} s: {last_words(place)}")
        time.sleep(_LOOK)


async def _migrate(place: Path) -> None:
    """Write memory and devices to a file while the machine runs: it is continued as a running one then."""
    handle = os.open(place / "memory", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        async with asyncio.timeout(60), monitor(place) as client:
            await execute(client, "migrate-set-parameters", {"max-bandwidth": 1 << 40})
            client.send_fd_scm(handle)
            await execute(client, "getfd", {"fdname": "memory"})
            await execute(client, "migrate", {"uri": "fd:memory"})
            while (status := await _migration(client)) != "completed":
                if status in {"failed", "cancelled"}:
                    raise NotSaved(f"its state could not be written ({status})")
                await asyncio.sleep(_LOOK)
            await execute(client, "quit")
    finally:
        os.close(handle)


async def _migration(client: QMPClient) -> str:
    answer = await execute(client, "query-migrate")
    return str(answer.get("status", ""))


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _in_use(disk: Path) -> bool:
    try:
        handle = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return locks.is_locked(handle)
    finally:
        os.close(handle)
