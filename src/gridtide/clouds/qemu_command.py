"""The command line of a QEMU machine. Holds no secret: what a machine is told is on its seed disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final

from gridtide.images.image import DirectBoot, DiskImage
from gridtide.model.resources import Resources

MONITOR: Final = "monitor"
"""Socket of QEMU's monitor, in the machine's directory, which is QEMU's working directory: a socket's whole path may
have 108 characters only."""


class Accelerator(StrEnum):
    """How the guest's instructions are run."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Acceleration:
    """The choice, and why."""

    chosen: Accelerator
    why: str


def accelerate(
    wanted: Accelerator, *, device: Path = Path("/dev/kvm"), processor: Path = Path("/proc/cpuinfo")
) -> Acceleration:
    """KVM where the host can, TCG otherwise.

    A device alone proves nothing: nested hosts show one that starts no guest. The processor's flags tell (Intel's vmx,
    AMD's svm).
    """
    if wanted is Accelerator.TCG:
        return Acceleration(Accelerator.TCG, "as the site file says")
    reason = _why_not_kvm(device, processor)
    if wanted is Accelerator.KVM:
        return Acceleration(Accelerator.KVM, reason or "as the site file says")
    if reason:
        return Acceleration(Accelerator.TCG, reason)
    return Acceleration(Accelerator.KVM, f"{device} can be used")


def _why_not_kvm(device: Path, processor: Path) -> str:
    if not device.exists():
        return f"there is no {device}"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} may not be used by user {os.getuid()}"
    try:
        flags = set(processor.read_text().split())
    except OSError:
        flags = set()
    if not flags & {"vmx", "svm"}:
        return f"{device} is there, but the processor offers no virtualisation (flags vmx or svm)"
    return ""


@dataclass(frozen=True, slots=True)
class Qemu:
    """An installed QEMU."""

    program: str
    version: str
    quick_firmware: Path | None
    """qboot: starts a kernel without a menu, a VGA adapter and a disk to look for."""


@lru_cache(maxsize=8)
def installed(program: str) -> Qemu | None:
    """None when it is not there or does not run."""
    path = shutil.which(program)
    if path is None:
        return None
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    firmware = Path(path).resolve().parent.parent / "share/qemu/qboot.rom"
    return Qemu(path, answer.stdout.partition("\n")[0].strip(), firmware if firmware.is_file() else None)


@dataclass(frozen=True, slots=True)
class MachineKind:
    """All that the command line follows from. Machines of equal kind can be continued from one saved state."""

    qemu: Qemu
    acceleration: Accelerator
    image: DiskImage
    resources: Resources


_FILES_CLOSED_TO_MORE: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""QEMU's own seccomp filter: a guest that breaks out of it finds a process that can start nothing."""


def command(
    kind: MachineKind, *, disk: Path, seed: Path, state: int | None, saving: bool, port: int | None = None
) -> tuple[str, ...]:
    """To be run in the machine's directory. ``state``: an open file with a saved state to continue from.

    ``saving``: the machine is to wait for its seed, and to be saved. ``port``: of the host's loopback, leads to the
    same port of the machine; QEMU ends at once when it is taken.
    """
    arguments = [kind.qemu.program, "-name", "gridtide", "-M", "q35", "-nodefaults", "-no-user-config"]
    arguments += ["-display", "none", "-no-reboot", "-sandbox", _FILES_CLOSED_TO_MORE]
    if kind.acceleration is Accelerator.KVM:
        arguments += ["-accel", "kvm", "-cpu", "host"]
    else:
        # The cache of translated code: 128 MiB hold Linux and Python; less is translated twice.
        arguments += ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max"]
    arguments += ["-smp", str(kind.resources.cores), "-m", f"{kind.resources.memory}M"]
    arguments += _disk("disk", disk, "qcow2", "werror=stop,rerror=stop,discard=unmap")
    arguments += _disk("seed", seed, "raw", "readonly=on")
    forward = f",hostfwd=tcp:127.0.0.1:{port}-:{port}" if port is not None else ""
    arguments += ["-netdev", f"user,id=network,ipv6=off{forward}", "-device", "virtio-net-pci,netdev=network,romfile="]
    arguments += ["-device", "virtio-rng-pci"]
    arguments += ["-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console"]
    arguments += ["-qmp", f"unix:{MONITOR},server=on,wait=off"]
    arguments += _boot(kind, saving=saving or state is not None)
    arguments += ["-incoming", f"fd:{state}"] if state is not None else []
    return tuple(arguments)


def _disk(name: str, path: Path, form: str, options: str) -> list[str]:
    # A comma in a file name is written twice (QEMU documentation, "-drive").
    file = str(path).replace(",", ",,")
    return [
        *("-drive", f"file={file},format={form},if=none,id={name},{options}"),
        *("-device", f"virtio-blk-pci,drive={name}"),
    ]


def _boot(kind: MachineKind, *, saving: bool) -> list[str]:
    boot = kind.image.boot
    if not isinstance(boot, DirectBoot):
        return []
    quick = kind.qemu.quick_firmware
    arguments = ["-bios", str(quick)] if quick is not None else []
    arguments += ["-kernel", str(boot.kernel)]
    arguments += ["-initrd", str(boot.initrd)] if boot.initrd is not None else []
    return [*arguments, "-append", f"console=ttyS0 {boot.arguments}{' gridtide.wait' if saving else ''}"]
