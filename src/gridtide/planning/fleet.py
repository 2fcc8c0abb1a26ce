"""One group in one cycle: its workers after the life-cycle rules, its figures, and what its policy aims at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from gridtide.model.actions import Action, Launch, Terminate
from gridtide.model.boots import BootKey
from gridtide.model.demand import NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.readings import fresh
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources
from gridtide.model.rules import GroupRules, Wishes
from gridtide.model.snapshot import GroupMemory
from gridtide.model.workers import WorkerState
from gridtide.planning.evidence import Evidence
from gridtide.planning.fitting import Amount, plus
from gridtide.planning.lifecycle import Course
from gridtide.planning.limits import Offering, maximum_of, minimum_of, offerings
from gridtide.planning.policies import Aim, Outlook, Pulse, Work, policy_of
from gridtide.planning.steady import Steady

STARTING = frozenset({WorkerState.INTENDED, WorkerState.LAUNCHING, WorkerState.BOOTING})
_ON_THE_WAY_OUT = frozenset({WorkerState.DRAINING, WorkerState.DRAINED})

_FINAL_DRAINS = frozenset({Cause.SINGLE_USE, Cause.SELF_DRAINED, Cause.OVER_OLD, Cause.INTERRUPTED, Cause.YIELDED})
"""Drains that load does not take back: the worker itself, its age, its cloud, or another group's part decided them."""


@dataclass(slots=True)
class Fleet:
    """A group, and what this cycle does with it."""

    rules: GroupRules
    outlook: Outlook
    aim: Aim
    minimum: int
    maximum: int
    pinned: int | None
    """A number of workers to have whatever waits, within minimum and maximum."""
    halted: Reason | None
    """Why the group is left alone by everything that follows the life-cycle rules."""
    lively: list[Course]
    """Workers that are looked at one by one. All that have not joined, run nothing or leave are among them."""
    steady: Steady
    """Those that run jobs as before, counted together."""
    offers: list[Offering]
    waiting: int | None
    thawed: list[Course] = field(default_factory=list)
    """Those of the lively ones that were steady."""
    launches: list[Launch] = field(default_factory=list)
    recalled: int = 0
    drained: list[Reason] = field(default_factory=list)
    """Why each worker that is drained in this cycle is."""

    @property
    def floor(self) -> int:
        """How many workers there shall be at least."""
        return self.minimum if self.pinned is None else self.pinned

    @property
    def obstacle(self) -> Reason | None:
        """Why demand starts nothing in this group, whatever the room."""
        if self.halted is not None:
            return self.halted
        if self.pinned is not None and self.aim.patience is None:
            return Reason(Cause.AT_MAXIMUM, f"group {self.rules.name} is pinned at {self.pinned} workers")
        return self.aim.patience

    @property
    def courses(self) -> list[Course]:
        """All its workers, to be decided about: from now on they are all looked at one by one."""
        if self.steady:
            self.thawed += self.steady.thaw()
            self.lively += self.thawed
        return self.lively

    def starting(self) -> list[Course]:
        """Workers that have not joined yet and are on the way."""
        return [course for course in self.lively if course.state in STARTING]

    def usable(self) -> list[Course]:
        """Joined workers that count as capacity, to be decided about."""
        return [course for course in self.courses if course.usable and course.state is WorkerState.JOINED]

    def usable_lively(self) -> list[Course]:
        """The same without the steady ones."""
        return [course for course in self.lively if course.usable and course.state is WorkerState.JOINED]

    def usable_count(self) -> int:
        """How many joined workers count as capacity."""
        return len(self.steady) + len(self.usable_lively())

    def joined_count(self) -> int:
        """How many have joined and do not drain."""
        return len(self.steady) + sum(course.state is WorkerState.JOINED for course in self.lively)

    def active(self) -> int:
        """How many work, could work, or will."""
        return len(self.starting()) + self.usable_count() + sum(launch.count for launch in self.launches)

    def old_count(self) -> int:
        """Workers of an older generation that are not gone; those that take one job and leave are left to do so."""
        lively = sum(self.over_old(course) and not course.worker.single_use for course in self.lively)
        return self.steady.older + lively

    def over_old(self, course: Course) -> bool:
        """Whether it was made from another image or context than the group's present one."""
        return course.worker.generation != self.rules.generation


