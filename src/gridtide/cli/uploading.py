"""From a job description on this machine to a submission: find its files, send what the service lacks, submit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gridtide.cli import views
from gridtide.cli.client import Client
from gridtide.cli.problems import Failed, WrongUsage
from gridtide.errors import JobDescriptionError
from gridtide.store.ports import Json

_CHUNK: Final = 1 << 20
_ASK: Final = 1000
"""Digests in one question: more would make a body that the service refuses."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that a job needs, as it was when it was read."""

    name: str
    path: Path
    digest: str
    size: int


def read_description(path: Path) -> tuple[str, tuple[str, ...]]:
    """The text, and the names of the files that it needs. JobDescriptionError or WrongUsage."""
    from gridtide.pilot.jdl import parse

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WrongUsage(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise JobDescriptionError(f"is not UTF-8 at byte {error.start}", where=str(path)) from None
    try:
        return text, parse(text).inputs
    except JobDescriptionError as error:
        raise JobDescriptionError(
            error.what, where=f"{path}: {error.where}" if error.where else str(path), remedy=error.remedy
        ) from None


def find_files(names: tuple[str, ...], directory: Path) -> list[LocalFile]:
    """The named files below ``directory``, each hashed. JobDescriptionError names all that are not there."""
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise JobDescriptionError(
            f"there is no file {', '.join(missing)}",
            where=str(directory),
            remedy="names are relative to the job description",
        )
    return [_hashed(name, directory / name) for name in names]


def upload_missing(client: Client, files: list[LocalFile], advance: Callable[[int, int], None]) -> list[LocalFile]:
    """Send what the service has not; ``advance(sent, all)`` counts bytes. Returns what was sent."""
    by_digest = {file.digest: file for file in files}
    digests = list(by_digest)
    missing: list[LocalFile] = []
    for begin in range(0, len(digests), _ASK):
        answer = client.post("/v1/files/missing", {"digests": digests[begin : begin + _ASK]})
        missing += [by_digest[digest] for digest in views.listed(answer, "missing") if digest in by_digest]
    total, sent = sum(file.size for file in missing), 0
    for file in missing:

        def content(file: LocalFile = file, before: int = sent) -> Iterator[bytes]:
            done = before
            for chunk in _chunks(file):
                yield chunk
                done += len(chunk)
                advance(done, total)

        client.put(f"/v1/files/{file.digest}", content(), file.size)
        sent += file.size
    return missing


def submit(client: Client, description: str, files: list[LocalFile]) -> Json:
    """Make the jobs; returns the submission's document."""
    names: Mapping[str, Json] = {file.name: file.digest for file in files}
    return client.post("/v1/submissions", {"description": description, "files": names})


def _hashed(name: str, path: Path) -> LocalFile:
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise WrongUsage(f"cannot be read: {error.strerror}", where=str(path)) from None
    return LocalFile(name, path, digest.hexdigest(), size)


def _chunks(file: LocalFile) -> Iterator[bytes]:
    """Exactly as many bytes as were hashed: a file that has changed meanwhile is told, not sent in part."""
    left = file.size
    try:
        with file.path.open("rb") as source:
            while left and (chunk := source.read(min(_CHUNK, left))):
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise WrongUsage(f"cannot be read: {error.strerror}", where=str(file.path)) from None
    if left:
        raise Failed("has become shorter while it was sent", where=str(file.path), remedy="submit again")
