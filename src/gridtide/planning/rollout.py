"""Replacing workers of an older generation (image or context) without ending a job and without a gap.

Capacity is cores of workers that accept jobs. *Wanted* is what the group would keep if there were nothing to replace:
the cores that jobs run on, drains for age included, and those of jobs that wait, as far as the maximum goes; at least
its minimum (or what it is pinned at). A worker is drained for its age only when what stays is at least
:data:`KEPT` of that. Idle ones go first. Where it is not, replacements are launched beside, a few at a time.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from gridtide.model.actions import Rollout
from gridtide.model.readings import fresh
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import WorkerState
from gridtide.planning.evidence import Evidence, count
from gridtide.planning.fleet import Fleet
from gridtide.planning.lifecycle import Course
from gridtide.planning.limits import Limits
from gridtide.planning.victims import drain, drainable, victim_order

KEPT: Final = 0.9
"""Part of the wanted capacity that always stays. The issue that asked for rolling updates sets it."""

SURGE: Final = 0.1
"""Replacements launched beside, as a part of the group's workers, at least one. More replaces faster and costs more."""


def roll(fleet: Fleet, evidence: Evidence, limits: Limits, unsure: Reason | None) -> Rollout | None:
    """One step of the group's rollout; what there is to say of it, None when there is nothing to replace."""
    old = fleet.old_count()
    if not old:
        return None
    usable = fleet.usable()
    capacity = sum(_cores(course) for course in usable)
    wanted = _wanted(fleet, evidence, usable)
    present = sum(not fleet.over_old(course) for course in usable)

    def told(why: Reason) -> Rollout:
        return Rollout(present, old, capacity, wanted, why)

    halted = fleet.halted or unsure
    if halted is not None:
        return told(halted)
    if evidence.wishes(fleet.rules.name).rollout_paused:
        return told(Reason(Cause.HELD, f"an operator paused the rollout of group {fleet.rules.name}"))
    victims = [course for course in usable if fleet.over_old(course) and drainable(course, evidence)]
    gone = 0
    for course in sorted(victims, key=lambda each: victim_order(each, fleet)):
        if capacity - _cores(course) < KEPT * wanted:
            continue
        drain(course, fleet, Reason(Cause.OVER_OLD, "it was made from an older image or context"))
        capacity -= _cores(course)
        gone += 1
    if gone:
        return told(Reason(Cause.OVER_OLD, f"{count(gone, 'worker')} drained for age"))
    if not any(fleet.over_old(course) for course in usable):
        return told(Reason(Cause.OVER_OLD, f"{count(old, 'worker')} on the way out or not ready"))
    return told(_surge(fleet, limits, len(usable)))


def _surge(fleet: Fleet, limits: Limits, usable: int) -> Reason:
    """Launch replacements, unless some are on their way."""
    name = fleet.rules.name
    coming = sum(not fleet.over_old(course) for course in fleet.starting()) + sum(each.count for each in fleet.launches)
    if coming:
        return Reason(Cause.STARTING, f"{count(coming, 'worker')} of group {name} on the way, in place of older ones")
    wanted = max(1, ceil(SURGE * usable))
    reason = Reason(Cause.OVER_OLD, f"group {name} has {count(fleet.old_count(), 'worker')} of an older generation")
    launched = 0
    for offer in fleet.offers:
        while launched < wanted and (room := limits.room(offer)) > 0:
            number = min(wanted - launched, room)
            fleet.launches.append(limits.take(offer, number, single_use=fleet.aim.single_use, reason=reason))
            launched += number
    if launched:
        return Reason(Cause.OVER_OLD, f"{count(launched, 'worker')} launched in place of older ones")
    why = limits.why_not(fleet.offers[0]) if fleet.offers else Reason(Cause.NO_SHAPE_FITS, "no cloud offers its shapes")
    stuck = "no worker can be spared, and there is no room for another one beside"
    return Reason(why.cause, f"{stuck}: {why.text} (raise the maximum by {wanted} for the rollout)")


def _wanted(fleet: Fleet, evidence: Evidence, usable: list[Course]) -> float:
    leaving = [
        course
        for course in fleet.courses
        if course.state is WorkerState.DRAINING and course.worker.reason.cause is Cause.OVER_OLD
    ]
    busy = sum(_used(course) for course in [*usable, *leaving])
    demand = fresh(evidence.queue(fleet.rules.queue).demand)
    mine = fleet.rules.name
    waiting = 0
    for row in demand.value if demand is not None else ():
        if any(group == mine for group, _ in row.runs_on):
            waiting += row.count * max(1, row.need.cores)
    most = max((_cores(course) for course in usable), default=0)
    least = sorted((_cores(course) for course in usable), reverse=True)[: fleet.floor]
    possible = float(most * max(fleet.maximum, len(usable)))
    if fleet.pinned is not None:
        possible = float(most * fleet.pinned)
    return max(min(float(busy + waiting), possible), float(sum(least)))


def _cores(course: Course) -> int:
    seen = course.seen
    listed = sum(node.total.cores for node in seen.nodes) if seen is not None else 0
    return listed or course.worker.shape.resources.cores


def _used(course: Course) -> int:
    """Cores that jobs have; all of them when the queue does not list it."""
    if course.seen is None:
        return course.worker.shape.resources.cores
    return sum(max(0, node.total.cores - node.free.cores) for node in course.seen.nodes)
