"""Users' commands: ``submit wait jobs cancel``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from gridtide.cli import pages, tables, uploading, views
from gridtide.cli.client import Client, patiently
from gridtide.cli.command import Session, command
from gridtide.cli.human import number, size
from gridtide.cli.problems import Failed, TimedOut, WrongUsage
from gridtide.pilot.protocol import JobState

_POLL: Final = 0.5
"""Seconds between two looks at a submission."""

_PATIENCE: Final = 300.0
"""Seconds for which waiting bears a service that does not answer: it may be restarting, and the jobs go on."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (("submit", submit), ("wait", wait), ("jobs", jobs), ("cancel", cancel)):
        command(app, name, panel="Work")(function)


Timeout = Annotated[float | None, typer.Option(min=0.0, help="Seconds to wait at most.", show_default=False)]


def submit(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE.jdl", help="The job description.")],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Return when all its jobs have ended.")] = False,
    timeout: Timeout = None,
) -> None:
    """Submit the jobs of a description. Files that it names are found beside it; only new ones are sent."""
    description, names = uploading.read_description(file)
    files = uploading.find_files(names, file.resolve().parent)
    with session.client() as client:
        with _bytes_bar(session) as advance:
            sent = uploading.upload_missing(client, files, advance)
        answer = uploading.submit(client, description, files)
        made = views.submission(answer)
        if sent:
            session.output.note(f"Sent {number(len(sent), 'file')}, {size(sum(file.size for file in sent))}")
        if wait:
            _wait(session, client, made.number, timeout)
            return
    session.output.document(answer)
    session.output.show(f"Submission {made.number}: {number(made.total, 'job')}")


def wait(
    session: Session,
    submission: Annotated[int, typer.Argument(metavar="SUBMISSION", min=1, help="Its number, from `submit`.")],
    timeout: Timeout = None,
) -> None:
    """Wait until all jobs of a submission have ended. Exit code 1 when one of them did not end well."""
    with session.client() as client:
        _wait(session, client, submission, timeout)


def jobs(
    session: Session,
    submission: Annotated[
        int | None, typer.Argument(metavar="[SUBMISSION]", min=1, help="Of this submission only.", show_default=False)
    ] = None,
    state: Annotated[JobState | None, typer.Option("--state", "-s", help="In this state only.")] = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Of this user only.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 100,
    after: Annotated[str | None, typer.Option("--after", metavar="JOB", help="Those after this one.")] = None,
) -> None:
    """List jobs in the order of their submission, with why they are as they are."""
    query = {"submission": submission, "state": state, "user": user, "after": after}
    with session.client() as client:
        documents = pages.jobs(client, query, limit=limit)
    shown = views.jobs({"jobs": documents})
    session.output.document({"jobs": documents})
    session.output.show(tables.jobs(shown, session.now()) if shown else "No jobs")
    if len(shown) == limit:
        session.output.note(f"There may be more: --after {shown[-1].id}, or a larger --limit")


def cancel(
    session: Session,
    jobs: Annotated[
        list[str] | None, typer.Argument(metavar="JOB...", help="Jobs, such as 12.3.", show_default=False)
    ] = None,
    submission: Annotated[int | None, typer.Option("--submission", min=1, help="All jobs of a submission.")] = None,
) -> None:
    """Cancel waiting and running jobs. Jobs that have ended stay as they are."""
    if bool(jobs) == (submission is not None):
        raise WrongUsage("name either jobs, or a submission with --submission")
    wanted = [name for name in jobs or () if "." in name]
    if len(wanted) != len(jobs or ()):
        other = next(name for name in jobs or () if "." not in name)
        raise WrongUsage(f"{other!r} is no job (a job is called like 12.3)", remedy=f"perhaps --submission {other}")
    with session.client() as client:
        answer = client.post("/v1/jobs/cancel", {"jobs": wanted, "submission": submission})
    session.output.document(answer)
    cancelled = answer.get("cancelled") if isinstance(answer, dict) else None
    session.output.show(f"Cancelled {number(cancelled, 'job')}" if isinstance(cancelled, int) else "Done")


def _wait(session: Session, client: Client, submission: int, timeout: float | None) -> None:
    until = None if timeout is None else session.now() + timeout
    with _jobs_bar(session) as show:
        while True:
            answer = patiently(
                lambda: client.get(f"/v1/submissions/{submission}"), patience=_PATIENCE, sleep=session.sleep
            )
            view = views.submission(answer)
            show(view)
            if view.ended == view.total:
                break
            if until is not None and session.now() >= until:
                raise TimedOut(f"submission {submission}: {tables.counts(view)}", remedy="its jobs go on")
            session.sleep(_POLL)
    session.output.document(answer)
    session.output.show(f"Submission {submission}: {tables.counts(view)}")
    if view.failed:
        remedy = f"`gridtide jobs {submission} --state failed` says why"
        raise Failed(f"{number(view.failed, 'job')} of submission {submission} did not end well", remedy=remedy)


@contextmanager
def _jobs_bar(session: Session) -> Iterator[Callable[[views.SubmissionView], None]]:
    """A bar on a terminal; elsewhere a line whenever something has changed."""
    if session.output.as_json or not sys.stderr.isatty():
        told = ""

        def tell(view: views.SubmissionView) -> None:
            nonlocal told
            if (line := tables.counts(view)) != told:
                session.output.note(line)
                told = line

        yield tell
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=session.output.error_console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda view: bar.update(task, total=view.total, completed=view.ended, description=tables.counts(view))


@contextmanager
def _bytes_bar(session: Session) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere nothing, as the summary says it."""
    if session.output.as_json or not sys.stderr.isatty():
        yield lambda sent, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=session.output.error_console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)
