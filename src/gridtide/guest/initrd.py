"""The initial RAM disk: a static busybox, the few kernel modules that a machine needs, and one script."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridtide.errors import ImageError

_SCRIPT: Final = Path(__file__).parent / "initrd.sh"

MODULES: Final = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
)
"""In the order of their dependencies. Each costs a boot about 15 ms under emulation."""

_FOLDERS: Final = ("bin", "dev", "lib", "newroot", "proc")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or directory of the archive."""

    name: str
    mode: int
    content: bytes = b""


def make_initrd(tree: Path, target: Path) -> None:
    """Write the initial RAM disk for the tree's kernel to ``target``: the same tree gives the same bytes.

    It is not compressed: unpacking costs a boot more than copying. ImageError when busybox or a module is missing.
    """
    modules = [Entry(f"lib/{name}.ko", 0o100644, content) for name, content in _modules(tree)]
    entries = [
        *(Entry(folder, 0o040755) for folder in _FOLDERS),
        Entry("bin/busybox", 0o100755, _busybox(tree)),
        Entry("init", 0o100755, _SCRIPT.read_bytes()),
        # The script loads them in this order.
        Entry("lib/order", 0o100644, "".join(f"{entry.name}\n" for entry in modules).encode()),
        *modules,
    ]
    target.write_bytes(archive(entries))


def archive(entries: Iterable[Entry]) -> bytes:
    """A cpio archive in the "newc" format, as Linux documents it (Documentation/driver-api/early-userspace)."""
    parts: list[bytes] = []
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], start=1):
        name = entry.name.encode() + b"\0"
        # magic, inode, mode, owner, group, links, time, size, device (2), special device (2), length of name, check
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        parts += [_padded(head), _padded(entry.content)]
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _busybox(tree: Path) -> bytes:
    for place in ("usr/bin/busybox", "bin/busybox"):
        if (tree / place).is_file():
            return (tree / place).read_bytes()
    raise ImageError("there is no busybox", where=str(tree), remedy="add the package busybox-static to the recipe")


def _modules(tree: Path) -> Iterable[tuple[str, bytes]]:
    """Those that are not built into the kernel."""
    places = sorted((*tree.glob("usr/lib/modules/*"), *tree.glob("lib/modules/*")))
    if not places:
        raise ImageError("there are no kernel modules", where=str(tree), remedy="add a kernel package to the recipe")
    newest = places[-1]
    files = {path.name.split(".")[0].replace("-", "_"): path for path in newest.rglob("*.ko*")}
    builtin = newest / "modules.builtin"
    lines = builtin.read_text().splitlines() if builtin.exists() else []
    inside = {Path(line).stem.replace("-", "_") for line in lines}
    for name in MODULES:
        if name in files:
            yield name, _unpacked(files[name])
        elif name not in inside and name != "virtio_pci_legacy_dev":  # a kernel may be without legacy devices
            raise ImageError(f"kernel module {name} is missing", where=str(newest))


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix == ".zst":
        program = shutil.which("zstd")
        if program is None:
            raise ImageError("the program zstd is missing", remedy="apt-get install zstd")
        return subprocess.run([program, "-dc"], input=content, capture_output=True, check=True).stdout  # noqa: S603
    return content
