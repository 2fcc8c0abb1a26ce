"""Taking an image that somebody else made: a disk from a file or an address."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from gridtide.errors import ImageError
from gridtide.images.building import KERNEL_ARGUMENTS
from gridtide.images.image import Image
from gridtide.images.programs import need, run
from gridtide.images.store import ImageStore, Made, MadeDisk, Progress, check_name, no_progress
from gridtide.model.contexts import ContextFormat

_PIECE: Final = 1 << 20

_FORMATS: Final = ("qcow2", "raw", "vmdk", "vdi", "vhdx")

_LARGEST: Final = 1 << 40
"""Bytes that a disk may have for its machine: more is a slip, or an attack on the host's disk."""


def import_image(
    store: ImageStore,
    name: str,
    source: str,
    *,
    sha256: str | None = None,
    context: ContextFormat = ContextFormat.CLOUD_INIT,
    kernel: Path | None = None,
    initrd: Path | None = None,
    minimum_memory: int = 512,
    progress: Progress = no_progress,
) -> Image:
    """Import ``source``, a file or an http(s) address, as image ``name``; with a kernel it boots that one directly.

    ``sha256``: what the source's digest must be, in hexadecimal. The disk is converted to one that names no other file:
    a disk from elsewhere may name any file of this host as its base. ImageError when it is no disk, or is not what it
    should be; nothing is kept then.
    """
    check_name(name)
    need("qemu-img")
    with store.making() as place:
        try:
            given, digest = _fetch(source, place, progress)
            if sha256 is not None and digest != sha256.lower().removeprefix("sha256:"):
                raise ImageError(f"its SHA-256 is {digest}, not {sha256}", where=source, remedy="fetch it again")
            size = _convert(given, place / "disk.qcow2", source)
            for file, target in ((kernel, "kernel"), (initrd, "initrd")):
                if file is not None:
                    shutil.copyfile(file, place / target)
        except OSError as error:
            raise ImageError(f"cannot be imported: {error.strerror}", where=error.filename or source) from error
        if given.parent == place:
            given.unlink()
        made = Made(
            disk=MadeDisk(size, None if kernel is None else KERNEL_ARGUMENTS),
            context=context,
            minimum_memory=minimum_memory,
            created=time.time(),
            description=f"imported from {source}",
            origin={"source": source, "sha256": digest},
        )
        return store.add(name, place, made)


def _fetch(source: str, place: Path, progress: Progress) -> tuple[Path, str]:
    """A local file with the content, and its SHA-256."""
    if urlsplit(source).scheme in {"http", "https"}:
        return _download(source, place / ".download", progress)
    path = Path(source)
    digest = hashlib.sha256()
    total, behind = path.stat().st_size or 1, 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            behind += len(piece)
            progress("reading", behind / total)
    return path, digest.hexdigest()


def _download(source: str, target: Path, progress: Progress) -> tuple[Path, str]:
    digest = hashlib.sha256()
    try:
        with httpx.stream("GET", source, follow_redirects=True, timeout=60.0) as answer, target.open("wb") as file:
            answer.raise_for_status()
            total, behind = int(answer.headers.get("content-length", 0)), 0
            for piece in answer.iter_bytes(_PIECE):
                file.write(piece)
                digest.update(piece)
                behind += len(piece)
                progress("downloading", behind / total if total else 0.0)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ImageError(f"cannot be fetched: {error or type(error).__name__}", where=source) from None
    return target, digest.hexdigest()


def _convert(given: Path, target: Path, source: str) -> int:
    """The disk alone, as qcow2. Returns its size for the machine, in bytes."""
    told = run(["qemu-img", "info", "--output=json", "-U", str(given)], what=f"looking at {source}")
    try:
        about = json.loads(told)
        form, size = str(about["format"]), int(about["virtual-size"])
        data = about.get("format-specific", {}).get("data", {})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ImageError("qemu-img does not say what it is", where=source) from None
    if form not in _FORMATS:
        raise ImageError(f"is no disk ({form})", where=source, remedy=f"known: {', '.join(_FORMATS)}")
    if about.get("backing-filename") or data.get("data-file"):
        raise ImageError(
            "names another file as a part of it",
            where=source,
            remedy="convert it with `qemu-img convert` at its origin",
        )
    if not 0 < size <= _LARGEST:
        raise ImageError(f"has a disk of {size} bytes", where=source, remedy="at most 1 TiB")
    run(["qemu-img", "convert", "-f", form, "-O", "qcow2", str(given), str(target)], what=f"converting {source}")
    return size
