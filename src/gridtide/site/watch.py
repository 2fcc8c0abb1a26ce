"""Noticing that the site file has new contents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Final

from watchfiles import awatch

# Events closer together than this count as one: an editor that saves by rename makes several.
_DEBOUNCE_MS: Final = 200
# File systems without events (NFS), and changes made between reading the file and watching it, are noticed this late.
_LOOK_ANYWAY_MS: Final = 5_000

Stirrings = Callable[[set[Path]], AsyncIterator[object]]
"""Given directories: an iterator that yields whenever something may have happened in one of them."""


def _stirrings(directories: set[Path]) -> AsyncIterator[object]:
    return awatch(
        *directories,
        watch_filter=None,
        debounce=_DEBOUNCE_MS,
        rust_timeout=_LOOK_ANYWAY_MS,
        yield_on_timeout=True,
        recursive=False,
        ignore_permission_denied=True,
    )


async def changed(path: Path, *others: Path, stirrings: Stirrings = _stirrings) -> AsyncIterator[None]:
    """Yield after each change of contents of these files (the site file, and the context files it names).

    The directories are watched, not the files: editors and configuration management replace a file by renaming another
    onto it. A file that cannot be read has not changed: nothing is yielded until it is back with other contents.
    Ends when cancelled or closed. FileNotFoundError when a directory does not exist.
    """
    paths = (path, *others)
    known = {one: _digest(one) for one in paths}
    async for _ in stirrings({directory for one in paths for directory in (one.parent, one.resolve().parent)}):
        now = {one: _digest(one) for one in paths}
        news = {one: digest for one, digest in now.items() if digest is not None and digest != known[one]}
        if news:
            known |= news
            yield


def _digest(path: Path) -> bytes | None:
    """Of the contents; None while they cannot be read."""
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:
        return None
