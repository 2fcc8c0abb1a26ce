"""Launching where a cloud's quota does not hold what all groups want: everybody its fair part.

A cloud is *contended* when what its groups have there and what their waiting jobs would want are together more than
the quota leaves to us, in the unit (cores, memory, machines) that is shortest. Then each group launches up to its
fair part (:mod:`gridtide.planning.sharing`); what is left because machines do not come in halves goes to whoever has
least for its share; and a group that has less than its part, and room for no machine, has the room kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from gridtide.model.ids import CloudName, GroupName, WorkerId
from gridtide.model.resources import Resources
from gridtide.model.workers import WorkerState
from gridtide.planning.evidence import Evidence
from gridtide.planning.fitting import Load, amount, times
from gridtide.planning.fleet import STARTING, Fleet
from gridtide.planning.lifecycle import Course
from gridtide.planning.limits import Limits, Offering
from gridtide.planning.sharing import Claim, fair_parts
from gridtide.planning.victims import idle_reading, idle_start

EARLY: Final = 60.0
"""Seconds of idleness after which a worker may be given up for another group, however long its own would keep it.
Smaller: a group whose jobs come with short breaks loses its machines in each. Larger: the others wait for longer."""

_UNITS: Final = ("cores", "memory", "machines")
ALMOST: Final = 1e-6
"""Parts are fractions: so much is no difference."""


def size_of(resources: Resources, unit: str) -> int:
    """What a machine uses of a quota."""
    return {"cores": resources.cores, "memory": resources.memory, "machines": 1}[unit]


@dataclass(slots=True)
class Standing:
    """A group in a contended cloud, in the unit that is short there."""

    fleet: Fleet
    has: float
    """Its machines that stay, launches of this cycle included."""
    uses: float
    """The same without those that have been idle for long and that nobody waits for."""
    wants: float
    """What its waiting jobs would use beyond ``has``."""
    least: float
    """The smallest machine that one of them could run on; 0 when nothing waits."""
    waiting_since: float


@dataclass(frozen=True, slots=True)
class Contention:
    """A cloud that cannot give all what they want."""

    cloud: CloudName
    unit: str
    capacity: float
    standings: Mapping[GroupName, Standing]
    parts: Mapping[GroupName, float]

    def below(self, group: GroupName) -> bool:
        """Whether it wants a machine and still would not have more than its part with it."""
        standing = self.standings[group]
        return standing.wants > 0 and standing.has + standing.least <= self.parts[group] + ALMOST

    def room(self, offering: Offering) -> int:
        """How many machines of it fit into the part of its group."""
        standing = self.standings[offering.group]
        size = size_of(offering.shape.resources, self.unit)
        return max(int((self.parts[offering.group] - standing.has + ALMOST) // size), 0) if size else 0

    def took(self, offering: Offering, number: int) -> None:
        """So many were launched."""
        self.standings[offering.group].has += size_of(offering.shape.resources, self.unit) * number

    def words(self, group: GroupName) -> str:
        """For people."""
        has, part = self.standings[group].has, self.parts[group]
        unit = "MiB of memory" if self.unit == "memory" else self.unit
        return f"group {group} has {has:.0f} {unit} in cloud {self.cloud}, its fair part of the quota is {part:.1f}"


Served = Sequence[tuple[Sequence[Load], Sequence[Fleet]]]
"""The loads of each queue, and its groups."""


class Quotas:
    """What contention there is; asked again after each round of launches."""

    def __init__(self, served: Served, needed: set[WorkerId], evidence: Evidence, limits: Limits) -> None:
        self._served = served
        self._needed = needed
        self._evidence = evidence
        self._limits = limits
        self._clouds = [name for name, rules in sorted(evidence.rules.clouds.items()) if limits.bounded(name)]
        self._idle: dict[WorkerId, bool] = {}
        self._machines: dict[tuple[CloudName, str, GroupName], tuple[float, float]] = {}
        """What each group's workers have, and what of it could be spared. They do not change while launches do."""

    def contended(self) -> dict[CloudName, Contention]:
        """The clouds that cannot give all what they want now."""
        found = ((cloud, self._contention(cloud)) for cloud in self._clouds)
        return {cloud: contention for cloud, contention in found if contention is not None}

    def workers_changed(self) -> None:
        """Some were drained since the last look."""
        self._machines.clear()

    def _contention(self, cloud: CloudName) -> Contention | None:
        """By the unit of which there is least for what is wanted."""
        worst: tuple[float, Contention] | None = None
        for unit in _UNITS:
            capacity = self._limits.capacity(cloud, unit)
            if capacity is None:
                continue
            standings = {standing.fleet.rules.name: standing for standing in self._standings(cloud, unit)}
            wanted = sum(each.has + each.wants for each in standings.values())
            if wanted <= capacity + ALMOST or not any(each.wants for each in standings.values()):
                continue
            pressure = wanted / capacity if capacity > 0 else float("inf")
            if worst is None or pressure > worst[0]:
                parts = fair_parts(capacity, _claims(standings.values()))
                worst = (pressure, Contention(cloud, unit, capacity, standings, parts))
        return None if worst is None else worst[1]

    def _standings(self, cloud: CloudName, unit: str) -> Iterator[Standing]:
        for loads, fleets in self._served:
            for fleet in fleets:
                if cloud in fleet.rules.clouds or _present(fleet, cloud):
                    yield self._standing(cloud, unit, fleet, loads)

    def _standing(self, cloud: CloudName, unit: str, fleet: Fleet, loads: Sequence[Load]) -> Standing:
        key = (cloud, unit, fleet.rules.name)
        if key not in self._machines:
            lively = [course for course in fleet.lively if course.worker.cloud == cloud and _stays(course)]
            sizes = [(size_of(each.worker.shape.resources, unit), each) for each in lively]
            idle = sum(size for size, course in sizes if self.spare(course, fleet))
            busy = sum(
                size_of(resources, unit) * number
                for (where, resources), number in fleet.steady.machines.items()
                if where == cloud
            )
            self._machines[key] = (float(busy + sum(size for size, _ in sizes)), float(idle))
        has, spare = self._machines[key]
        for launch in fleet.launches:
            if launch.cloud == cloud:
                has += size_of(launch.shape.resources, unit) * launch.count
        wants, least = self._wish(cloud, unit, fleet, loads)
        room = self._limits.group_room(fleet.rules.name)
        since = [row.oldest_since for load in loads if load.left for row in load.rows if _runs(load, fleet)]
        return Standing(fleet, has, has - spare, wants if room else 0.0, least, min(since, default=float("inf")))

    def _wish(self, cloud: CloudName, unit: str, fleet: Fleet, loads: Sequence[Load]) -> tuple[float, float]:
        """What the jobs without a place would use of this cloud alone, and the smallest machine for one of them."""
        if fleet.obstacle is not None:
            return 0.0, 0.0
        limits = self._limits
        offers = [offer for offer in fleet.offers if offer.cloud == cloud and limits.allows(offer)]
        used = largest = 0.0
        least = float("inf")
        for load in loads:
            if not load.left:
                continue
            best = float("inf")
            for offer in offers:
                if offer.key not in load.runs_on:
                    continue
                slots = fleet.aim.jobs_per_worker
                jobs = slots if slots is not None else times(amount(offer.shape.resources), load.need)
                if jobs:
                    size = float(size_of(offer.shape.resources, unit))
                    least, largest = min(least, size), max(largest, size)
                    best = min(best, size / jobs)
            if best < float("inf"):
                used += best * load.left
        if least == float("inf"):
            return 0.0, 0.0
        most = limits.group_room(fleet.rules.name) * largest
        return min(max(ceil(used / least) * least if least else 0.0, least), most), least

    def spare(self, course: Course, fleet: Fleet) -> bool:
        """Whether it has been idle for long enough to be given up for others, and no job waits that needs it."""
        known = self._idle.get(course.worker.id)
        if known is None:
            known = self._idle[course.worker.id] = self._spare(course, fleet)
        return known

    def _spare(self, course: Course, fleet: Fleet) -> bool:
        if fleet.pinned is not None or not course.usable or course.worker.id in self._needed:
            return False
        seen = idle_reading(course, self._evidence)
        if seen is None or seen.idle_since is None:
            return False
        return self._evidence.now >= idle_start(course, seen) + early(fleet)

    def leaving(self, contention: Contention) -> float:
        """What machines on their way out will free."""
        return sum(
            size_of(course.worker.shape.resources, contention.unit)
            for standing in contention.standings.values()
            for course in standing.fleet.lively
            if course.worker.cloud == contention.cloud and not _stays(course) and course.state is not WorkerState.GONE
        )


