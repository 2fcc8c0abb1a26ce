"""The images of this host: kept by their digest, found by their name, never half written, verified before use.

``<directory>/objects/<digest>/`` holds an image's files (or its ``tree/`` and the list of that) and ``image.json``; it
appears whole, by one rename, and never changes. ``<directory>/<name>`` is a symbolic link to one of them, replaced by a
rename. So machines that run from the image that a name meant before keep it, until nothing uses it and
:meth:`ImageStore.prune` removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from gridtide import locks
from gridtide.errors import Conflict, ImageError, NotFound
from gridtide.images.contents import content_list, differences, total_size
from gridtide.images.image import DirectBoot, DiskImage, FirmwareBoot, Image, ImageKind, TreeImage
from gridtide.images.programs import run
from gridtide.model.contexts import ContextFormat
from gridtide.site.hints import suggestion

MANIFEST: Final = "image.json"
VERSION: Final = 1
"""Of the manifest and of where files are: an image of another version is not read."""
CONTENTS: Final = "contents.txt"
TREE: Final = "tree"
_SHOWN: Final = 3
"""Differences of a tree that are named; more tell nothing more."""
_STAMP: Final = "verified.json"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PIECE: Final = 1 << 20
Progress = Callable[[str, float], None]
"""Told what is done now, and which part of all (0 to 1) is behind."""


def no_progress(_what: str, _part: float) -> None:
    """For callers that nobody watches."""


def default_directory() -> Path:
    """Where this host keeps its images: $GRIDTIDE_IMAGES, else a place of root's or of this user's."""
    given = os.environ.get("GRIDTIDE_IMAGES")
    if given:
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/gridtide/images")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "gridtide/images"


def check_name(name: str) -> str:
    """ImageError unless it can name an image."""
    if not _NAME.fullmatch(name) or name == "objects":
        raise ImageError(f"{name[:60]!r} cannot name an image", remedy="use a-z, 0-9, '.', '_' and '-', at most 63")
    return name


@dataclass(frozen=True, slots=True)
class MadeDisk:
    """What there is to know of an image that is a disk."""

    size: int
    """Bytes that it has for the machine."""
    kernel_arguments: str | None
    """None: the firmware finds a boot loader on the disk. Otherwise the files ``kernel`` and ``initrd`` are used."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a builder or importer knows of the image whose files it has put into a directory."""

    disk: MadeDisk | None
    """None: it is the directory ``tree``, and ``contents.txt`` is its list."""
    context: ContextFormat
    minimum_memory: int
    created: float
    description: str
    origin: Mapping[str, Any]
    """Recipe and packages, or where it was imported from; shown, never interpreted."""


