"""How answers look to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gridtide.cli import views
from gridtide.cli.human import ago, clock_time, duration, number, printable, size
from gridtide.cli.output import table
from gridtide.model.workers import WorkerState
from gridtide.pilot.protocol import JobState

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_STATE_STYLES: Final = {
    WorkerState.JOINED.value: "green",
    WorkerState.DRAINING.value: "yellow",
    WorkerState.FAILED.value: "red",
    WorkerState.GONE.value: "dim",
    JobState.RUNNING.value: "green",
    JobState.FAILED.value: "red",
    JobState.CANCELLED.value: "yellow",
    "fresh": "green",
    "stale": "red",
    "missing": "red",
    "unconfirmed": "yellow",
}


def status(view: views.StatusView, now: float) -> RenderableType:
    """Groups, then jobs that no machine will run, what clouds have charged, and sources."""
    from rich.console import Group
    from rich.text import Text

    counted = {} if view.jobs is None else view.jobs
    jobs = ", ".join(f"{count} {state}" for state, count in counted.items() if count) or "none"
    head = Text.assemble((printable(view.site), "bold"), f"  {clock_time(now, now)}  jobs: {printable(jobs)}\n")
    parts = [head, groups(view.groups), Text(), *([stuck(view.stuck), Text()] if view.stuck else [])]
    parts += [spending(view.spending), Text()] if view.spending else []
    return Group(*parts, sources(view.sources))


def stuck(rows: Sequence[views.StuckView]) -> RenderableType:
    """One line for each kind of jobs."""
    return table(
        ("queue", "jobs", "stuck", "why"),
        ((row.queue, str(row.count), row.label, row.reason.text) for row in rows),
        right=("jobs",),
    )


def spending(rows: Sequence[views.SpendingView]) -> RenderableType:
    """One line for each cloud that costs anything."""
    return table(
        ("cloud", "spent today", "kept back", "budget", "why"),
        (
            (
                row.cloud,
                f"{row.spent:.2f}",
                "-" if row.kept is None else f"{row.kept:.2f}",
                "-" if row.per_day is None else f"{row.per_day:.2f}",
                f"{number(row.late, 'worker')} with jobs longer than longest_job" if row.late else "",
            )
            for row in rows
        ),
        right=("spent today", "kept back", "budget"),
    )


def groups(rows: Sequence[views.GroupView]) -> RenderableType:
    """One line a group. What no group's answer says has no column."""
    shown: dict[str, list[str]] = {"group": [row.name for row in rows]}
    if any(row.waiting is not None for row in rows):
        shown["waiting"] = [_figure(row.waiting) for row in rows]
    if any(row.running is not None for row in rows):
        shown["running"] = [_figure(row.running) for row in rows]
    shown |= {
        "workers": [_by_state(row.workers) for row in rows],
        "min": [str(row.minimum) for row in rows],
        "max": [str(row.maximum) for row in rows],
        "desired": [_desired(row) for row in rows],
        "why": [row.reason.text if row.reason else "" for row in rows],
    }
    figures = ("waiting", "running", "min", "max", "desired")
    return table(tuple(shown), zip(*shown.values(), strict=True), right=figures)


def sources(rows: Sequence[views.SourceView]) -> RenderableType:
    """One line for each source of readings."""
    return table(
        ("source", "reading", "age", "why"),
        (
            (row.source, state(row.quality), "-" if row.age is None else duration(row.age), row.error or "")
            for row in rows
        ),
    )


def workers(rows: Sequence[views.WorkerView], now: float) -> RenderableType:
    """One line a worker."""
    return table(
        ("worker", "group", "cloud", "shape", "state", "since", "why"),
        (
            (
                row.id,
                row.group,
                row.cloud + (f"/{row.zone}" if row.zone else ""),
                row.shape.name,
                state(row.state.value),
                ago(row.since, now),
                _worker_why(row),
            )
            for row in rows
        ),
    )


def jobs(rows: Sequence[views.JobView], now: float) -> RenderableType:
    """One line a job."""
    return table(
        ("job", "user", "name", "state", "submitted", "ran", "worker", "exit", "why"),
        (
            (
                row.id,
                row.user,
                row.name,
                state(row.state.value),
                ago(row.submitted, now),
                _ran(row, now),
                row.worker or "-",
                _figure(row.exit_code),
                row.reason,
            )
            for row in rows
        ),
        right=("exit",),
    )


