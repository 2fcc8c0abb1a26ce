"""The kernel of an image, unpacked."""

from __future__ import annotations

import lzma
import shutil
import subprocess
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gridtide.errors import ImageError

_ELF: Final = b"\x7fELF"


def extract_kernel(tree: Path, target: Path) -> None:
    """Write the tree's newest kernel to ``target`` as an ELF file.

    A bzImage unpacks itself in the guest; done once, here, it saves each boot half a second under emulation. The ELF
    file has a PVH entry (the Xen note 18 of Linux since 4.21), at which QEMU starts it. ImageError when there is no
    kernel, or one that cannot be unpacked.
    """
    found = kernel_of(tree)
    target.write_bytes(unpack_kernel(found.read_bytes(), str(found)))


def kernel_of(tree: Path) -> Path:
    """The bzImage in ``boot/``; the newest when there are several."""
    found = sorted(tree.glob("boot/vmlinuz-*"))
    if not found:
        raise ImageError("there is no kernel", where=str(tree / "boot"), remedy="add a kernel package to the recipe")
    return found[-1]


def unpack_kernel(image: bytes, where: str) -> bytes:
    """The ELF file in a bzImage (or the file itself when it is one). ImageError when none is found."""
    if image.startswith(_ELF):
        return image
    for magic, unpack in _FORMATS.items():
        start = image.find(magic)
        while start >= 0:
            kernel = unpack(image[start:])
            if kernel.startswith(_ELF):
                return kernel
            start = image.find(magic, start + 1)
    raise ImageError(
        "this is no kernel image that can be unpacked", where=where, remedy="gzip, xz, zstd and lz4 are known"
    )


def _gzip(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(data)
    except zlib.error:
        return b""


def _xz(data: bytes) -> bytes:
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)
    except (lzma.LZMAError, EOFError):
        return b""


def _by(program: str) -> Callable[[bytes], bytes]:
    def unpack(data: bytes) -> bytes:
        path = shutil.which(program)
        if path is None:
            raise ImageError(f"the program {program} is missing", remedy=f"apt-get install {program}")
        # What follows the kernel in the file is taken for damage after its end: only the output tells.
        return subprocess.run([path, "-dc"], input=data, capture_output=True, check=False).stdout  # noqa: S603

    return unpack


_FORMATS: Final[Mapping[bytes, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b\x08": _gzip,
    b"\xfd7zXZ\x00": _xz,
    b"\x28\xb5\x2f\xfd": _by("zstd"),
    b"\x02\x21\x4c\x18": _by("lz4"),
}
"""First bytes of a compressed kernel. They may occur elsewhere in the file by chance, so each place is tried."""
