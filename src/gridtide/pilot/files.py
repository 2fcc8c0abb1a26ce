"""The storage directory: inputs by their digest, logs and outputs by job and attempt.

    files/<aa>/<digest>                                    inputs, written once
    files/incoming/<random>                                uploads under way
    jobs/<submission>/<index>/<attempt>/stdout, stderr     logs
    jobs/<submission>/<index>/<attempt>/outputs/<name>     results

Names come from strangers. Every one is checked to be a plain relative path before it is joined, all directories are
made by this class alone, and no file is opened through a symbolic link.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridtide.errors import Conflict, InvalidRequest, NotFound, StoreError
from gridtide.pilot.jdl_values import why_not_file_name

MAXIMUM_FILE: Final = 64 * 2**30
"""Bytes of an input or output."""
MAXIMUM_LOG: Final = 64 * 2**20
"""Bytes of a stream. A job that prints without end must not fill the disk; its agent is told that all is well."""
MAXIMUM_OUTPUTS: Final = 1000
"""Results of one attempt."""
TRUNCATED: Final = b"\n[gridtide: the output was longer than 64 MiB, the rest was not kept]\n"
STREAMS: Final = ("stdout", "stderr")

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_UPLOAD: Final = ".gridtide-upload-"
_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class AttemptPlace:
    """Where an attempt's files are; made of numbers only."""

    submission: int
    index: int
    attempt: int

    def below(self, jobs: Path) -> Path:
        """The attempt's directory."""
        return jobs / str(self.submission) / str(self.index) / str(self.attempt)


