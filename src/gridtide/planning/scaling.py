"""From what waits to what is there already, or can be taken back: one queue at a time, its groups together."""

from __future__ import annotations

from dataclasses import dataclass, field

from gridtide.model.demand import Demand
from gridtide.model.ids import QueueName, WorkerId
from gridtide.model.readings import last_known
from gridtide.model.reasons import Cause, Reason
from gridtide.model.snapshot import QueueMemory
from gridtide.planning import supply, trials
from gridtide.planning.evidence import Evidence, count, doubt
from gridtide.planning.fitting import Bin, Load, amount, loads_of, place
from gridtide.planning.fleet import Fleet, recall, recallable
from gridtide.planning.lifecycle import Course
from gridtide.planning.limits import Limits

FREE = "free"
SOON = "soon"
RECALLED = "recalled"
LAUNCHED = "launched"


@dataclass(slots=True)
class Outcome:
    """What became of the demand of one queue."""

    queue: QueueName
    loads: list[Load]
    unsure: Reason | None
    """Why demand and nodes are not known well enough to act on."""
    needed: set[WorkerId] = field(default_factory=set)
    """Idle workers that have room for jobs that wait."""
    ahead: list[Load] = field(default_factory=list)
    """Jobs to come that room is kept for: they take what the others leave, and none of them waits."""
    ready: set[WorkerId] = field(default_factory=set)
    """Idle workers that are kept for them."""
    memory: QueueMemory = field(default_factory=QueueMemory)
    """Which room is on trial, or was not taken."""


def fill_up(fleet: Fleet, evidence: Evidence, limits: Limits) -> None:
    """Bring the group up to its minimum, or to the number it is pinned at, whatever waits."""
    if fleet.halted is not None:
        return
    active = fleet.active()
    missing = fleet.floor - active
    if missing <= 0:
        return
    text = f"group {fleet.rules.name} has {active} of {count(fleet.floor, 'worker')} to be kept"
    if fleet.aim.why is not None:
        reason = Reason(fleet.aim.why.cause, f"{text}: {fleet.aim.why.text}")
    elif fleet.pinned is None or fleet.aim.idle_only:
        reason = Reason(Cause.BELOW_MINIMUM, text)
    else:
        reason = Reason(Cause.BELOW_DESIRED, text)
    for course in limits.affordable(_candidates(fleet, evidence))[:missing]:
        limits.recall(course.worker)
        recall(course, fleet, text)
        missing -= 1
    for offer in fleet.offers:
        while missing > 0 and (room := limits.room(offer)) > 0:
            number = min(missing, room)
            fleet.launches.append(limits.take(offer, number, single_use=fleet.aim.single_use, reason=reason))
            missing -= number


def serve(queue: QueueName, fleets: list[Fleet], evidence: Evidence, limits: Limits) -> Outcome:
    """Fit the demand of a queue onto what there is, and recall drains. What is left wants launches."""
    view = evidence.queue(queue)
    known = last_known(view.demand)
    demand: Demand = known.value if known is not None else ()
    before = evidence.snapshot.queue_memory.get(queue, QueueMemory())
    unsure = doubt(f"queue {queue}, demand", view.demand) or doubt(f"queue {queue}, nodes", view.nodes)
    if unsure is not None:
        return Outcome(queue, loads_of(demand), unsure, memory=trials.keep(before, evidence.now))
    foreign = evidence.foreign_nodes.get(queue, [])
    memory = trials.remember(demand, foreign, fleets, before, evidence)
    judged = trials.judge(demand, memory.trials, evidence.now)
    outcome = Outcome(queue, loads_of(judged.rows, judged.barred), None, memory=memory)
    outcome.ahead = [load for fleet in fleets if (load := _ahead_of(fleet)) is not None]
    wanted = [*outcome.loads, *outcome.ahead]
    if not wanted:
        return outcome
    used = place(outcome.loads, supply.free_now(foreign, fleets), FREE)
    outcome.needed = _touched(used)
    if outcome.ahead:
        outcome.ready = _touched(place(outcome.ahead, used, FREE)) - outcome.needed
    if any(load.left for load in wanted):
        place(wanted, supply.soon(fleets, evidence), SOON)
        _recall_for(wanted, fleets, evidence, limits)
    return outcome


def _ahead_of(fleet: Fleet) -> Load | None:
    """What the group wants to keep free, as a load of jobs that do not exist yet."""
    ahead = fleet.aim.ahead
    if ahead is None:
        return None
    runs_on = frozenset(offer.key for offer in fleet.offers if offer.shape.resources.covers(ahead.each))
    return Load(amount(ahead.each), runs_on, [], ahead.jobs) if runs_on else None


def _touched(bins: list[Bin]) -> set[WorkerId]:
    return {member for bin_ in bins if bin_.touched for member in bin_.members}


def _candidates(fleet: Fleet, evidence: Evidence) -> list[Course]:
    """Drains that may be taken back, as many as the maximum lets stay; workers of the present generation first."""
    staying = fleet.joined_count() + len(fleet.starting()) + sum(launch.count for launch in fleet.launches)
    found = [course for course in fleet.lively if recallable(course, fleet, evidence)]
    found.sort(key=lambda course: (fleet.over_old(course), course.worker.id))
    return found[: max(fleet.maximum - staying, 0)]


def _recall_for(loads: list[Load], fleets: list[Fleet], evidence: Evidence, limits: Limits) -> None:
    if not any(load.left for load in loads):
        return
    open_fleets = [fleet for fleet in fleets if fleet.halted is None and fleet.pinned is None]
    courses = {course.worker.id: (course, fleet) for fleet in open_fleets for course in _candidates(fleet, evidence)}
    bins = place(loads, supply.draining(limits.affordable([course for course, _ in courses.values()])), RECALLED)
    for worker in sorted(_touched(bins)):
        course, fleet = courses[worker]
        limits.recall(course.worker)
        recall(course, fleet, "jobs wait again that it can run")
