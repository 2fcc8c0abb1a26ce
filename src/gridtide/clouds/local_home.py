"""The directory of one machine of this host, and how it is read, kept and removed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from gridtide import locks
from gridtide.model.resources import Resources, Shape

PAST_KEPT: Final = 50
"""Consoles of ended machines that are kept: enough to look into a bad night, and at most 3 MiB."""

_CONSOLE_KEPT: Final = 64 * 1024
_CONSOLE_MOST: Final = 4 * 1024 * 1024
"""Bytes of console per living machine: what a machine prints for ever must not fill the host's disk."""

_LAST_WORDS: Final = 200
"""Characters of the console's last line that are shown for a machine that stopped."""


@dataclass(frozen=True, slots=True)
class Tag:
    """What ``machine.json`` says. ``readable`` is False for a directory that has the file but not its meaning."""

    site: str
    worker: str
    resources: Resources
    readable: bool = True

    def belongs_to(self, site: str, worker: str) -> bool:
        """Whether this is the tag of just that machine."""
        return self.readable and (self.site, self.worker) == (site, worker)


def read_tag(home: Path) -> Tag | None:
    """None: not a machine at all. Not readable: a machine about which nothing is known."""
    try:
        content = (home / "machine.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return Tag("", "", Resources(), readable=False)
    try:
        document = json.loads(content)
        return Tag(str(document["site"]), str(document["worker"]), Resources(**document["resources"]))
    except (ValueError, KeyError, TypeError):
        return Tag("", "", Resources(), readable=False)


def write_private(path: Path, content: bytes) -> None:
    """A new file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)


def tag_document(site: str, worker: str, group: str, shape: Shape) -> bytes:
    """The content of ``machine.json``."""
    tag = {"version": 1, "site": site, "worker": worker, "group": group, "shape": shape.name}
    return json.dumps(tag | {"resources": asdict(shape.resources)}).encode()


def is_held(home: Path) -> bool | None:
    """Whether the machine's first process lives; None when there is no lock to tell it by."""
    try:
        descriptor = os.open(home / "machine.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return locks.is_locked(descriptor)
    finally:
        os.close(descriptor)


def _tail(path: Path, limit: int) -> bytes:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit))
        return file.read(limit)


def last_words(home: Path) -> str:
    """The last line of the console, made safe for a table; empty when there is none."""
    try:
        lines = _tail(home / "console.log", 4096).decode(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return "".join(letter if letter.isprintable() else " " for letter in last).strip()[:_LAST_WORDS]


def keep_console(home: Path, past: Path, name: str) -> None:
    """Keep the console's tail as ``past/<name>.log``, and the newest :data:`PAST_KEPT` of all.

    It serves curiosity only, so that no failure of it (a full disk) keeps a machine from being ended.
    """
    with contextlib.suppress(OSError):
        tail = _tail(home / "console.log", _CONSOLE_KEPT)
        past.mkdir(mode=0o700, exist_ok=True)
        (past / f"{name}.log").unlink(missing_ok=True)
        write_private(past / f"{name}.log", tail)
        newest_first = sorted(past.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
        for old in newest_first[PAST_KEPT:]:
            old.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Remove a tree, also one in which a job took its own rights away. Symbolic links are never followed."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except PermissionError:
        for folder, _folders, _files in os.walk(path, onerror=None):
            for name in (folder, *(os.path.join(folder, name) for name in _folders)):
                if not os.path.islink(name):
                    os.chmod(name, 0o700)
        shutil.rmtree(path)


def read_console(directory: Path, machine: str, most: int) -> bytes | None:
    """The end of what a machine printed, living or ended; None when nothing is kept of it."""
    for path in (directory / machine / "console.log", directory / ".past" / f"{machine}.log"):
        with contextlib.suppress(FileNotFoundError):
            return _tail(path, most)
    return None


def bound_console(home: Path) -> None:
    """Cut a console that has grown too long to its end. Its writer appends, so nothing else notices."""
    path = home / "console.log"
    with contextlib.suppress(OSError):
        if path.stat().st_size > _CONSOLE_MOST:
            tail = _tail(path, _CONSOLE_KEPT)
            os.truncate(path, 0)
            with open(path, "ab") as file:
                file.write(tail)