class Files:
    """All access to the storage directory. Methods block: call them on a thread when files may be large."""

    def __init__(self, directory: Path) -> None:
        self._inputs = directory / "files"
        self._incoming = self._inputs / "incoming"
        self._jobs = directory / "jobs"
        for path in (directory, self._inputs, self._incoming, self._jobs):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    # --- inputs

    def new_upload(self) -> Path:
        """An empty file to write an upload to."""
        return self._create(self._incoming)

    def has(self, digest: str) -> bool:
        """Whether a file of that digest is stored. InvalidRequest when it is not a digest."""
        return _is_file(self._input(digest))

    def size(self, digest: str) -> int:
        """Its size in bytes. NotFound."""
        return self.input(digest).stat().st_size

    def input(self, digest: str) -> Path:
        """Where it lies. NotFound."""
        path = self._input(digest)
        if not _is_file(path):
            raise NotFound(f"no file with digest {digest} is stored", remedy="upload it first")
        return path

    def keep_input(self, written: Path, digest: str) -> None:
        """Make a complete upload known under its digest."""
        final = self._input(digest)
        self._check_upload(written, self._incoming)
        _verify(written, digest)
        self._directory(final.parent)
        self._settle(written, final)

    def _input(self, digest: str) -> Path:
        return self._inputs / checked_digest(digest)[:2] / digest

    # --- logs

    def append_log(self, place: AttemptPlace, stream: str, offset: int, data: bytes) -> int:
        """Add what is new of ``data``, which begins at ``offset`` of the stream; returns the length now kept."""
        path = self._log(place, stream)
        self._directory(path.parent)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "ab", buffering=0):
            length = os.fstat(handle).st_size
            if length > MAXIMUM_LOG:
                return max(length, offset + len(data))
            if offset < 0 or offset > length:
                raise Conflict(f"{length} bytes of {stream} are kept, the next piece cannot begin at {offset}")
            new = data[length - offset :]
            if length + len(new) > MAXIMUM_LOG:
                # Longer than the limit from now on, which is how the next call knows.
                _write(handle, new[: MAXIMUM_LOG - length] + TRUNCATED)
                return offset + len(data)
            _write(handle, new)
            return length + len(new)

    def read_log(self, place: AttemptPlace, stream: str, offset: int, limit: int) -> bytes:
        """A piece of a log; empty when there is nothing."""
        if offset < 0 or limit < 0:
            raise InvalidRequest("a log is read from an offset that is not negative")
        try:
            handle = os.open(self._log(place, stream), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        with os.fdopen(handle, "rb") as log:
            log.seek(offset)
            return log.read(limit)

    def _log(self, place: AttemptPlace, stream: str) -> Path:
        if stream not in STREAMS:
            raise InvalidRequest(f"{stream[:40]!r} is not a stream", remedy="stdout or stderr")
        return place.below(self._jobs) / stream

    # --- outputs

    def new_output(self, place: AttemptPlace) -> Path:
        """An empty file beside the outputs of an attempt."""
        directory = place.below(self._jobs) / "outputs"
        self._directory(directory)
        return self._create(directory)

    def keep_output(self, place: AttemptPlace, name: str, written: Path, digest: str) -> int:
        """Move a complete upload to its place; returns its size."""
        final = self.output_path(place, name)
        self._check_upload(written, place.below(self._jobs) / "outputs")
        checked_digest(digest)
        size = _verify(written, digest)
        try:
            self._directory(final.parent)
            self._settle(written, final)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            written.unlink()
            raise InvalidRequest(f"{name[:60]!r} is both a file and a directory of the job") from None
        return size

    def output(self, place: AttemptPlace, name: str) -> Path:
        """Where a kept output lies. NotFound."""
        path = self.output_path(place, name)
        if not _is_file(path):
            raise NotFound(f"no output {name!r} is kept")
        return path

    def output_path(self, place: AttemptPlace, name: str) -> Path:
        """Its final place. InvalidRequest for a name that is not a plain one."""
        wrong = why_not_file_name(name)
        if wrong is not None:
            raise InvalidRequest(f"the file name {name[:60]!r} {wrong}")
        return place.below(self._jobs) / "outputs" / name

    # --- common

    def discard_uploads(self, before: float) -> None:
        """Delete input uploads that were abandoned before this time."""
        for path in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_mtime < before:
                    path.unlink()

    def _create(self, directory: Path) -> Path:
        path = directory / f"{_UPLOAD}{secrets.token_hex(16)}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        return path

    @staticmethod
    def _check_upload(written: Path, directory: Path) -> None:
        if written.parent != directory or not written.name.startswith(_UPLOAD) or not _is_file(written):
            raise InvalidRequest("this is not an upload that was begun here")

    @staticmethod
    def _directory(path: Path) -> None:
        missing = [path]
        while not missing[-1].is_dir():
            missing.append(missing[-1].parent)
        for directory in reversed(missing[:-1]):  # one by one: mkdir gives its mode to the last part only
            directory.mkdir(mode=0o700, exist_ok=True)

    @staticmethod
    def _settle(written: Path, final: Path) -> None:
        # Content first, then the name, then the directory: after a power cut the name is there with all of its content
        # or not at all. What was acknowledged has no second copy.
        _sync(written)
        os.replace(written, final)
        _sync(final.parent)


def checked_digest(digest: str) -> str:
    """SHA-256 in lower-case hexadecimal, or InvalidRequest."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequest(f"{digest[:80]!r} is not a SHA-256 digest", remedy="64 lower-case hexadecimal digits")
    return digest


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _verify(path: Path, digest: str) -> int:
    """The size of a file that has this digest; it is deleted otherwise. InvalidRequest."""
    found = hashlib.sha256()
    size = 0
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
            size += len(chunk)
    problem = None
    if size > MAXIMUM_FILE:
        problem = f"the file has {size} bytes, {MAXIMUM_FILE} are the most"
    elif found.hexdigest() != digest:
        problem = f"the upload has digest {found.hexdigest()}, but {digest} was announced"
    if problem is not None:
        path.unlink()
        raise InvalidRequest(problem, remedy="send it again")
    return size


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(handle, view)
        if written == 0:
            raise StoreError("the storage directory takes no more bytes", remedy="make room on its disk")
        view = view[written:]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