def plan(view: views.PlanView) -> RenderableType:
    """Each action with its reason; then why the groups do no more and why work waits."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text("Nothing would be done.")]
    if view.actions:
        rows = ((row.action, _action(row), row.reason.cause, row.reason.text) for row in view.actions)
        parts = [table(("action", "what", "cause", "why"), rows)]
    groups = [(name, why.cause, why.text) for name, why in view.groups.items() if why is not None]
    if groups:
        parts += [Text(), table(("group", "cause", "why"), groups)]
    waiting = [(row.queue, row.label, row.reason.text) for row in view.demand if row.reason is not None]
    if waiting:
        parts += [Text(), table(("queue", "waiting work", "why"), waiting)]
    return Group(*parts)


def explanation(view: views.ExplanationView, now: float) -> RenderableType:
    """What it is, why, and how it came to be so."""
    from rich.text import Text

    lines = [f"{view.subject}: {view.now}", f"because {view.because}", ""]
    lines += [f"{clock_time(step.at, now)}  {step.text}" for step in view.history]
    return Text("\n".join(printable(line) for line in lines).rstrip())


def event(row: views.EventView, now: float) -> Text:
    """One line."""
    from rich.text import Text

    why = f" ({row.reason.text})" if row.reason and row.reason.text != row.text else ""
    return Text.assemble(
        (clock_time(row.at, now), "dim"),
        "  ",
        (printable(row.kind), "bold"),
        f" {printable(row.subject)}: {printable(row.text + why)}",
        (f"  [{printable(row.actor)}]", "dim"),
    )


def outputs(rows: Sequence[tuple[str, views.OutputView]]) -> RenderableType:
    """One line a file, with the job that left it."""
    return table(("job", "file", "size"), ((job, row.name, size(row.size)) for job, row in rows), right=("size",))


def tokens(rows: Sequence[views.TokenView], now: float) -> RenderableType:
    """One line a token."""
    return table(
        ("token", "user", "role", "created", "expires", "state"),
        (
            (
                row.id,
                row.user,
                row.role,
                ago(row.created, now),
                "never" if row.expires is None else ago(row.expires, now),
                "revoked" if row.revoked else "valid" if row.expires is None or row.expires > now else "expired",
            )
            for row in rows
        ),
    )


def counts(view: views.SubmissionView) -> str:
    """``3 of 10 jobs ended: 2 done, 1 failed, 4 running, 3 waiting``."""
    shown = ", ".join(f"{view.jobs[kind]} {kind}" for kind in JobState if view.jobs.get(kind))
    return f"{view.ended} of {number(view.total, 'job')} ended: {shown}"


def state(name: str) -> Text:
    """A state in its colour."""
    from rich.text import Text

    return Text(printable(name), style=_STATE_STYLES.get(name, ""))


def _action(row: views.ActionView) -> str:
    """What the action is about, in a few words."""
    if row.count is not None:
        shape = f" of shape {row.shape.name}" if row.shape else ""
        zone = f", zone {row.zone}" if row.zone else ""
        return f"{number(row.count, 'worker')}{shape} for {row.group} in {row.cloud}{zone}"
    words = row.worker or ""
    if row.before and row.after:
        words += f": {row.before} -> {row.after}"
    return words + (f" (machine {row.machine})" if row.machine else "")


def _worker_why(row: views.WorkerView) -> str:
    why = row.why or row.reason
    return why.text if why else ""


def _by_state(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counted.items() if count) or "none"


def _desired(row: views.GroupView) -> str:
    words = ["auto" if row.desired is None else str(row.desired)]
    words += ["held"] if row.hold else []
    words += ["closing"] if row.closing else []
    return " ".join(words)


def _ran(row: views.JobView, now: float) -> str:
    if row.started is None:
        return "-"
    return duration(max(0.0, (now if row.ended is None else row.ended) - row.started))


def _figure(count: int | None) -> str:
    return "-" if count is None else str(count)
