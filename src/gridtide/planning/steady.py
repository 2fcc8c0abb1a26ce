"""Workers of which nothing new is to be said: they run jobs as in the cycle before, and nothing about them has changed.

In a site that is at work these are most. What the last cycle made of them holds, so planning counts them by what they
are and looks at the others one by one. Whoever wants to decide about them too takes them back (:meth:`Steady.thaw`),
and they are looked at like all others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gridtide.model.ids import CloudName, GroupName, ShapeName, WorkerId
from gridtide.model.reasons import Reason
from gridtide.model.resources import Resources
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import Snapshot
from gridtide.model.workers import Worker
from gridtide.planning.evidence import Evidence
from gridtide.planning.fitting import Amount, plus
from gridtide.planning.lifecycle import Course, follow
from gridtide.planning.limits import holding
from gridtide.planning.sightings import Listed, Sightings

K = TypeVar("K")

_NOTHING: Final[Amount] = (0, 0, 0, 0)


@dataclass(slots=True)
class Steady:
    """Those of one group: joined, accepting jobs, with a job, on one node and one machine."""

    courses: dict[WorkerId, Course] = field(default_factory=dict)
    why: dict[WorkerId, Reason] = field(default_factory=dict)
    rooms: Counter[tuple[ShapeName, Resources]] = field(default_factory=Counter)
    """How many have so much free, of those that take more than one job."""
    machines: Counter[tuple[CloudName, Resources]] = field(default_factory=Counter)
    """How many are of this size in this cloud."""
    shapes: Counter[ShapeName] = field(default_factory=Counter)
    """How many are of this shape."""
    jobs: int = 0
    """How many they run."""
    used: Amount = _NOTHING
    """What these jobs use."""
    older: int = 0
    """How many are of another generation than the group's present one."""
    heard: float = float("inf")
    """Each was heard of then, or later."""

    def __len__(self) -> int:
        return len(self.courses)

    def add(self, course: Course, evidence: Evidence) -> None:
        """One more."""
        self.courses[course.worker.id] = course
        self.why[course.worker.id] = course.why
        self.heard = min(self.heard, evidence.heard(course.worker))
        self._count(course, evidence.rules, 1)

    def _remove(self, worker: WorkerId, rules: SiteRules) -> None:
        course = self.courses.pop(worker, None)
        if course is not None:
            del self.why[worker]
            self._count(course, rules, -1)

    def thaw(self) -> list[Course]:
        """All of them, to be decided about; none is left."""
        courses = list(self.courses.values())
        self.courses, self.why, self.heard = {}, {}, float("inf")
        self.jobs, self.used, self.older = 0, _NOTHING, 0
        for counter in (self.rooms, self.machines, self.shapes):
            counter.clear()
        return courses

    def look(self, evidence: Evidence, changed: Iterable[WorkerId], *, anew: bool) -> list[WorkerId]:
        """Let go, and name, who is seen otherwise than before (``changed``), is another one than it was, left, or was
        silent for too long. ``anew``: whether the snapshot's workers are others than those of the one before.
        """
        workers, rules = evidence.snapshot.workers, evidence.rules
        other = [name for name in changed if name in self.courses]
        if anew:
            other += [name for name, course in self.courses.items() if workers.get(name) is not course.worker]
        for name in other:
            self._remove(name, rules)
        group = next((rules.groups[course.worker.group] for course in self.courses.values()), None)
        if group is not None and evidence.now - self.heard > group.lease:
            heard = {name: evidence.heard(course.worker) for name, course in self.courses.items()}
            silent = [name for name, at in heard.items() if evidence.now - at > group.lease]
            for name in silent:
                self._remove(name, rules)
            self.heard = min((heard[name] for name in self.courses), default=float("inf"))
            other += silent
        return other

    def _count(self, course: Course, rules: SiteRules, number: int) -> None:
        worker, seen = course.worker, course.seen
        _add(self.machines, (worker.cloud, worker.shape.resources), number)
        _add(self.shapes, worker.shape.name, number)
        if worker.generation != rules.groups[worker.group].generation and not worker.single_use:
            self.older += number
        if seen is None:
            return
        node = seen.nodes[0]
        self.jobs += node.running * number
        self.used = plus(self.used, node.used, number)
        if not worker.single_use:
            _add(self.rooms, (worker.shape.name, node.free), number)


