"""Programs of other packages that images are made with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gridtide.errors import ImageError

PACKAGES: Final[Mapping[str, str]] = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "lz4": "lz4",
    "zstd": "zstd",
    "chroot": "coreutils",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""Program -> Debian package."""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def need(*programs: str) -> None:
    """ImageError with the line that installs what is missing."""
    missing = [program for program in programs if shutil.which(program, path=_PATH) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[program] for program in missing}))
        raise ImageError(f"missing: {', '.join(missing)}", remedy=f"apt-get install {packages}")


def run(
    command: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None, directory: Path | None = None
) -> str:
    """Run to its end and return what it printed. ImageError with its last words when it fails."""
    done = subprocess.run(  # noqa: S603
        list(command),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        env={"PATH": _PATH, "LANG": "C.UTF-8", "HOME": os.environ.get("HOME", "/"), **(environment or {})},
    )
    if done.returncode:
        raise ImageError(f"{what} failed: {last_words(done.stderr or done.stdout)}")
    return done.stdout


def last_words(text: str) -> str:
    """The last lines that say something, joined."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("E:", "error", "ERROR"))] or lines
    return "; ".join(told[-2:])[:500] or "it said nothing"
