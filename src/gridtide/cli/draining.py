"""``drain``: workers finish what they run and are returned; the command can wait and report.

With ``--wait`` it does what the drain tool of the private cloud did (seeds-digest, section 5): nodes go offline, finish
their jobs, are shut down, and one that fails so many times in a row is given up.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import typer

from gridtide.cli import views
from gridtide.cli.asking import ask, progress
from gridtide.cli.client import MOST_WORKERS, Client, patiently
from gridtide.cli.command import Session, command
from gridtide.cli.human import number
from gridtide.cli.output import table
from gridtide.cli.problems import Failed, TimedOut, WrongUsage
from gridtide.model.reasons import Cause
from gridtide.store.ports import Json

_POLL: Final = 0.5
"""Seconds between two looks at workers that drain."""

_PATIENCE: Final = 60.0
"""Seconds for which waiting bears a service that does not answer: it may be restarting."""

_LOST: Final = frozenset({Cause.SILENT, Cause.NOT_IN_QUEUE, Cause.NOT_IN_CLOUD})
"""Reasons of a worker that nothing can be learned of: each look that finds one counts as a failure."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    command(app, "drain", panel="Operate")(drain)


def drain(
    session: Session,
    workers: Annotated[
        list[str] | None, typer.Argument(metavar="[WORKER...]", help="Names of workers; `-`: a list on standard input.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--names", metavar="A,B", help="Names of workers, with commas between them.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="End them at once: jobs that run there are lost. Asks first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when all of them are gone.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Seconds for --wait.", show_default=False)] = None,
    failures: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --wait: give up a worker that N looks in a row find lost."),
    ] = None,
) -> None:
    """Give these workers no more jobs, and return each when it is empty. Load does not take this back."""
    chosen = _chosen(workers or [], names)
    if force and not yes:
        ask(f"End {number(len(chosen), 'worker')} at once? Jobs that run there are lost.")
    with session.client() as client:
        answer = client.post("/v1/workers/drain", {"workers": chosen, "force": force})
        if not wait:
            session.output.document(answer if answer is not None else {"workers": list(chosen)})
            session.output.show(f"{number(len(chosen), 'worker')} ordered to drain")
            return
        report = _await_gone(session, client, chosen, timeout, failures)
    _tell(session, report)


def _chosen(workers: Sequence[str], names: str | None) -> list[str]:
    listed = [name for word in workers for name in (sys.stdin.read().split() if word == "-" else [word])]
    listed += [name.strip() for name in (names or "").split(",") if name.strip()]
    if not listed:
        raise WrongUsage("no worker is named", remedy="`gridtide workers` lists them")
    return list(dict.fromkeys(listed))


@dataclass(slots=True)
class _Report:
    """What became of each."""

    gone: list[str] = field(default_factory=list)
    given_up: dict[str, str] = field(default_factory=dict)
    """And why."""
    left: list[str] = field(default_factory=list)


def _await_gone(
    session: Session, client: Client, chosen: Sequence[str], timeout: float | None, failures: int | None
) -> _Report:
    until = None if timeout is None else session.now() + timeout
    report = _Report(left=list(chosen))
    lost: dict[str, int] = {}
    told = -1
    try:
        with progress(session, "Draining") as say:
            while True:
                present = _present(session, client)
                report.gone += [name for name in report.left if name not in present]
                report.left = [name for name in report.left if name in present]
                if failures is not None:
                    _give_up(report, present, lost, failures)
                if not report.left:
                    return report
                if len(report.left) != told:
                    told = len(report.left)
                    say(f"{number(told, 'worker')} left")
                if until is not None and session.now() >= until:
                    raise TimedOut(f"{number(told, 'worker')} left; they go on draining")
                session.sleep(_POLL)
    except KeyboardInterrupt:
        session.output.note(f"{number(len(report.left), 'worker')} left: they go on draining")
        raise


def _present(session: Session, client: Client) -> Mapping[str, views.WorkerView]:
    query = {"limit": MOST_WORKERS}
    answer = patiently(lambda: client.get("/v1/workers", query), patience=_PATIENCE, sleep=session.sleep)
    return {row.id: row for row in views.workers(answer)}


def _give_up(report: _Report, present: Mapping[str, views.WorkerView], lost: dict[str, int], failures: int) -> None:
    for name in list(report.left):
        why = present[name].why
        lost[name] = lost.get(name, 0) + 1 if why is not None and why.cause in _LOST else 0
        if why is not None and lost[name] >= failures:
            report.given_up[name] = why.text
            report.left.remove(name)


def _tell(session: Session, report: _Report) -> None:
    document: dict[str, Json] = {"gone": list(report.gone), "given_up": dict(report.given_up)}
    session.output.document(document)
    if report.given_up:
        rows = [(name, "gone", "") for name in report.gone]
        rows += [(name, "given up", why) for name, why in report.given_up.items()]
        session.output.show(table(("worker", "outcome", "why"), rows))
        raise Failed(f"{number(len(report.given_up), 'worker')} given up: drained, but not seen to end")
    session.output.show(f"{number(len(report.gone), 'worker')} gone")