def fleet_of(group: GroupRules, lively: list[Course], evidence: Evidence, steady: Steady | None = None) -> Fleet:
    """Gather what this cycle needs to know of a group. Without ``steady`` all its workers are among the lively ones."""
    view = evidence.queue(group.queue)
    demand = fresh(view.demand)
    waiting: int | None = None
    if demand is not None:
        rows = (row for row in demand.value if any(name == group.name for name, _ in row.runs_on))
        waiting = sum(row.count for row in rows)
    steady = Steady() if steady is None else steady
    usable = [course for course in lively if course.usable and course.state is WorkerState.JOINED]
    # As they are now: an outlook tells the same after a thaw.
    mine, others, jobs, used = tuple(lively), steady.courses, steady.jobs, steady.used
    outlook = Outlook(
        now=evidence.now,
        waiting=waiting,
        memory=evidence.snapshot.memory.get(group.name, GroupMemory()),
        workers=len(steady) + len(usable) + sum(course.state in STARTING for course in lively),
        busy=len(steady) + sum(course.seen is not None and course.seen.running > 0 for course in usable),
        minimum=minimum_of(group, evidence),
        maximum=maximum_of(group, evidence),
        pulses=lambda: tuple(_pulse(course, evidence) for course in sorted([*usable, *others.values()], key=_by_id)),
        work=lambda: _work(group, mine, jobs, used, evidence),
        boot=_boot(group, evidence),
    )
    aim = _as_wished(policy_of(group.policy).aim(outlook), outlook, evidence.wishes(group.name))
    maximum = outlook.maximum if aim.maximum is None else aim.maximum
    minimum = min(outlook.minimum if aim.minimum is None else aim.minimum, maximum)
    pinned = None if aim.count is None else min(max(aim.count, minimum), maximum)
    offers = offerings(group, evidence)
    halted = _halted(group, evidence)
    return Fleet(group, outlook, aim, minimum, maximum, pinned, halted, lively, steady, offers, waiting)


def _by_id(course: Course) -> WorkerId:
    return course.worker.id


def _pulse(course: Course, evidence: Evidence) -> Pulse:
    cores = course.worker.shape.resources.cores
    heartbeat = evidence.snapshot.heartbeats.get(course.worker.id)
    return Pulse(cores, None, 0.0) if heartbeat is None else Pulse(cores, heartbeat.at, heartbeat.load)


def _as_wished(aim: Aim, outlook: Outlook, wishes: Wishes) -> Aim:
    """What operators say replaces what the policy says."""
    if wishes.minimum is not None:
        aim = replace(aim, minimum=outlook.minimum, why=None if aim.count is None else aim.why)
    if wishes.maximum is not None or aim.maximum is None or aim.maximum > outlook.maximum:
        aim = replace(aim, maximum=outlook.maximum)
    if wishes.desired is not None:
        aim = replace(aim, count=wishes.desired, idle_only=False, patience=None, why=None)
    return aim


def _work(group: GroupRules, lively: Iterable[Course], jobs: int, used: Amount, evidence: Evidence) -> Work | None:
    """``jobs`` and ``used`` are those of the steady workers."""
    demand = fresh(evidence.queue(group.queue).demand)
    if demand is None or evidence.queue_nodes_started(group.queue) is None:
        return None
    waiting = sum(
        row.count * max(row.need.cores, 1) for row in demand.value if any(name == group.name for name, _ in row.runs_on)
    )
    for course in lively:
        for node in course.seen.nodes if course.seen is not None else ():
            if node.running:
                jobs, used = jobs + node.running, plus(used, node.used, 1)
    return Work(jobs, Resources(*used), waiting)


def _boot(group: GroupRules, evidence: Evidence) -> float | None:
    """Of the first of its clouds in which one was seen."""
    for cloud in group.clouds:
        for key in BootKey(cloud, None, group.image).wider():
            times = evidence.snapshot.boot_times.get(key)
            if times is not None and times.median is not None:
                return times.median
    return None


def _halted(group: GroupRules, evidence: Evidence) -> Reason | None:
    wishes = evidence.wishes(group.name)
    if wishes.closing:
        return Reason(Cause.HELD, f"an operator closes group {group.name}")
    warming = evidence.warming(group.name)
    if warming is not None:
        return warming
    if wishes.hold:
        return Reason(Cause.HELD, f"an operator holds group {group.name}")
    return None


def recallable(course: Course, fleet: Fleet, evidence: Evidence) -> bool:
    """Whether load may take the drain of this worker back."""
    worker, seen = course.worker, course.seen
    return (
        worker.state in _ON_THE_WAY_OUT
        and course.state in (*_ON_THE_WAY_OUT, WorkerState.TERMINATING)
        and not any(isinstance(action, Terminate) for action in course.actions)
        and not worker.drain_wanted
        and not worker.force_wanted
        and worker.reason.cause not in _FINAL_DRAINS
        and evidence.warming(worker.group, worker.cloud) is None
        and not (course.machine is not None and course.machine.notice)
        and seen is not None
        and seen.started is not None
        and seen.started >= evidence.since(worker.since)
        and seen.state is not NodeState.UNAVAILABLE
        and fleet.halted is None
    )


def recall(course: Course, fleet: Fleet, text: str) -> None:
    """Undrain instead of whatever the drain was leading to.

    The cause is always LOAD_RETURNED: by it a recalled worker is told from one that has just joined, and is not
    taken for draining until the queue has answered.
    """
    course.undrain(Reason(Cause.LOAD_RETURNED, text))
    fleet.recalled += 1


def withdraw(course: Course, fleet: Fleet, reason: Reason) -> None:
    """Give up a worker that has not joined: the intent, or the machine that boots."""
    if course.state is WorkerState.INTENDED:
        course.advance(WorkerState.GONE, reason)
    else:
        course.terminate(reason)
    course.settled = True
    fleet.drained.append(reason)


def actions_of(course: Course) -> list[Action]:
    """In the order in which they must be done."""
    return [*course.actions, *course.revocable]
