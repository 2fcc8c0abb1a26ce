"""The image that the demo's virtual machines boot from: Python and what the analysis imports, from this environment."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable
from importlib.metadata import files, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from gridtide.errors import NotFound
from gridtide.images.building import build
from gridtide.images.recipe import read_recipe
from gridtide.images.store import ImageStore

NAME = "gridtide-demo"
LIBRARY = "uproot"
"""What the analysis imports; what that needs is found out."""

PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
"""The libraries hold machine code for this very version: a suite of another one is refused by its package manager."""

RECIPE = f"""
description = "the demo's analysis"
suite = "bookworm"
packages = ["{PYTHON}-minimal", "python3-minimal", "libpython3-stdlib", "libstdc++6", "zlib1g"]
files = [{{ source = "libraries.tar", target = "/usr/lib/python3/dist-packages/demo.tar" }}]
script = "unpack.sh"
minimum_memory = "512 MiB"
"""


def image(directory: Path, store: ImageStore, note: Callable[[str], None]) -> str:
    """The name of the image, built unless the store has it for just these versions. GridtideError when it cannot be."""
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(directory / "libraries.tar", "w") as archive:
        for library in sorted(_needed(LIBRARY)):
            for file in sorted(files(library) or (), key=str):
                path = Path(str(file.locate()))
                if path.is_file() and "__pycache__" not in path.parts and ".." not in Path(str(file)).parts:
                    archive.add(path, arcname=str(file), recursive=False, filter=_plain)
    (directory / "unpack.sh").write_text(
        "#!/bin/sh\nset -e\ncd /usr/lib/python3/dist-packages\ntar -xf demo.tar\nrm demo.tar\n"
    )
    (directory / "demo.toml").write_text(RECIPE)
    recipe, text = read_recipe(str(directory / "demo.toml"))
    text += "".join(f"# {name} {version(name)}\n" for name in sorted(_needed(LIBRARY)))
    try:
        if store.manifest(NAME)["origin"].get("recipe") == text:
            store.use(NAME)
            return NAME
    except NotFound:
        pass
    note("building the image of the machines (half a minute, once)")
    build(store, NAME, recipe, text)
    return NAME


def _needed(library: str, known: frozenset[str] = frozenset()) -> frozenset[str]:
    """The library and all that it needs here."""
    if library in known:
        return known
    known |= {library}
    for text in requires(library) or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            known = _needed(requirement.name, known)
    return known


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = 0
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry
