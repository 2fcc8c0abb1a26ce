"""Machines of this host under QEMU: a directory and a process each, as in :mod:`gridtide.clouds.local`.

In a machine's directory: ``disk.qcow2`` (an overlay on the image, which is never copied), ``seed`` (a NoCloud disk with
the user-data), ``console.log``, ``monitor`` (QMP's socket), and what every local machine has. The guest sees QEMU's
user network: it can call out, and the host as 10.0.2.2; nothing can call it, but for the port that ``forward`` opens.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from gridtide.clouds import qemu_check
from gridtide.clouds.local import FirstProcess, LocalCloud
from gridtide.clouds.local_home import write_private
from gridtide.clouds.protocol import Finding, LaunchRequest
from gridtide.clouds.qemu_command import Acceleration, Accelerator, MachineKind, accelerate, command, installed
from gridtide.clouds.qemu_disk import make_overlay
from gridtide.clouds.qemu_monitor import Stopped, how_are
from gridtide.clouds.qemu_state import SavedStates
from gridtide.clouds.seed import SIZE, seed_disk
from gridtide.errors import CloudError, ImageError, ImageNotFound
from gridtide.images.image import DiskImage
from gridtide.images.store import ImageStore
from gridtide.model.ids import CloudName
from gridtide.model.machines import Machine, Machines, MachineState
from gridtide.model.ports import port_of
from gridtide.model.resources import Shape

log = structlog.get_logger("gridtide.clouds")

_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

_BAD_STATE: Final = "load of migration failed"
"""What QEMU says before it ends when a saved state cannot be continued."""


@dataclass(frozen=True, slots=True)
class QemuSettings:
    """How machines are run."""

    program: str = "qemu-system-x86_64"
    accelerator: Accelerator = Accelerator.AUTO
    saved_states: bool = True
    """Continue machines from a saved state where the image's guest can be saved."""
    forward: bool = False
    """Each machine can be called at the host's loopback, on one port that follows from its worker's id."""


class QemuCloud(LocalCloud):
    """Machines are QEMU processes of this host, booted from the host's images."""

    def __init__(
        self,
        name: CloudName,
        site: str,
        directory: Path,
        shapes: tuple[Shape, ...],
        images: ImageStore,
        settings: QemuSettings | None = None,
    ) -> None:
        """ValueError for a site name that cannot be part of a file name."""
        super().__init__(name, site, directory, shapes)
        self._images = images
        self._settings = settings or QemuSettings()
        self._states = SavedStates(self.directory / ".states")

    # --- the protocol, where it differs

    async def machines(self) -> Machines:
        """One pass over the directory, and a question to the monitor of each machine that lives."""
        listed = await super().machines()
        mine = {machine.id: machine for machine in listed if machine.worker is not None}
        for machine in mine.values():
            if machine.state is MachineState.STOPPED and _BAD_STATE in machine.message:
                await asyncio.to_thread(self._distrust_state_of, machine)
        living = {name: self.directory / name for name, each in mine.items() if each.state is MachineState.RUNNING}
        standing = await how_are(living)
        return tuple(_stopped(each, standing[each.id]) if each.id in standing else each for each in listed)

    # --- what a machine is made of

    def before_launch(self, requests: Sequence[LaunchRequest]) -> None:
        """Make the saved states that these machines can be continued from."""
        if not self._settings.saved_states:
            return
        for kind in {self._kind(request) for request in requests if self._bootable(request)}:
            self._states.prepare(kind, _ENVIRONMENT)

    def furnish(self, request: LaunchRequest, shape: Shape, home: Path) -> None:
        """The disk: an overlay on the saved state's, or on the image's."""
        kind = self._kind(request)
        state = self._states.find(kind) if self._settings.saved_states and len(request.user_data) < SIZE // 2 else None
        base = state.disk if state is not None else kind.image.disk
        make_overlay(home / "disk.qcow2", base, kind.image.disk_size, kind.resources)
        if state is not None:
            write_private(home / "state", state.key.encode())

    def instruct(self, request: LaunchRequest, home: Path) -> None:
        """The seed disk. What it holds is a secret until the machine has joined."""
        image = seed_disk(request.worker, request.user_data, launched=time.time(), entropy=os.urandom(64))
        (home / "seed.new").unlink(missing_ok=True)
        write_private(home / "seed.new", image)
        (home / "seed.new").rename(home / "seed")

    def first_process(self, request: LaunchRequest, home: Path) -> FirstProcess:
        """QEMU, with the saved state as an open file."""
        kind = self._kind(request)
        state = self._states.find(kind) if (home / "state").exists() else None
        if state is None and (home / "state").exists():
            raise self.rejected("its saved state has gone", "launch another worker")
        memory = os.open(state.memory, os.O_RDONLY | os.O_CLOEXEC) if state is not None else None
        port = port_of(request.worker) if self._settings.forward else None
        line = command(kind, disk=Path("disk.qcow2"), seed=Path("seed"), state=memory, saving=False, port=port)
        return FirstProcess(line, _ENVIRONMENT, () if memory is None else (memory,))

    def look_over(self, images: Sequence[str]) -> Sequence[Finding]:
        """QEMU, accelerator, memory and images."""
        return [
            qemu_check.program(self._settings.program),
            qemu_check.acceleration(self._acceleration(), self._settings.accelerator),
            qemu_check.memory(),
            *(qemu_check.image(self._images, name) for name in dict.fromkeys(images)),
        ]

    # --- the rest

    def _acceleration(self) -> Acceleration:
        return accelerate(self._settings.accelerator)

    def _kind(self, request: LaunchRequest) -> MachineKind:
        """CloudError when such a machine cannot be."""
        qemu = installed(self._settings.program)
        if qemu is None:
            raise self.rejected(f"{self._settings.program} is not installed or does not run", qemu_check.INSTALL)
        shape = self._shapes.get(request.shape)
        if shape is None:
            raise self.rejected(f"no shape is called {request.shape!r}", f"use one of: {', '.join(self._shapes)}")
        if request.image is None:
            raise self.rejected(f"group {request.group} names no image", 'add image = "NAME" to the group')
        try:
            image = self._images.use(request.image)
        except ImageError as error:
            raise ImageNotFound(error.what, where=error.where or self.name, remedy=error.remedy) from None
        if not isinstance(image, DiskImage):
            raise self.rejected(f"image {image.name} is a tree: a virtual machine boots a disk", qemu_check.NOT_A_TREE)
        if shape.resources.memory < image.minimum_memory:
            raise self.rejected(
                f"shape {shape.name} has {shape.resources.memory} MiB of memory, image {image.name} needs "
                f"{image.minimum_memory}",
                "take a larger shape",
            )
        return MachineKind(qemu, self._acceleration().chosen, image, shape.resources)

    def _bootable(self, request: LaunchRequest) -> bool:
        try:
            self._kind(request)
        except CloudError:
            return False
        return not os.path.lexists(self.directory / request.worker)

    def _distrust_state_of(self, machine: Machine) -> None:
        path = self.directory / machine.id / "state"
        if path.exists():
            log.warning("a saved state cannot be continued: it is made anew", machine=machine.id)
            self._states.distrust(path.read_text())


def _stopped(machine: Machine, how: Stopped) -> Machine:
    words = f"its guest stands still ({how.word})"
    if how.word == "io-error":
        words = "its guest stands still: the host's disk is full or fails (io-error); it goes on when 256 MiB are free"
    return replace(machine, state=MachineState.BROKEN, message=words)
