"""Commands that look and change nothing: ``status workers plan explain eta events``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gridtide.cli import tables, views
from gridtide.cli.client import MOST_WORKERS, Client, patiently, resumed, segment
from gridtide.cli.command import Session, command
from gridtide.cli.human import clock_time, duration, number, printable
from gridtide.cli.problems import Busy, NoService, ServiceFault
from gridtide.model.workers import WorkerState
from gridtide.store.ports import Json

if TYPE_CHECKING:
    from rich.console import RenderableType

_PATIENCE: Final = 60.0
"""Seconds for which a live view bears a service that does not answer: it may be restarting."""

Interval = Annotated[float, typer.Option("--interval", "-n", min=0.1, help="Seconds between two looks of --watch.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Keep looking until Ctrl-C.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for name, function in (
        ("status", status),
        ("workers", workers),
        ("plan", plan),
        ("explain", explain),
        ("eta", eta),
    ):
        command(app, name, panel="Look")(function)
    command(app, "events", panel="Look")(events)


def status(session: Session, watch: Watch = False, interval: Interval = 1.0) -> None:
    """Show the groups (work, workers, limits, and why they are as they are) and the sources of readings."""
    with session.client() as client:

        def look() -> Json:
            return client.get("/v1/status")

        def draw(answer: Json) -> RenderableType:
            return tables.status(views.status(answer), session.now())

        _show(session, look, draw, watch=watch, interval=interval)


def workers(
    session: Session,
    past: Annotated[bool, typer.Option("--past", help="Those that are gone, latest first.")] = False,
    group: Annotated[str | None, typer.Option("--group", "-g", help="Of this group only.")] = None,
    state: Annotated[WorkerState | None, typer.Option("--state", "-s", help="In this state only.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MOST_WORKERS, help="At most so many.")] = 200,
    watch: Watch = False,
    interval: Interval = 1.0,
) -> None:
    """List workers with their state and why they are as they are."""
    query = {"group": group, "state": state, "past": "true" if past else None, "limit": limit}
    with session.client() as client:

        def look() -> Json:
            return client.get("/v1/workers", query)

        def draw(answer: Json) -> RenderableType:
            rows = views.workers(answer)
            return tables.workers(rows, session.now()) if rows else "No workers"

        _show(session, look, draw, watch=watch, interval=interval)


def plan(session: Session) -> None:
    """Show what the next cycle would do and why. Nothing is changed."""
    with session.client() as client:
        answer = client.get("/v1/plan")
    session.output.document(answer)
    session.output.show(tables.plan(views.plan(answer)))


def explain(
    session: Session, subject: Annotated[str, typer.Argument(help="A worker, a job or a group.", metavar="SUBJECT")]
) -> None:
    """Say why a worker, a job or a group is as it is, and how it came to be so."""
    with session.client() as client:
        answer = client.get(f"/v1/explain/{segment(subject)}")
    session.output.document(answer)
    session.output.show(tables.explanation(views.explanation(answer), session.now()))


def eta(
    session: Session, group: Annotated[str, typer.Argument(metavar="GROUP", help="The group that would run it.")]
) -> None:
    """Show how long a job submitted now would wait for a machine, and from which boots that is known."""
    with session.client() as client:
        answer = client.get(f"/v1/groups/{segment(group)}/eta")
    session.output.document(answer)
    session.output.show("\n".join(printable(line) for line in _eta_lines(views.eta(answer), session.now())))


def _eta_lines(view: views.EtaView, now: float) -> list[str]:
    lines = [_eta_in_short(view)]
    if view.waiting:
        lines.append(f"{number(view.waiting, 'job')} that it can run wait already and come first")
    if not view.free and view.policy_waits:
        lines.append(f"{duration(view.policy_waits)} of it are the patience of the group's policy")
    if view.shape is not None:
        image = f", image {view.image}" if view.image is not None else ""
        lines.append(f"next machine: {view.shape} on {view.cloud}{image}")
    if view.boot is not None:
        figures = f"{duration(view.boot.median)} in the middle, {duration(view.boot.p95)} in 19 of 20 cases"
        since = clock_time(view.boot.since, now)
        lines.append(f"boots: {figures}; from {number(view.boot.count, 'boot')} {_alike(view)} since {since}")
    return lines


def _eta_in_short(view: views.EtaView) -> str:
    if view.free:
        return "at once: a worker is free"
    if view.obstacle is not None:
        return f"not known: no machine would be launched now ({view.obstacle.text})"
    if view.seconds is None:
        return "not known yet: no such machine has joined before"
    return f"about {duration(view.seconds.median)}, in 19 of 20 cases at most {duration(view.seconds.p95)}"


def _alike(view: views.EtaView) -> str:
    """What the known boots have in common with the next one."""
    if view.boot is not None and view.boot.shape is not None:
        return "of this kind"
    if view.boot is not None and view.boot.image is not None:
        return "of this image, any shape,"
    return f"of whatever kind on {view.cloud}"


def events(
    session: Session,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens until Ctrl-C.")] = False,
    subject: Annotated[str | None, typer.Option("--subject", "-s", help="Of this worker, group ... only.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", "-k", help="Of this kind only.")] = None,
    after: Annotated[int | None, typer.Option("--after", min=0, help="Those after this number.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many of the past.")] = 50,
) -> None:
    """Show the log of what was decided and done, with reasons. Newest last."""
    query = {"subject": subject, "kind": kind, "after": after, "limit": limit}
    with session.client() as client:
        answer = client.get("/v1/events", query)
        past = views.events(answer)
        if not follow:
            session.output.document(answer)
        for row in past:
            if follow:
                session.output.line(row.model_dump(mode="json"))
            session.output.show(tables.event(row, session.now()))
        if follow:
            latest = past[-1].number if past else after or 0
            _follow_events(session, client, {"subject": subject, "kind": kind, "after": latest, "follow": "true"})


def _follow_events(session: Session, client: Client, query: Mapping[str, str | int | None]) -> None:
    after = query["after"]

    def rest() -> Iterator[views.EventView]:
        nonlocal after
        for line in client.lines("/v1/events", {**query, "after": after}):
            if line.strip():  # an empty one only keeps the connection awake
                row = views.event(_parsed(line))
                after = row.number
                yield row
        # It has no end of its own: the service is going down.
        raise NoService("the event stream ended", where=client.url)

    for row in resumed(rest, patience=_PATIENCE, sleep=session.sleep):
        session.output.line(row.model_dump(mode="json"))
        session.output.show(tables.event(row, session.now()))


def _parsed(line: str) -> Json:
    try:
        value: Json = json.loads(line)
    except ValueError:
        raise ServiceFault("a line of the event stream is no JSON") from None
    return value


def _show(
    session: Session,
    look: Callable[[], Json],
    draw: Callable[[Json], RenderableType],
    *,
    watch: bool,
    interval: float,
) -> None:
    """Once, or again and again: a live picture on a terminal, otherwise one after the other."""
    if not watch:
        answer = look()
        session.output.document(answer)
        session.output.show(draw(answer))
    elif session.output.live:
        _live(session, look, draw, interval)
    else:
        while True:
            answer = patiently(look, patience=_PATIENCE, sleep=session.sleep)
            session.output.line(answer)
            session.output.show(draw(answer), "")
            sys.stdout.flush()
            session.sleep(interval)


def _live(session: Session, look: Callable[[], Json], draw: Callable[[Json], RenderableType], interval: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    picture = draw(look())
    with Live(picture, console=session.output.console, auto_refresh=False, screen=True) as live:
        while True:
            session.sleep(interval)
            try:
                picture = draw(look())
                live.update(picture, refresh=True)
            except (NoService, Busy) as error:
                # What was last known stays, under a line that says that it is old.
                live.update(Group(Text(str(error), style="bold red"), picture), refresh=True)