class ImageStore:
    """The images in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()

    # --- looking

    def names(self) -> list[str]:
        """Of all images, sorted."""
        try:
            return sorted(entry.name for entry in os.scandir(self.directory) if entry.is_symlink())
        except FileNotFoundError:
            return []

    def get(self, name: str) -> Image:
        """What the store says of it, without looking at its files. ImageError when there is none."""
        return _image(name, self._object(name))

    def manifest(self, name: str) -> Mapping[str, Any]:
        """All that is recorded of it."""
        return _read_manifest(self._object(name))

    def use(self, name: str) -> Image:
        """The image, whose files are known to be what they were when it was made.

        Their digests are computed when the files look different from the last time (size, times, inode): a file that
        was damaged or replaced is found before a machine boots from it. ImageError "is damaged" then. Of a tree only
        the list and the top directory are looked at: :meth:`verify` reads the rest.
        """
        home = self._object(name)
        image = _image(name, home)
        if _read_json(home / _STAMP) != _looks(home):
            self.verify(name)
        return image

    def verify(self, name: str, progress: Progress = no_progress) -> None:
        """Read every byte. ImageError names the file that is not what it was."""
        home = self._object(name)
        manifest = _read_manifest(home)
        with _locked(self.directory / ".verify.lock"):
            looks = _looks(home)
            if wrong := _damage(home, manifest, partial(progress, f"verifying {name}")):
                raise ImageError(
                    f"image {name} is damaged: {wrong}",
                    where=str(home),
                    remedy=f"build or import it again, or `gridtide image remove {name}`",
                )
            with contextlib.suppress(OSError):  # a full disk: it is verified anew next time
                _write_json(home / _STAMP, looks)

    def users(self, name: str) -> bool:
        """Whether a machine runs from it now: QEMU locks the files that it has open, as other machines do."""
        return _in_use(self._object(name))

    # --- changing

    @contextlib.contextmanager
    def making(self) -> Iterator[Path]:
        """A directory to put the files of a new image into. What crashed makers left is swept first."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"the image store cannot be made: {error.strerror}", where=str(self.directory)) from None
        self._sweep()
        place = self.directory / f".making-{secrets.token_hex(4)}"
        place.mkdir(mode=0o755)
        with _locked(place / ".lock"):
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)

    def add(self, name: str, place: Path, made: Made) -> Image:
        """Take the files in ``place`` (from :meth:`making`) as image ``name``, replacing the one it meant before."""
        check_name(name)
        (place / ".lock").unlink(missing_ok=True)
        listed = sorted(path for path in place.iterdir() if path.is_file())
        entries = {path.name: {"sha256": _digest_of(path), "size": path.stat().st_size} for path in listed}
        digest = _digest_of_all(entries, made)
        _write_json(place / MANIFEST, _manifest(digest, entries, made, place))
        for path in listed:
            path.chmod(0o444)
            _sync(path)
        if made.disk is None:
            run(["sync", "--file-system", str(place)], what="writing the tree to the disk")
        home = self.directory / "objects" / digest
        home.parent.mkdir(exist_ok=True)
        if home.exists():
            shutil.rmtree(place)  # the very same files are there already
        else:
            place.rename(home)
        link = self.directory / f".link-{secrets.token_hex(4)}"
        link.symlink_to(Path("objects") / digest)
        link.rename(self.directory / name)
        _sync(self.directory)
        self.verify(name)
        return self.get(name)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Forget the name, and its files unless another name has them. Conflict while a machine runs from it."""
        home = self._object(name)
        if not force and _in_use(home):
            raise Conflict(
                f"a machine runs from image {name}", where=str(home), remedy="drain its workers first, or use --force"
            )
        (self.directory / name).unlink()
        if home not in {self._target(other) for other in self.names()}:
            shutil.rmtree(self._aside(home), ignore_errors=True)

    def prune(self) -> list[str]:
        """Remove files that no name means and no machine uses. Returns their digests."""
        named = {self._target(name) for name in self.names()}
        gone = []
        for home in sorted((self.directory / "objects").glob("*")):
            if home in named or _in_use(home):
                continue
            aside = self._aside(home)
            if _in_use(aside):  # a machine took hold of it just before it was set aside
                aside.rename(home)
                continue
            shutil.rmtree(aside, ignore_errors=True)
            gone.append(f"sha256:{home.name}")
        return gone

    def _aside(self, home: Path) -> Path:
        """Moved where no machine finds it, so that nothing starts from half an image. What is left there is swept."""
        aside = self.directory / f".removing-{secrets.token_hex(4)}"
        return home.rename(aside)

    def _sweep(self) -> None:
        for left in self.directory.glob(".making-*"):
            if not _is_locked(left / ".lock"):
                shutil.rmtree(left, ignore_errors=True)
        for left in self.directory.glob(".removing-*"):
            if not _in_use(left):
                shutil.rmtree(left, ignore_errors=True)
        for link in self.directory.glob(".link-*"):
            link.unlink(missing_ok=True)

    def _target(self, name: str) -> Path:
        return self.directory / os.readlink(self.directory / name)

    def _object(self, name: str) -> Path:
        check_name(name)
        try:
            return self._target(name)
        except OSError:
            known = self.names()
            raise ImageNotThere(
                f"there is no image {name!r}",
                where=str(self.directory),
                remedy=f"{suggestion(name, known)}; `gridtide image build {name} --recipe thin` makes one"
                if not known
                else suggestion(name, known),
            ) from None


class ImageNotThere(ImageError, NotFound):
    """No image has that name."""


def _digest_of_all(entries: Mapping[str, Mapping[str, Any]], made: Made) -> str:
    """A tree's is that of its list: two builds of one recipe from the same packages have the same."""
    if made.disk is None:
        return str(entries[CONTENTS]["sha256"])
    told = "".join(f"{file} {entry['sha256']}\n" for file, entry in entries.items())
    return hashlib.sha256(told.encode()).hexdigest()


