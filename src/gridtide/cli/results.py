"""What jobs leave behind: ``logs outputs``."""

from __future__ import annotations

import codecs
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Final
from urllib.parse import quote

import typer

from gridtide.cli import pages, tables, views
from gridtide.cli.asking import progress
from gridtide.cli.client import Client, resumed, segment
from gridtide.cli.command import Session, command
from gridtide.cli.human import number, size
from gridtide.cli.problems import Failed, ServiceFault, WrongUsage
from gridtide.pilot.protocol import JobState

_PATIENCE: Final = 60.0
"""Seconds for which following bears a service that does not answer: it may be restarting."""

_MANY: Final = 100
"""Files between two words on how far a long fetch is."""

Job = Annotated[str, typer.Argument(metavar="JOB", help="A job, such as 12.3.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (("logs", logs), ("outputs", outputs)):
        command(app, name, panel="Work")(function)


def logs(
    session: Session,
    job: Job,
    stderr: Annotated[bool, typer.Option("--stderr", help="What it wrote on standard error.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
) -> None:
    """Show what a job wrote, of its last attempt. The bytes are passed on as they are."""
    stream = "stderr" if stderr else "stdout"
    route = f"/v1/jobs/{segment(job)}/log"
    with session.client() as client:
        if follow:
            # A character may be split between two pieces.
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            for piece in _followed(session, client, route, stream):
                session.output.line({"job": job, "stream": stream, "text": decoder.decode(piece)})
                _pass_on(session, piece)
            return
        held = b""
        for piece in _whole(client, route, stream):
            _pass_on(session, piece)
            held += piece if session.output.as_json else b""
    session.output.document({"job": job, "stream": stream, "text": held.decode("utf-8", "replace")})


def outputs(
    session: Session,
    what: Annotated[
        str,
        typer.Argument(metavar="JOB|SUBMISSION", help="A job, such as 12.3, or all jobs of a submission, such as 12."),
    ],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Fetch them into DIR, of a submission into DIR/JOB each.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
) -> None:
    """List the results that jobs left, or fetch them; what is fetched is checked against its digest."""
    with session.client() as client:
        if "." in what:
            jobs = [what]
        else:
            found = pages.jobs(client, {"submission": what, "state": JobState.DONE})
            jobs = [row.id for row in views.jobs({"jobs": found})]
        answers = {job: client.get(_route(job)) for job in jobs}
        rows = [(job, row) for job, answer in answers.items() for row in views.outputs(answer)]
        if to is not None:
            _fetch_all(session, client, rows, lambda job: to if "." in what else to / job, force)
    session.output.document(answers[what] if "." in what else {"jobs": answers})
    if to is None:
        session.output.show(tables.outputs(rows) if rows else "No outputs")
    else:
        total = size(sum(row.size for _, row in rows))
        session.output.show(f"Fetched {number(len(rows), 'file')}, {total}, into {to}")


def _route(job: str) -> str:
    return f"/v1/jobs/{segment(job)}/outputs"


def _fetch_all(
    session: Session,
    client: Client,
    rows: Sequence[tuple[str, views.OutputView]],
    directory: Callable[[str], Path],
    force: bool,
) -> None:
    """All targets are looked at before the first byte is fetched."""
    targets = [(job, row, _target(directory(job), row.name, force)) for job, row in rows]
    with progress(session, "Fetching") as say:
        for count, (job, row, target) in enumerate(targets, 1):
            if len(targets) >= _MANY and count % _MANY == 0:
                say(f"{count} of {number(len(targets), 'file')}")
            _fetch(client, f"{_route(job)}/{quote(row.name, safe='/')}", row, target)


def _followed(session: Session, client: Client, route: str, stream: str) -> Iterator[bytes]:
    """The log as it grows, until the job has ended."""
    offset = 0

    def rest() -> Iterator[bytes]:
        nonlocal offset
        for piece in client.chunks(route, {"stream": stream, "offset": offset, "follow": "true"}):
            offset += len(piece)
            yield piece

    return resumed(rest, patience=_PATIENCE, sleep=session.sleep)


def _whole(client: Client, route: str, stream: str) -> Iterator[bytes]:
    """The log as it is now: the service gives a piece at a time."""
    offset = 0
    while piece := client.read(route, {"stream": stream, "offset": offset}):
        offset += len(piece)
        yield piece


def _pass_on(session: Session, content: bytes) -> None:
    if not session.output.as_json:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def _target(directory: Path, name: str, force: bool) -> Path:
    """Where to put an output. Its name came from a job: it must not lead out of the directory."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\0" in name:
        raise ServiceFault(f"an output with the unsafe name {name!r} is not fetched")
    target = directory.joinpath(*pure.parts)
    if not target.resolve().is_relative_to(directory.resolve()):
        raise WrongUsage("leads out of the directory", where=str(target), remedy="choose an empty directory")
    if target.exists() and not force:
        raise WrongUsage("is there already", where=str(target), remedy="--force replaces it")
    return target


def _fetch(client: Client, route: str, row: views.OutputView, target: Path) -> None:
    """Complete and right, or not there at all."""
    digest = hashlib.sha256()
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as sink:
            for piece in client.chunks(route):
                digest.update(piece)
                sink.write(piece)
        if digest.hexdigest() != row.digest:
            raise Failed("arrived damaged: its digest differs", where=row.name, remedy="fetch it again")
        os.replace(part, target)
    except OSError as error:
        raise WrongUsage(f"cannot be written: {error.strerror}", where=str(target)) from None
    finally:
        part.unlink(missing_ok=True)