def _add(counter: Counter[K], key: K, number: int) -> None:
    counter[key] += number
    if not counter[key]:
        del counter[key]


class Past:
    """What one cycle leaves to the next, of the same controller and under the same rules."""

    def __init__(self, rules: SiteRules, started: float) -> None:
        self.sightings = Sightings()
        self.groups: Mapping[GroupName, Steady] = {name: Steady() for name in rules.groups}
        self.unknown: Set[WorkerId] = frozenset()
        """Tags of machines that no worker carries."""
        self._idle: dict[WorkerId, Course] = {}
        """Calm ones that run nothing: what the life-cycle rules said of them holds."""
        self._workers: Mapping[WorkerId, Worker] | None = None
        self._machines: Mapping[WorkerId, list[Listed]] | None = None
        """Of the snapshot before."""
        self._others: set[WorkerId] = set()
        """Of its workers those that are not steady."""
        self._rules = rules
        self._started = started

    def fits(self, snapshot: Snapshot, rules: SiteRules) -> bool:
        """Whether it is of any use to a cycle with these."""
        return rules is self._rules and snapshot.started == self._started

    def look(self, snapshot: Snapshot, rules: SiteRules) -> tuple[Evidence, list[Course]]:
        """The evidence of the next cycle, and the workers that are looked at one by one, by id."""
        self.sightings.look(snapshot)
        evidence = Evidence(snapshot, rules, self.sightings)
        anew = snapshot.workers is not self._workers
        others = self._others
        for name, steady in self.groups.items():
            if evidence.wishes(name).closing or self._warming(name, evidence):
                others.update(course.worker.id for course in steady.thaw())
                self._idle = {worker: course for worker, course in self._idle.items() if course.worker.group != name}
            else:
                others.update(steady.look(evidence, self.sightings.changed, anew=anew))
        if anew:
            others = set(snapshot.workers).difference(*(steady.courses for steady in self.groups.values()))
        if anew or evidence.machines is not self._machines:
            self.unknown = evidence.machines.keys() - snapshot.workers.keys()
        self._workers, self._machines = snapshot.workers, evidence.machines
        idle, self._idle = self._idle, {}
        for worker in self.sightings.changed:
            idle.pop(worker, None)
        return evidence, [
            self._course(snapshot.workers[worker], idle.get(worker), evidence) for worker in sorted(others)
        ]

    def _course(self, worker: Worker, before: Course | None, evidence: Evidence) -> Course:
        if before is None or before.worker is not worker:
            return follow(worker, evidence)
        silence = evidence.now - evidence.heard(worker)
        return before.again() if silence <= evidence.rules.groups[worker.group].lease else follow(worker, evidence)

    def held(self, others: Iterable[Course]) -> Mapping[GroupName, int]:
        """How many workers of each group may have a machine: the steady ones, and of the others those that do."""
        held = holding(course.worker for course in others)
        held.update({name: len(steady) for name, steady in self.groups.items()})
        return held

    def keep(self, courses: Mapping[WorkerId, Course], evidence: Evidence) -> None:
        """Note those of which the next cycle need not find out anything anew unless it changes."""
        self._others = set(courses)
        for name, course in courses.items():
            group = course.worker.group
            if course.calm and group in self.groups and len(evidence.machines[name]) == 1:
                if course.steady:
                    self.groups[group].add(course, evidence)
                    self._others.remove(name)
                elif course.open:
                    self._idle[name] = course

    def _warming(self, group: GroupName, evidence: Evidence) -> bool:
        clouds = {cloud for cloud, _ in self.groups[group].machines}
        clouds.update(course.worker.cloud for course in self._idle.values() if course.worker.group == group)
        return any(evidence.warming(group, cloud) is not None for cloud in clouds)