def _manifest(digest: str, entries: Mapping[str, Any], made: Made, place: Path) -> dict[str, Any]:
    kind = ImageKind.TREE if made.disk is None else ImageKind.DISK
    about: dict[str, Any] = (
        {"size": total_size((place / CONTENTS).read_text())}
        if made.disk is None
        else {"disk_size": made.disk.size, "kernel_arguments": made.disk.kernel_arguments}
    )
    return {
        "version": VERSION,
        "kind": kind.value,
        "digest": f"sha256:{digest}",
        "created": made.created,
        "description": made.description,
        **about,
        "context": made.context.value,
        "minimum_memory": made.minimum_memory,
        "origin": dict(made.origin),
        "files": dict(entries),
    }


def _damage(home: Path, manifest: Mapping[str, Any], progress: Callable[[float], None]) -> str | None:
    """What is not as it was when the image was made, in words; None when all is."""
    tree = manifest.get("size", 0) if manifest.get("kind") == ImageKind.TREE else 0
    total = tree + sum(entry["size"] for entry in manifest["files"].values()) or 1
    behind = 0
    for file, entry in manifest["files"].items():
        digest = _digest_of(home / file, partial(_report, progress, behind, total))
        behind += entry["size"]
        if digest != entry["sha256"]:
            return f"{file} is not what it was"
    if manifest.get("kind") != ImageKind.TREE:
        return None
    try:
        found = content_list(home / TREE, partial(_report, progress, behind, total))
        changed = differences((home / CONTENTS).read_text(), found)
    except OSError as error:
        return f"{error.filename or TREE} cannot be read: {error.strerror}"
    more = f", and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return ", ".join(changed[:_SHOWN]) + more or None


def _report(progress: Callable[[float], None], behind: int, total: int, read: int) -> None:
    progress(min(1.0, (behind + read) / total))


def _image(name: str, home: Path) -> Image:
    manifest = _read_manifest(home)
    try:
        return (
            _tree_image(name, home, manifest) if manifest.get("kind") == "tree" else _disk_image(name, home, manifest)
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(home, f"{type(error).__name__}: {error}") from None


def _tree_image(name: str, home: Path, manifest: Mapping[str, Any]) -> TreeImage:
    return TreeImage(
        name=name,
        digest=str(manifest["digest"]),
        created=float(manifest["created"]),
        size=int(manifest["size"]) + sum(int(entry["size"]) for entry in manifest["files"].values()),
        context=ContextFormat(manifest["context"]),
        minimum_memory=int(manifest["minimum_memory"]),
        tree=home / TREE,
        hold=home / CONTENTS,
    )


def _disk_image(name: str, home: Path, manifest: Mapping[str, Any]) -> DiskImage:
    arguments = manifest["kernel_arguments"]
    initrd = home / "initrd"
    return DiskImage(
        name=name,
        digest=str(manifest["digest"]),
        created=float(manifest["created"]),
        size=sum(int(entry["size"]) for entry in manifest["files"].values()),
        context=ContextFormat(manifest["context"]),
        minimum_memory=int(manifest["minimum_memory"]),
        disk=home / "disk.qcow2",
        disk_size=int(manifest["disk_size"]),
        boot=FirmwareBoot()
        if arguments is None
        else DirectBoot(home / "kernel", initrd if "initrd" in manifest["files"] else None, str(arguments)),
    )


def _read_manifest(home: Path) -> Mapping[str, Any]:
    manifest = _read_json(home / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        raise _unreadable(home, f"no manifest of version {VERSION}")
    return manifest


def _unreadable(home: Path, why: str) -> ImageError:
    return ImageError(f"the image's {MANIFEST} is damaged: {why}", where=str(home), remedy="build or import it again")


def _looks(home: Path) -> dict[str, list[int]]:
    """What changes when a file does: cheap to read."""
    found = {}
    for path in sorted(home.iterdir()):
        if path.name != _STAMP:
            status = path.stat()
            found[path.name] = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return found


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write_json(path: Path, document: object) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(document, indent=1))
    _sync(new)
    new.rename(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    digest = hashlib.sha256()
    behind = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                behind += len(piece)
                if progress is not None:
                    progress(behind)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_locked(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _in_use(home: Path) -> bool:
    """Whether a process holds one of QEMU's locks on the disk (QEMU's file-posix driver, "Image locking"), or a
    machine that is a process one on the list of its tree."""
    for name in ("disk.qcow2", CONTENTS):
        try:
            handle = os.open(home / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if locks.is_locked(handle):
                return True
        finally:
            os.close(handle)
    return False
