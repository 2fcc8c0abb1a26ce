"""What every image gets, of a virtual machine and of one that is a process: all but the agent itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from gridtide.errors import ImageError

USER: Final = "gridtide"
NUMBER: Final = 988
"""User and group of the agent and its jobs in a machine: a system number that no Debian package has as its own."""

PYTHON: Final = "add the packages python3-minimal and libpython3-stdlib to the recipe"


def prepare(tree: Path) -> None:
    """Everything but the agent: the user of jobs, its directory, and byte code. ImageError without Python 3.

    Byte code is made by the tree's own Python and never checked against its source: a machine compiles nothing and
    looks nothing up.
    """
    _add_user(tree)
    (tree / "var/lib/gridtide").mkdir(mode=0o700, parents=True, exist_ok=True)
    (tree / "usr/lib/gridtide").mkdir(parents=True, exist_ok=True)
    _compile(tree)


def _add_user(tree: Path) -> None:
    lines = {
        "etc/passwd": f"{USER}:x:{NUMBER}:{NUMBER}:Gridtide jobs:/var/lib/gridtide:/usr/sbin/nologin\n",
        "etc/group": f"{USER}:x:{NUMBER}:\n",
        "etc/shadow": f"{USER}:!:1::::::\n",
    }
    for name, line in lines.items():
        path = tree / name
        content = path.read_text() if path.exists() else ""
        if f"\n{USER}:" not in f"\n{content}":
            path.write_text(content + line)


def _compile(tree: Path) -> None:
    python = ["chroot", str(tree), "/usr/bin/python3", "-I", "-S", "-B", "-m", "compileall"]
    options = ["-q", "-f", "--invalidation-mode", "unchecked-hash"]
    libraries = _standard_libraries(tree)
    done = subprocess.run(  # noqa: S603
        [*python, *options, "/usr/lib/gridtide", *libraries],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONHASHSEED": "0"},
    )
    # The standard library has test files that do not compile on purpose: only what everything imports must.
    if not any(list((tree / one.lstrip("/") / "__pycache__").glob("os.*.pyc")) for one in libraries):
        words = (done.stderr or done.stdout).strip().splitlines()
        told = words[-1] if words else "no message"
        raise ImageError(f"the tree has no Python 3 that works: {told}", where=str(tree), remedy=PYTHON)


def _standard_libraries(tree: Path) -> list[str]:
    return [f"/{path.relative_to(tree)}" for path in sorted(tree.glob("usr/lib/python3.[0-9]*"))]
