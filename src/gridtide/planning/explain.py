"""Sentences: why each group and each waiting shape of demand is as it is."""

from __future__ import annotations

from collections.abc import Iterable

from gridtide.model.ids import GroupName
from gridtide.model.reasons import Cause, Reason
from gridtide.planning.evidence import Evidence, count, seconds
from gridtide.planning.fitting import Load, amount, times
from gridtide.planning.fleet import Fleet
from gridtide.planning.limits import Limits, Offering
from gridtide.planning.scaling import FREE, LAUNCHED, RECALLED, SOON, Outcome
from gridtide.planning.trials import PATIENCE


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
    obstacle = obstacle_of(load, outcome, fleets, evidence, limits)
    return Reason(obstacle.cause, f"of {total} {_and([*placed, f'{load.left} have no place'])}: {obstacle.text}")


def _and(parts: list[str]) -> str:
    return " and ".join(parts) if parts else "none waits"


def obstacle_of(load: Load, outcome: Outcome, fleets: list[Fleet], evidence: Evidence, limits: Limits) -> Reason:
    """What is in the way of the offer that would be taken first."""
    choices = [(fleet, offer) for fleet in fleets for offer in fleet.offers if offer.key in load.runs_on]
    if choices:
        fleet, offer = min(choices, key=lambda choice: _preferred(*choice))
        return fleet.obstacle or limits.why_not(offer)
    tried: list[GroupName | None] = [*sorted(name for name in load.barred if name in {f.rules.name for f in fleets})]
    if not tried and None in load.barred:
        tried = [None]
    if tried:
        return _not_taken(load, outcome, tried, evidence)
    for fleet in fleets:
        for cloud in fleet.rules.clouds:
            unread = evidence.unread(cloud)
            if unread is not None:
                return unread
    return _others_only(load, outcome, evidence) or Reason(Cause.NO_SHAPE_FITS, _why_none_fits(load, fleets))


def _not_taken(load: Load, outcome: Outcome, whose: list[GroupName | None], evidence: Evidence) -> Reason:
    known = [outcome.memory.trials.get((load.rows[0].label, who)) for who in whose]
    until = min((trial.until for trial in known if trial is not None and trial.until is not None), default=0.0)
    failures = max((trial.failures for trial in known if trial is not None), default=1)
    groups = ", ".join(who for who in whose if who is not None)
    machines = f"idle workers of group {groups}" if groups else "nodes that are not ours"
    words = f"{machines} had room for them, and none started for {seconds(PATIENCE)}"
    often = "" if failures == 1 else f" ({failures} times in a row)"
    again = f"one is tried there in {seconds(until - evidence.now)}" if until > evidence.now else "one is being tried"
    return Reason(Cause.NOT_TAKEN, f"{words}{often}: the queue does not place them; {again}")


def _others_only(load: Load, outcome: Outcome, evidence: Evidence) -> Reason | None:
    """Whether nodes that are not ours, in whatever state, could run the jobs."""
    kinds = load.node_kinds
    able = sum(
        1
        for node in evidence.foreign_nodes.get(outcome.queue, ())
        if (kinds is None or node.kind in kinds) and times(amount(node.total), load.need)
    )
    words = f"only nodes that are not ours ({able} of them) can run {load.rows[0].label}, and none has room"
    return Reason(Cause.OTHERS_ONLY, words) if able else None


def _why_none_fits(load: Load, fleets: list[Fleet]) -> str:
    words = f"no shape of any group can run {load.rows[0].label}"
    shapes = [amount(offer.shape.resources) for fleet in fleets for offer in fleet.offers]
    if not shapes:
        return f"{words}: no cloud offers a shape"
    if any(times(shape, load.need) for shape in shapes):
        return f"{words}: its requirements leave out all of them"
    most = [max(column) for column in zip(*shapes, strict=True)]
    lacking = [
        f"{need} {unit}, the largest has {have}"
        for need, have, unit in zip(load.need, most, ("cores", "MiB of memory", "MiB of disk", "GPUs"), strict=True)
        if need > have
    ]
    return f"{words}: it needs {' and '.join(lacking)}" if lacking else f"{words}: none has enough of everything"


def _preferred(fleet: Fleet, offer: Offering) -> tuple[bool, int, str, int]:
    """Groups that follow demand first: what stops them is what can change."""
    return (fleet.obstacle is not None, offer.rank, offer.group, offer.place)


def why_group(fleet: Fleet, obstacles: Iterable[Reason]) -> Reason:
    """The most telling thing to say of a group. ``obstacles`` are those of jobs that it could run."""
    if fleet.halted is not None:
        return fleet.halted
    patience = fleet.aim.patience
    if patience is not None and patience.cause is Cause.POLICY_FAILED:
        return patience
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
    figures = f"group {name} has {count(fleet.joined_count(), 'joined worker')}"
    if fleet.pinned is not None:
        told = f"pinned at {fleet.pinned}" if fleet.aim.patience is None else fleet.aim.patience.text
        return Reason(Cause.SATISFIED, f"{figures}, {told}")
    if fleet.active() <= fleet.minimum and fleet.minimum > 0:
        return Reason(Cause.AT_MINIMUM, f"{figures}, its minimum is {fleet.minimum}")
    return Reason(Cause.SATISFIED, f"{figures}, and no job that it can run waits for want of one")
