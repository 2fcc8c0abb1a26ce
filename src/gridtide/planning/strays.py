"""Machines that carry our tag and that no worker needs."""

from __future__ import annotations

from collections.abc import Mapping, Set

from gridtide.model.actions import TerminateStray
from gridtide.model.demand import NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.machines import Machine, MachineState
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import WorkerState
from gridtide.planning.evidence import Evidence, count
from gridtide.planning.lifecycle import Course
from gridtide.planning.sightings import Listed

_NOTHING_TO_END = frozenset({MachineState.ENDING, MachineState.GONE})
_RUNS_NOTHING = frozenset({MachineState.BROKEN, MachineState.STOPPED})
_WORKER_IS_OVER = frozenset({WorkerState.TERMINATING, WorkerState.GONE})


def strays(
    evidence: Evidence, courses: Mapping[WorkerId, Course], unknown: Set[WorkerId]
) -> tuple[list[TerminateStray], dict[WorkerId, Reason]]:
    """What to end, and why the others are left alone.

    A machine is made only after its worker is recorded, and the workers of the snapshot are newer than its readings:
    a tag that no worker carries is that of a worker which is gone, and whose join token is worthless. Should the
    store itself have been lost, the queues still list the workers: what a queue lists is left alone.

    ``courses`` are the workers that need not have one machine each, ``unknown`` the tags that no worker carries.
    """
    ended: list[TerminateStray] = []
    spared: dict[WorkerId, Reason] = {}
    for worker in sorted(unknown | (courses.keys() & evidence.machines.keys())):
        course = courses.get(worker)
        entries = evidence.machines[worker]
        if course is not None and len(entries) == 1 and entries[0].cloud == course.worker.cloud:
            continue
        for listed in sorted(entries, key=lambda entry: (entry.cloud, entry.machine.id)):
            reason = _of_nobody(evidence, worker, listed) if course is None else _double(evidence, course, listed)
            if reason is None:
                continue
            if isinstance(reason, str):
                spared[worker] = Reason(Cause.STRAY, f"machine {listed.machine.id}: {reason}")
            else:
                ended.append(TerminateStray(listed.cloud, listed.machine.id, worker, reason))
    return ended, spared


def _of_nobody(evidence: Evidence, worker: WorkerId, listed: Listed) -> Reason | str | None:
    """A reason to end it, words why it is spared, or nothing to say."""
    if listed.machine.state in _NOTHING_TO_END:
        return None
    started = evidence.machines_started(listed.cloud)
    if started is None or started <= evidence.snapshot.started:
        return "a fresh reading since this controller leads is awaited"
    for queue in sorted(evidence.snapshot.queues):
        if evidence.queue_nodes_started(queue) is None:
            return f"it belongs to no worker of the store, but queue {queue} may know it and cannot be asked"
    seen = evidence.seen.get(worker)
    if seen is not None and (seen.state is not NodeState.DRAINED or seen.running > 0):
        jobs = count(seen.running, "job")
        return f"it belongs to no worker of the store, but a queue lists it as {seen.state} with {jobs}"
    alive = evidence.heard_after(worker, started)
    if alive is not None:
        return f"it belongs to no worker of the store, but {alive}"
    return Reason(Cause.STRAY, f"cloud {listed.cloud} lists it with the tag of {worker}, which is gone")


def _double(evidence: Evidence, course: Course, listed: Listed) -> Reason | None:
    """A second machine of a worker.

    Its join token is good for one machine, but nobody can say for which: so a double is ended only when its worker
    is over, or when it can run nothing and the worker shows no sign of running a job either.
    """
    machine: Machine = listed.machine
    own = course.machine
    if machine.state in _NOTHING_TO_END or evidence.machines_started(listed.cloud) is None:
        return None
    if listed.cloud == course.worker.cloud and own is not None and machine.id == own.id:
        return None
    text = f"cloud {listed.cloud} lists a second machine of {course.worker.id}"
    if course.state in _WORKER_IS_OVER:
        return Reason(Cause.DOUBLE, f"{text}, which is over")
    if machine.state in _RUNS_NOTHING and evidence.works(course.worker.id) is None:
        return Reason(Cause.DOUBLE, f"{text}; it is {machine.state}")
    return None
