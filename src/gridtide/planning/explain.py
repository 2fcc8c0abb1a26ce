"""Sentences: why each group and each waiting shape of demand is as it is."""

from __future__ import annotations

from collections.abc import Iterable

from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import WorkerState
from gridtide.planning.evidence import Evidence, count
from gridtide.planning.fitting import Load
from gridtide.planning.fleet import Fleet
from gridtide.planning.limits import Limits, Offering
from gridtide.planning.scaling import FREE, LAUNCHED, RECALLED, SOON, Outcome


def why_load(load: Load, outcome: Outcome, fleets: list[Fleet], evidence: Evidence, limits: Limits) -> Reason:
    """Of jobs that look alike."""
    if outcome.unsure is not None:
        return outcome.unsure
    free = load.placed.get(FREE, 0)
    soon = load.placed.get(SOON, 0) + load.placed.get(RECALLED, 0) + load.placed.get(LAUNCHED, 0)
    placed = [f"{free} fit into what is free now"] if free else []
    placed += [f"{soon} wait for workers on the way"] if soon else []
    total = count(load.count, "job")
    if load.left == 0:
        return Reason(Cause.STARTING if soon else Cause.SATISFIED, f"of {total} {_and(placed)}")
    obstacle = obstacle_of(load, fleets, evidence, limits)
    return Reason(obstacle.cause, f"of {total} {_and([*placed, f'{load.left} have no place'])}: {obstacle.text}")


def _and(parts: list[str]) -> str:
    return " and ".join(parts) if parts else "none waits"


def obstacle_of(load: Load, fleets: list[Fleet], evidence: Evidence, limits: Limits) -> Reason:
    """What is in the way of the offer that would be taken first."""
    choices = [(fleet, offer) for fleet in fleets for offer in fleet.offers if offer.key in load.runs_on]
    if not choices:
        for fleet in fleets:
            for cloud in fleet.rules.clouds:
                unread = evidence.unread(cloud)
                if unread is not None:
                    return unread
        return Reason(Cause.NO_SHAPE_FITS, f"no shape of any group can run {load.rows[0].label}")
    fleet, offer = min(choices, key=lambda choice: _preferred(*choice))
    return fleet.obstacle or limits.why_not(offer)


def _preferred(fleet: Fleet, offer: Offering) -> tuple[bool, int, str, int]:
    """Groups that follow demand first: what stops them is what can change."""
    return (fleet.obstacle is not None, offer.rank, offer.group, offer.place)


def why_group(fleet: Fleet, obstacles: Iterable[Reason]) -> Reason:
    """The most telling thing to say of a group. ``obstacles`` are those of jobs that it could run."""
    if fleet.halted is not None:
        return fleet.halted
    name = fleet.rules.name
    if fleet.launches:
        number = sum(launch.count for launch in fleet.launches)
        first = fleet.launches[0].reason
        return Reason(first.cause, f"{count(number, 'worker')} launched: {first.text}")
    if fleet.drained:
        first = fleet.drained[0]
        return Reason(first.cause, f"{count(len(fleet.drained), 'worker')} given back: {first.text}")
    if fleet.recalled:
        return Reason(Cause.LOAD_RETURNED, f"{count(fleet.recalled, 'drain')} taken back: jobs wait again")
    for obstacle in obstacles:
        return obstacle
    return _why_calm(fleet, name)


def _why_calm(fleet: Fleet, name: str) -> Reason:
    starting = len(fleet.starting())
    if starting:
        return Reason(Cause.STARTING, f"{count(starting, 'worker')} of group {name} on the way")
    joined = sum(course.state is WorkerState.JOINED for course in fleet.courses)
    figures = f"group {name} has {count(joined, 'joined worker')}"
    if fleet.pinned is not None:
        return Reason(Cause.SATISFIED, f"{figures}, pinned at {fleet.pinned}")
    if fleet.active() <= fleet.minimum and fleet.minimum > 0:
        return Reason(Cause.AT_MINIMUM, f"{figures}, its minimum is {fleet.minimum}")
    return Reason(Cause.SATISFIED, f"{figures}, and no job that it can run waits for want of one")
