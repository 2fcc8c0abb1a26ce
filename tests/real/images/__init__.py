"""Images for tests: built once per machine for each state of the code that they follow from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from gridtide.images.building import build
from gridtide.images.image import ImageKind, TreeImage
from gridtide.images.importing import import_image
from gridtide.images.recipe import read_recipe
from gridtide.images.store import VERSION, ImageStore
from tests.real.engines import need

QEMU = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}
MMDEBSTRAP = {"mmdebstrap": "mmdebstrap"}
BUILDERS = {**MMDEBSTRAP, "mke2fs": "e2fsprogs", "lz4": "lz4", "zstd": "zstd", **QEMU}

SOURCE = Path(__file__).parents[3] / "src/gridtide"

DISKS = ("guest", "images", "agent")
"""The code that a disk is made by and made of."""
TREES = ("images/building.py", "images/contents.py", "images/recipes", "guest/prepare.py")
"""The same of a tree. The agent is not in it."""

NEITHER = "guest/process.sh"
"""Is in no image: the process cloud runs it from where it is."""

FORGOTTEN = 3600.0
"""Seconds after its last use when a store of another state of the code is removed."""

_held: list[int] = []


@cache
def image_store(*names: str) -> ImageStore:
    """With ``thin``, ``blank`` (a disk without anything on it), and what is named of our recipes.

    With names that end in ``-tree`` (all of them then): just these trees, ``batch-tree`` of the recipe ``batch``.
    """
    if any(name.endswith("-tree") for name in names):
        return tree_store(*names)
    need(BUILDERS)
    directory = _directory("images", DISKS)
    store = ImageStore(directory)
    with (directory / ".tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if "blank" not in store.names():
            empty = directory / ".blank.raw"
            empty.write_bytes(bytes(1 << 20))
            import_image(store, "blank", str(empty), minimum_memory=16)
        for name in ("thin", *names):
            if name not in store.names():
                recipe, text = read_recipe(name)
                build(store, name, recipe, text)
    return store


@cache
def tree_store(*names: str) -> ImageStore:
    """With the trees of these names: ``batch-tree`` is the recipe ``batch``, and so on."""
    need(MMDEBSTRAP)
    directory = _directory("trees", TREES)
    store = ImageStore(directory)
    for name in names:
        with (directory / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if name not in store.names():
                recipe, text = read_recipe(name.removesuffix("-tree"))
                build(store, name, recipe, text, kind=ImageKind.TREE)
    return store


def tree(name: str) -> Path:
    """The directory of a tree, to be a lower layer of an overlay. Nobody writes to it."""
    image = tree_store(name).use(name)
    assert isinstance(image, TreeImage)
    return image.tree


def copy_of(name: str, directory: Path) -> Path:
    """A store of the test's own with this one image, to do harm to."""
    source = image_store().directory
    target = os.readlink(source / name)
    shutil.copytree(source / target, directory / target)
    (directory / name).symlink_to(target)
    return directory


def _directory(kind: str, sources: Iterable[str]) -> Path:
    """Where this state of the code keeps its images. Stores of other states that nobody uses are removed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gridtide-tests"
    directory = cache / f"{kind}-{_key(sources)}"
    directory.mkdir(parents=True, exist_ok=True)
    _held.append(_hold(directory, fcntl.LOCK_SH))
    for other in cache.glob(f"{kind}-*"):
        if other != directory and time.time() - _last_used(other) > FORGOTTEN:
            _forget(other)
    return directory


def _hold(directory: Path, how: int) -> int:
    """An open file whose lock says that the store is used, for as long as this process lives."""
    handle = os.open(directory / ".users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, how)
    os.utime(directory / ".users")
    return handle


def _last_used(directory: Path) -> float:
    try:
        return (directory / ".users").stat().st_mtime
    except FileNotFoundError:
        return directory.stat().st_mtime


def _forget(directory: Path) -> None:
    try:
        handle = _hold(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    shutil.rmtree(directory, ignore_errors=True)
    os.close(handle)


def _key(sources: Iterable[str]) -> str:
    digest = hashlib.sha256(f"{VERSION}".encode())
    for source in sources:
        place = SOURCE / source
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and "__pycache__" not in path.parts and path != SOURCE / NEITHER:
                digest.update(str(path.relative_to(SOURCE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
