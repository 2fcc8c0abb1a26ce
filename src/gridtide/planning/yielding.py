"""Workers given up by a group that has more than its part of a quota, for one that waits with less than its own."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final

from gridtide.model.ids import QueueName
from gridtide.model.reasons import Cause, Reason
from gridtide.planning.evidence import Evidence, count, seconds
from gridtide.planning.lifecycle import Course
from gridtide.planning.limits import Limits
from gridtide.planning.quotas import ALMOST, Contention, Quotas, Standing, early, size_of, staying
from gridtide.planning.victims import drain, drainable, idle_reading, idle_start, victim_order

SERVICE: Final = 600.0
"""Seconds for which a worker that joined is left to its group while it works. Smaller: where demand goes up and down,
machines are booted to run one job. Larger: a group that comes late waits for longer."""


def give_way(quotas: Quotas, sure: Set[QueueName], evidence: Evidence, limits: Limits) -> list[float]:
    """Make room where groups wait with less than their part. Returns when more could be given up.

    ``sure`` are the queues whose readings are fresh: no worker of another one is drained.
    """
    timers: list[float] = []
    for _, contention in sorted(quotas.contended().items()):
        timers += _give_way(contention, quotas, sure, evidence, limits)
    return timers


def _give_way(
    contention: Contention, quotas: Quotas, sure: Set[QueueName], evidence: Evidence, limits: Limits
) -> list[float]:
    """Drain as many as the groups below their part lack, and none more.

    Idle workers go first, whatever ``idle_for`` would keep. Then workers with jobs, which run to their end, of groups
    that keep their part without them.
    """
    lacking = sum(_lack(contention, standing) for standing in contention.standings.values())
    lacking -= limits.left(contention.cloud, contention.unit) + quotas.leaving(contention)
    if lacking <= 0:
        return []
    givers = [
        standing
        for standing in contention.standings.values()
        if standing.fleet.halted is None and standing.fleet.pinned is None and standing.fleet.rules.queue in sure
    ]
    for idle in (True, False):
        lists = [(standing, _victims(standing, contention, quotas, evidence, idle=idle)) for standing in givers]
        while lacking > 0 and (chosen := _next(lists, contention, idle=idle)) is not None:
            standing, course = chosen
            size = size_of(course.worker.shape.resources, contention.unit)
            drain(course, standing.fleet, _reason(course, contention, evidence, idle=idle))
            standing.has -= size
            lacking -= size
        if lacking <= 0:
            return []
    return [time for standing in givers for time in _timers(standing, contention, evidence)]


def _lack(contention: Contention, standing: Standing) -> float:
    """What it may still launch, in whole machines, if its own spare ones are given up."""
    if not standing.wants or not standing.least:
        return 0.0
    part = min(contention.parts[standing.fleet.rules.name], standing.uses + standing.wants)
    return max((part - standing.uses + ALMOST) // standing.least, 0.0) * standing.least


def _victims(
    standing: Standing, contention: Contention, quotas: Quotas, evidence: Evidence, *, idle: bool
) -> list[Course]:
    """Those that may be drained, the first one last."""
    fleet = standing.fleet
    spare = fleet.usable_count() - fleet.floor
    found = [
        course
        for course in staying(fleet, contention.cloud)
        if course.usable
        and drainable(course, evidence)
        and (quotas.spare(course, fleet) if idle else evidence.now >= course.worker.since + SERVICE)
    ]
    found.sort(key=lambda course: victim_order(course, fleet))
    return found[: max(spare, 0)][::-1]


def _next(
    lists: Iterable[tuple[Standing, list[Course]]], contention: Contention, *, idle: bool
) -> tuple[Standing, Course] | None:
    """Of the group that is furthest above its part for its share. Idle ones are of no use to their own group either."""
    best: tuple[float, Standing, list[Course]] | None = None
    for standing, courses in lists:
        over = standing.has - contention.parts[standing.fleet.rules.name]
        while not idle and courses and size_of(courses[-1].worker.shape.resources, contention.unit) > over + ALMOST:
            courses.pop()
        surplus = over / standing.fleet.rules.share
        if courses and (best is None or surplus > best[0]):
            best = (surplus, standing, courses)
    return None if best is None else (best[1], best[2].pop())


def _reason(course: Course, contention: Contention, evidence: Evidence, *, idle: bool) -> Reason:
    seen = course.seen
    waiting = ", ".join(name for name in sorted(contention.standings) if contention.below(name))
    words = f"group {waiting} waits with less than its part of the quota of cloud {contention.cloud}"
    if idle and seen is not None:
        return Reason(Cause.YIELDED, f"idle for {seconds(evidence.now - idle_start(course, seen))}, and {words}")
    running = 0 if seen is None else seen.running
    return Reason(Cause.YIELDED, f"{words}; what it runs ({count(running, 'job')}) runs to its end")


def _timers(standing: Standing, contention: Contention, evidence: Evidence) -> list[float]:
    """When a worker that is kept for now could be given up."""
    times: list[float] = []
    for course in staying(standing.fleet, contention.cloud):
        if course.usable:
            seen = idle_reading(course, evidence)
            if seen is not None and seen.idle_since is not None:
                times.append(idle_start(course, seen) + early(standing.fleet))
            times.append(course.worker.since + SERVICE)
    return times
