"""Why a worker or a group is as it is: the plan's reason, the evidence against it, and the history."""

from __future__ import annotations

from gridtide.control.api import Cycle, Explanation
from gridtide.errors import NotFound
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.readings import last_known
from gridtide.model.reasons import Cause
from gridtide.model.rules import GroupRules, SiteRules, Wishes
from gridtide.model.workers import Worker
from gridtide.planning.evidence import count as counted
from gridtide.store.ports import FleetStore, RecordedEvent

_HISTORY = 50
# Kinds of jobs told of a group: a queue may have hundreds, and nobody reads them all.
_KINDS = 20
_STUCK = frozenset({Cause.NO_SHAPE_FITS, Cause.NOT_TAKEN})


async def explain(
    subject: str, *, rules: SiteRules, cycle: Cycle | None, store: FleetStore, wishes: Wishes, now: float
) -> Explanation:
    """Of a group or a worker of any state. NotFound when it is neither."""
    group = rules.groups.get(GroupName(subject))
    history = [_line(recorded) for recorded in await store.events(subject=subject, limit=_HISTORY, newest=True)]
    if group is not None:
        because = "no cycle has ended yet" if cycle is None else str(cycle.plan.why_group.get(group.name, "no reason"))
        waiting = [] if cycle is None else _why_jobs_wait(cycle, group)
        count = 0 if cycle is None else sum(w.group == group.name for w in cycle.snapshot.workers.values())
        return Explanation(
            subject, _group_now(count, group.minimum, group.maximum, wishes), "; ".join([because, *waiting]), history
        )
    worker = await store.worker(WorkerId(subject))
    if worker is None:
        raise NotFound(
            f"no worker or group is called {subject}", remedy="`gridtide workers` and `gridtide status` list them"
        )
    planned = None if cycle is None else cycle.plan.why_worker.get(worker.id)
    return Explanation(subject, _worker_now(worker, now), str(planned or worker.reason), history)


def _why_jobs_wait(cycle: Cycle, group: GroupRules) -> list[str]:
    """One entry for each kind of jobs that the group could run, or that no group can; stuck ones first."""
    view = cycle.snapshot.queues.get(group.queue)
    known = last_known(view.demand) if view is not None else None
    labels = {
        row.label
        for row in (known.value if known is not None else ())
        if not row.runs_on or any(name == group.name for name, _ in row.runs_on)
    }
    told = [
        (label, reason)
        for (queue, label), reason in cycle.plan.why_demand.items()
        if queue == group.queue and label in labels
    ]
    told.sort(key=lambda entry: (entry[1].cause not in _STUCK, entry[1].cause is Cause.SATISFIED))
    shown = [f"{label}: {reason}" for label, reason in told[:_KINDS]]
    return [*shown, f"and {len(told) - _KINDS} more kinds of jobs"] if len(told) > _KINDS else shown


def _group_now(workers: int, minimum: int, maximum: int, wishes: Wishes) -> str:
    low = minimum if wishes.minimum is None else wishes.minimum
    high = maximum if wishes.maximum is None else wishes.maximum
    told = f"{counted(workers, 'worker')}, minimum {low}, maximum {high}"
    if wishes.desired is not None:
        told += f", pinned at {wishes.desired} by an operator"
    if wishes.hold:
        told += ", held by an operator"
    if wishes.closing:
        told += ", closing"
    return told


def _worker_now(worker: Worker, now: float) -> str:
    machine = f", machine {worker.machine}" if worker.machine is not None else ""
    place = f"{worker.shape.name} on {worker.cloud}{machine}"
    return f"{worker.state} for {now - worker.since:.0f} s ({worker.reason}); {place}"


def _line(recorded: RecordedEvent) -> tuple[float, str]:
    event = recorded.event
    because = f" ({event.reason})" if event.reason is not None else ""
    return event.at, f"{event.text}{because} by {event.actor}"
