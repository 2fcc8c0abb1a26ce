"""Who is drained: never a busy worker for want of work, and always the one that is least missed first."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Final

from gridtide.model.demand import NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import WorkerState
from gridtide.planning.evidence import Evidence, count, seconds
from gridtide.planning.fleet import Fleet, withdraw
from gridtide.planning.lifecycle import Course
from gridtide.planning.policies import Early
from gridtide.planning.sightings import Seen

LET_GO_EVERY: Final = 60.0
"""Seconds after which it is looked again whether idle workers have become superfluous though nothing happened."""


def keepers_first(courses: Iterable[Course], fleet: Fleet) -> list[Course]:
    """The reverse of the order in which they would be drained."""
    return sorted(courses, key=lambda course: victim_order(course, fleet), reverse=True)


def victim_order(course: Course, fleet: Fleet) -> tuple[bool, int, float, float, float, WorkerId]:
    """Over-old ones first, then the cheapest to lose: no job, longest idle, dearest, newest; ties by id."""
    worker, seen = course.worker, course.seen
    running = seen.running if seen is not None else 0
    idle_since = idle_start(course, seen) if seen is not None and seen.idle_since is not None else float("inf")
    return (not fleet.over_old(course), running, idle_since, -worker.shape.price, -worker.created, worker.id)


def idle_start(course: Course, seen: Seen) -> float:
    """Since when it could have had a job and had none: an undrained worker begins anew."""
    return max(seen.idle_since or 0.0, course.worker.since)


def drain_surplus(fleet: Fleet, evidence: Evidence) -> None:
    """Come down to a lowered maximum or a pinned number, least loss first: intents, booting, idle, busy.

    Busy workers are drained only for what is not reached otherwise, and not for a number that its policy wants to reach
    with idle ones alone; their jobs run to their end.
    """
    if fleet.halted is not None:
        return
    staying = fleet.joined_count() + len(fleet.starting())
    excess = staying - fleet.maximum
    busy_ones = excess
    reason = Reason(Cause.SURPLUS, _with_why(f"has {staying} workers, at most {fleet.maximum} are wanted", fleet))
    replacing = surge_of(fleet)
    if fleet.pinned is not None and fleet.active() - fleet.pinned - replacing > excess:
        excess = fleet.active() - fleet.pinned - replacing
        busy_ones = busy_ones if fleet.aim.idle_only else excess
        cause = Cause.SURPLUS if fleet.aim.why is None else fleet.aim.why.cause
        reason = Reason(cause, _with_why(f"has {fleet.active()} workers, {fleet.pinned} are wanted", fleet))
    if excess <= 0:
        return
    unready = [course for course in fleet.starting() if course.state is not WorkerState.LAUNCHING]
    for course in sorted(unready, key=_least_started_first):
        if excess > 0 and evidence.warming(course.worker.group, course.worker.cloud) is None:
            withdraw(course, fleet, Reason(Cause.WITHDRAWN, reason.text))
            excess, busy_ones = excess - 1, busy_ones - 1
    joined = [course for course in fleet.usable() if drainable(course, evidence)]
    # Those that cannot be ended yet will be, and run nothing: no busy worker goes in their place.
    later = sum(course.state is WorkerState.LAUNCHING for course in fleet.starting())
    later += sum(course.seen is None for course in fleet.usable_lively())
    for course in sorted(joined, key=lambda course: _surplus_order(course, fleet, evidence)):
        busy = idle_reading(course, evidence) is None
        if (busy_ones - later if busy else excess) > 0:
            drain(course, fleet, reason)
            excess, busy_ones = excess - 1, busy_ones - 1


def _with_why(figures: str, fleet: Fleet) -> str:
    words = f"group {fleet.rules.name} {figures}"
    return words if fleet.aim.why is None else f"{words}: {fleet.aim.why.text}"


def surge_of(fleet: Fleet) -> int:
    """How many more workers than it is pinned at a group may have while it replaces older ones."""
    if not fleet.old_count():
        return 0
    return min(sum(not fleet.over_old(course) for course in fleet.courses), max(1, len(fleet.courses) // 10 + 1))


def _least_started_first(course: Course) -> tuple[bool, float, WorkerId]:
    return (course.state is not WorkerState.INTENDED, -course.worker.created, course.worker.id)


def _surplus_order(course: Course, fleet: Fleet, evidence: Evidence) -> tuple[object, ...]:
    return (idle_reading(course, evidence) is None, *victim_order(course, fleet))


def drain(course: Course, fleet: Fleet, reason: Reason) -> None:
    """Order it, and note why."""
    course.drain(reason)
    fleet.drained.append(reason)


def drainable(course: Course, evidence: Evidence) -> bool:
    """Whether it has joined before this cycle, and a fresh reading lists it as accepting jobs."""
    seen = course.seen
    return (
        course.worker.state is WorkerState.JOINED
        and seen is not None
        and seen.started is not None
        and seen.state is NodeState.ACCEPTING
        and evidence.warming(course.worker.group, course.worker.cloud) is None
    )


def idle_reading(course: Course, evidence: Evidence) -> Seen | None:
    """The reading that shows it idle, unless somebody says otherwise."""
    seen = course.seen
    if seen is None or seen.started is None or course.worker.state is not WorkerState.JOINED:
        return None  # one that is taken back in this very cycle has had no chance to be idle
    if seen.running > 0 or seen.state is not NodeState.ACCEPTING:
        return None
    if evidence.says_busy_after(course.worker.id, seen.started) is not None:
        return None
    return seen


@dataclass(slots=True)
class _Idle:
    course: Course
    since: float
    words: str


def drain_idle(
    fleet: Fleet,
    evidence: Evidence,
    needed: Set[WorkerId],
    unsure: Reason | None,
    ready: Set[WorkerId] = frozenset(),
) -> list[float]:
    """Drain what has been idle for long enough, and say of the others why they stay. Returns when the next is ripe.

    ``needed`` are idle workers that have room for jobs that wait, ``ready`` those that have it for jobs to come;
    ``unsure`` says why demand is not known.
    """
    ripe: list[_Idle] = []
    young: list[_Idle] = []
    idle_for = fleet.aim.idle_for
    for course in fleet.usable_lively():
        seen = idle_reading(course, evidence)
        if seen is None:
            _explain_not_idle(course, evidence)
            continue
        start = idle_start(course, seen)
        idle = f"idle for {seconds(evidence.now - start)}"
        keep = _why_kept(course, fleet, needed, unsure, idle)
        if keep is None and course.worker.id in ready:
            keep = Reason(Cause.KEPT_IDLE, f"{idle}; it is kept for jobs to come")
        if keep is None and seen.idle_since is None:
            keep = Reason(Cause.KEPT_IDLE, "it runs nothing; its queue does not say since when")
        if keep is not None:
            _explain(course, keep)
        elif idle_for is not None and evidence.now < start + idle_for:
            young.append(_Idle(course, start, idle))
            _explain(course, Reason(Cause.KEPT_IDLE, f"{idle} of {seconds(idle_for)}"))
        else:
            ripe.append(_Idle(course, start, idle))
    early = fleet.aim.early
    if early is not None:
        ripe += _superfluous(
            fleet, early, [entry for entry in young if evidence.now >= entry.since + early.after], ripe
        )
    _drain_ripe(fleet, ripe)
    return _looks(fleet, young, evidence.now)


def _looks(fleet: Fleet, young: list[_Idle], now: float) -> list[float]:
    """When the next of these may be ripe."""
    early = fleet.aim.early
    looks = [entry.since + fleet.aim.idle_for for entry in young if fleet.aim.idle_for is not None]
    if early is not None:
        looks += [max(entry.since + early.after, now + LET_GO_EVERY) for entry in young]
    return looks


def _superfluous(fleet: Fleet, early: Early, idle: list[_Idle], ripe: list[_Idle]) -> list[_Idle]:
    """Of those that are idle the ones that the load is not likely to want again, once the ripe ones are gone."""
    excess = _free_cores(fleet) - early.beyond - sum(_cores(entry.course) for entry in ripe)
    chosen: list[_Idle] = []
    for entry in sorted(idle, key=lambda entry: victim_order(entry.course, fleet)):
        if _cores(entry.course) <= excess:
            excess -= _cores(entry.course)
            words = f"{entry.words}; {count(early.beyond, 'free core')} are enough for what may come"
            chosen.append(_Idle(entry.course, entry.since, words))
    return chosen


def _free_cores(fleet: Fleet) -> int:
    """Of workers that take jobs, and all of those on the way."""
    free = sum(_cores(course) for course in fleet.starting())
    free += sum(launch.count * launch.shape.resources.cores for launch in fleet.launches)
    free += sum(room.cores * number for (_, room), number in fleet.steady.rooms.items())
    for course in fleet.usable_lively():
        seen = course.seen
        if seen is None:
            free += _cores(course)
        elif seen.state is NodeState.ACCEPTING and not (course.worker.single_use and seen.running):
            free += sum(node.free.cores for node in seen.nodes)
    return free


def _cores(course: Course) -> int:
    return course.worker.shape.resources.cores


def _why_kept(course: Course, fleet: Fleet, needed: Set[WorkerId], unsure: Reason | None, idle: str) -> Reason | None:
    """Why an idle worker stays however long it is idle."""
    if fleet.halted is not None:
        return fleet.halted
    if fleet.pinned is not None:
        told = f"its group is kept at {count(fleet.pinned, 'worker')}"
        told = told if fleet.aim.patience is None else f"{told}: {fleet.aim.patience.text}"
        return Reason(Cause.KEPT_IDLE, f"{idle}; {told}")
    if course.worker.id in needed:
        return Reason(Cause.KEPT_IDLE, f"{idle}; jobs wait that it can run")
    if unsure is not None:
        return Reason(unsure.cause, f"{idle}, but {unsure.text}")
    if fleet.aim.idle_for is None:
        return Reason(Cause.KEPT_IDLE, f"{idle}; its policy keeps idle workers")
    return None


def _drain_ripe(fleet: Fleet, ripe: list[_Idle]) -> None:
    spare = fleet.usable_count() - fleet.minimum
    for entry in sorted(ripe, key=lambda entry: victim_order(entry.course, fleet)):
        if spare > 0:
            drain(entry.course, fleet, Reason(Cause.IDLE, entry.words))
            spare -= 1
        else:
            least = _with_why(f"keeps at least {count(fleet.minimum, 'worker')}", fleet)
            _explain(entry.course, Reason(Cause.AT_MINIMUM, f"{entry.words}; {least}"))


def _explain_not_idle(course: Course, evidence: Evidence) -> None:
    seen = course.seen
    said = evidence.says_busy_after(course.worker.id, seen.started or 0.0) if seen is not None else None
    if said is not None:
        _explain(course, Reason(Cause.BUSY, said))
    else:
        _explain(course, Reason(Cause.KEPT_IDLE, "no fresh reading of its queue says that it is idle"))


def _explain(course: Course, why: Reason) -> None:
    """Say why it stays, unless the life-cycle rules had more to say (it is silent, or not listed somewhere)."""
    if not course.settled:
        course.stay(why)
