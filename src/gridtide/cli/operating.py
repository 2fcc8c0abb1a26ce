"""Operators' commands: ``drain undrain scale reload``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from gridtide.cli import tables, views
from gridtide.cli.asking import ask, progress
from gridtide.cli.client import MOST_WORKERS, Client, patiently, segment
from gridtide.cli.command import Session, command
from gridtide.cli.human import number, printable
from gridtide.cli.problems import TimedOut, WrongUsage
from gridtide.errors import NotFound
from gridtide.store.ports import Json

_POLL: Final = 0.5
"""Seconds between two looks at workers that drain."""

_PATIENCE: Final = 60.0
"""Seconds for which waiting bears a service that does not answer: it may be restarting."""

Workers = Annotated[list[str], typer.Argument(metavar="WORKER...", help="Names of workers.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (("drain", drain), ("undrain", undrain), ("scale", scale), ("reload", reload)):
        command(app, name, panel="Operate")(function)


def drain(
    session: Session,
    workers: Workers,
    force: Annotated[
        bool, typer.Option("--force", help="End them at once: jobs that run there are lost. Asks first.")
    ] = False,
    yes: Yes = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when all of them are gone.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Seconds for --wait.", show_default=False)] = None,
) -> None:
    """Give these workers no more jobs, and return each when it is empty. Load does not take this back."""
    if force and not yes:
        ask(f"End {number(len(workers), 'worker')} at once? Jobs that run there are lost.")
    with session.client() as client:
        answer = client.post("/v1/workers/drain", {"workers": workers, "force": force})
        if wait:
            _await_gone(session, client, frozenset(workers), timeout)
    session.output.document(answer if answer is not None else {"workers": workers})
    session.output.show(f"{number(len(workers), 'worker')} {'gone' if wait else 'ordered to drain'}")


def undrain(session: Session, workers: Workers) -> None:
    """Take an order to drain back: these workers are given jobs again."""
    with session.client() as client:
        answer = client.post("/v1/workers/undrain", {"workers": workers})
    session.output.document(answer if answer is not None else {"workers": workers})
    session.output.show(f"The order to drain {number(len(workers), 'worker')} is taken back")


def scale(
    session: Session,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="A group of the site file.")],
    minimum: Annotated[
        str | None, typer.Option(metavar="N|file", help="Never fewer workers; `file`: as the site file says.")
    ] = None,
    maximum: Annotated[
        str | None, typer.Option(metavar="N|file", help="Never more workers; `file`: as the site file says.")
    ] = None,
    desired: Annotated[
        str | None, typer.Option(metavar="N|auto", help="So many, whatever waits; `auto`: as many as the work needs.")
    ] = None,
    hold: Annotated[
        bool | None, typer.Option("--hold/--release", help="Start and drain nothing; or do so again.")
    ] = None,
) -> None:
    """Change a group's limits while it runs; without options show them. Kept until taken back."""
    body: dict[str, Json] = {}
    if minimum is not None:
        body["minimum"] = _count(minimum, "--minimum", "file")
    if maximum is not None:
        body["maximum"] = _count(maximum, "--maximum", "file")
    if desired is not None:
        body["desired"] = _count(desired, "--desired", "auto")
    if hold is not None:
        body["hold"] = hold
    with session.client() as client:
        if body:
            client.post(f"/v1/groups/{segment(group)}/scale", body)
        rows = [row for row in views.groups(client.get("/v1/groups")) if row.name == group]
    if not rows:
        raise NotFound(f"there is no group {group!r}", remedy="`gridtide status` lists them")
    session.output.document(rows[0].model_dump(mode="json"))
    session.output.show(tables.groups(rows))


def reload(session: Session) -> None:
    """Let the site read its file again at once. A file that is wrong changes nothing."""
    with session.client() as client:
        answer = client.post("/v1/site/reload")
    session.output.document(answer)
    changed = answer.get("changed") if isinstance(answer, dict) else None
    session.output.show(printable(str(changed or "Nothing has changed")))


def _count(text: str, option: str, word: str) -> int | None:
    """A number, or the word that means "as it was": None."""
    if text == word:
        return None
    if text.isdecimal() and text.isascii():
        return int(text)
    raise WrongUsage(f"{option} takes a number from 0 or {word!r}, not {text!r}")


def _await_gone(session: Session, client: Client, wanted: frozenset[str], timeout: float | None) -> None:
    until = None if timeout is None else session.now() + timeout
    told = -1
    query = {"limit": MOST_WORKERS}
    with progress(session, "Draining") as say:
        while True:
            answer = patiently(lambda: client.get("/v1/workers", query), patience=_PATIENCE, sleep=session.sleep)
            left = [row for row in views.workers(answer) if row.id in wanted]
            if not left:
                return
            if len(left) != told:
                told = len(left)
                say(f"{number(told, 'worker')} left")
            if until is not None and session.now() >= until:
                raise TimedOut(f"{number(told, 'worker')} left; they go on draining")
            session.sleep(_POLL)
