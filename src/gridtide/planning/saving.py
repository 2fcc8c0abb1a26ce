"""Workers drained so that a cloud's budget holds: as few as will do, and those first that cost no job its place."""

from __future__ import annotations

from collections.abc import Mapping

from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import WorkerState
from gridtide.planning.budgets import Account
from gridtide.planning.evidence import Evidence
from gridtide.planning.fleet import STARTING, Fleet, withdraw
from gridtide.planning.lifecycle import Course
from gridtide.planning.limits import Limits
from gridtide.planning.victims import drain, idle_reading


def keep_within(fleets: Mapping[GroupName, Fleet], evidence: Evidence, limits: Limits) -> list[float]:
    """Drain what the budgets cannot bear any longer. Returns when to look again.

    A hold, a minimum and a pinned number do not stand against this: the budget is the harder limit. Nor is a fresh
    reading asked for, since a drain ends no job.
    """
    for account in limits.budgets.values():
        if account.short():
            _drain(account, fleets, evidence)
        for worker in account.late:
            _tell_late(worker, account, fleets, evidence)
    return [account.next_look() for account in limits.budgets.values()]


def _drain(account: Account, fleets: Mapping[GroupName, Fleet], evidence: Evidence) -> None:
    reason = Reason(Cause.BUDGET, f"{account.words()}: it takes no more jobs, so that this holds")
    found = [
        (_order(course, evidence), course, fleet)
        for fleet in fleets.values()
        for course in fleet.courses
        if course.worker.cloud == account.cloud and _may_go(course, evidence)
    ]
    for (rank, *_), course, fleet in sorted(found, key=lambda entry: entry[0]):
        if not account.short():
            break
        if course.state is WorkerState.JOINED:
            drain(course, fleet, reason)
        else:
            withdraw(course, fleet, reason)
        account.drained(course.worker, empty=rank < _BUSY)


_IDLE, _STARTING, _BUSY = range(3)


def _may_go(course: Course, evidence: Evidence) -> bool:
    worker = course.worker
    withdrawn = course.state in STARTING and course.state is not WorkerState.LAUNCHING
    stays = course.state is worker.state and (withdrawn or course.state is WorkerState.JOINED)
    return stays and worker.shape.price > 0.0 and evidence.warming(worker.group, worker.cloud) is None


def _order(course: Course, evidence: Evidence) -> tuple[int, float, int, float, WorkerId]:
    """Idle ones, those that have not joined, busy ones; of each the dearest, with the fewest jobs, the newest."""
    worker = course.worker
    rank = _STARTING if course.state in STARTING else _BUSY if idle_reading(course, evidence) is None else _IDLE
    running = course.seen.running if course.seen is not None else 0
    return (rank, -worker.shape.price, running, -worker.created, worker.id)


def _tell_late(worker: WorkerId, account: Account, fleets: Mapping[GroupName, Fleet], evidence: Evidence) -> None:
    fleet = fleets.get(evidence.snapshot.workers[worker].group)
    for course in fleet.lively if fleet is not None else ():
        if course.worker.id == worker and course.state is WorkerState.DRAINING:
            course.stay(account.why_late(worker))
