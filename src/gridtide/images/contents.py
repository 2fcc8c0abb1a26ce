"""What is in a tree, as text: the content list of an image, and what differs from it."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_PIECE: Final = 1 << 20
_LINE: Final = re.compile(r"(/.*?) [-dlcbps][-rwxsStT]{9} \d+:\d+(?: (\d+) [0-9a-f]{64}| -> .*)?", re.DOTALL)


def walk(tree: Path) -> Iterator[Path]:
    """Everything below, children before their directory. OSError for a directory that cannot be read."""
    for folder, folders, names in os.walk(tree, topdown=False, onerror=_raise):
        for name in sorted([*names, *folders]):
            yield Path(folder, name)


def content_list(tree: Path, progress: Callable[[int], None] | None = None) -> str:
    """One line for each entry: path, kind, mode, owner, and the size and SHA-256 of a file or the target of a link.

    Two builds of one recipe from the same packages have the same list. Directories have no size, and times are left
    out: every file has the same. ``progress`` is told the bytes that were read so far. OSError when something cannot
    be read.
    """
    lines = []
    behind = 0
    for path in walk(tree):
        status = path.lstat()
        told = f"{stat.filemode(status.st_mode)} {status.st_uid}:{status.st_gid}"
        if stat.S_ISREG(status.st_mode):
            told += f" {status.st_size} {_digest_of(path)}"
            behind += status.st_size
            if progress is not None:
                progress(behind)
        elif stat.S_ISLNK(status.st_mode):
            told += f" -> {os.readlink(path)}"
        lines.append(f"/{path.relative_to(tree)} {told}\n")
    return "".join(sorted(lines))


def differences(before: str, now: str) -> list[str]:
    """What is not as it was, in words, one for each path; empty when the lists are equal."""
    was, found = _by_path(before), _by_path(now)
    told = []
    for path in sorted(was.keys() | found.keys()):
        if path not in found:
            told.append(f"{path} is missing")
        elif path not in was:
            told.append(f"{path} was added")
        elif was[path] != found[path]:
            told.append(f"{path} is not what it was")
    return told


def total_size(contents: str) -> int:
    """Bytes of all files of a content list."""
    matches = (_LINE.fullmatch(line) for line in contents.splitlines())
    return sum(int(match[2]) for match in matches if match is not None and match[2])


def _by_path(contents: str) -> dict[str, str]:
    found = {}
    for line in contents.splitlines():
        match = _LINE.fullmatch(line)
        found[match[1] if match is not None else line] = line
    return found


def _digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    raise error