def early(fleet: Fleet) -> float:
    """Seconds of idleness after which a worker of the group may be given up for another group."""
    return EARLY if fleet.aim.idle_for is None else min(EARLY, fleet.aim.idle_for)


def staying(fleet: Fleet, cloud: CloudName) -> Iterator[Course]:
    """Its workers there that are not on their way out."""
    return (course for course in fleet.courses if course.worker.cloud == cloud and _stays(course))


def _stays(course: Course) -> bool:
    return course.state is WorkerState.JOINED or course.state in STARTING


def _present(fleet: Fleet, cloud: CloudName) -> bool:
    """Whether workers of the group are there."""
    return any(where == cloud for where, _ in fleet.steady.machines) or any(
        course.worker.cloud == cloud for course in fleet.lively
    )


def _runs(load: Load, fleet: Fleet) -> bool:
    return any(group == fleet.rules.name for group, _ in load.runs_on)


def _claims(standings: Iterable[Standing]) -> list[Claim]:
    """Those that have machines keep one; then those come first that have waited longest."""
    order = sorted(
        standings, key=lambda each: (not each.has, each.waiting_since, -each.fleet.rules.share, each.fleet.rules.name)
    )
    return [
        Claim(each.fleet.rules.name, each.fleet.rules.share, each.uses + each.wants, each.least if each.wants else 0.0)
        for each in order
    ]
