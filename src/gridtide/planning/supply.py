"""What capacity there is or will be, as bins that waiting jobs are fitted onto."""

from __future__ import annotations

from collections.abc import Iterable

from gridtide.model.demand import Node, NodeState, OfferKey
from gridtide.model.ids import WorkerId
from gridtide.planning.evidence import Evidence
from gridtide.planning.fitting import Amount, Bin, amount
from gridtide.planning.fleet import Fleet
from gridtide.planning.lifecycle import Course
from gridtide.planning.sightings import Seen
from gridtide.planning.victims import keepers_first

_Kind = tuple[OfferKey | None, Amount, int | None, bool]


class _Bins:
    """Bins by what they are, so that equal machines meet in one."""

    def __init__(self) -> None:
        self._bins: dict[_Kind, Bin] = {}
        self._others: dict[tuple[str | None, Amount], Bin] = {}

    def add(self, key: OfferKey | None, free: Amount, slots: int | None, member: WorkerId | None = None) -> None:
        """One machine more. Machines without room are left out."""
        bin_ = self.add_alike(1, key, free, slots, named=member is not None)
        if bin_ is not None and member is not None:
            bin_.members.append(member)

    def add_alike(
        self, number: int, key: OfferKey | None, free: Amount, slots: int | None, *, named: bool = False
    ) -> Bin | None:
        """So many machines more, all alike; the bin that they are in. ``named``: the caller says who they are."""
        if not any(free) or slots == 0:
            return None
        what = (key, free, slots, not named)
        bin_ = self._bins.get(what)
        if bin_ is None:
            bin_ = self._bins[what] = Bin(key, free, slots, 0, [])
        bin_.count += number
        return bin_

    def add_others(self, kind: str | None, free: Amount) -> None:
        """One node that is not ours."""
        if any(free):
            new = Bin(None, free, None, 0, [], foreign=True, kind=kind)
            self._others.setdefault((kind, free), new).count += 1

    def all(self) -> list[Bin]:
        """In an order that does not depend on the one in which they were added."""
        ordered = sorted(self._bins.items(), key=lambda item: (item[0][1], item[0][0] or ("", "")))
        others = sorted(self._others.items(), key=lambda item: (item[0][0] or "", item[0][1]))
        return [*(bin_ for _, bin_ in others), *(bin_ for _, bin_ in ordered)]


def free_now(foreign: Iterable[Node], fleets: Iterable[Fleet]) -> list[Bin]:
    """What accepting nodes have free. Members are the idle workers, those to be kept first."""
    bins = _Bins()
    for node in foreign:
        if node.state is NodeState.ACCEPTING:
            bins.add_others(node.kind, amount(node.free))
    for fleet in fleets:
        offered = {offer.key for offer in fleet.offers}
        for (shape, free), number in fleet.steady.rooms.items():
            offer = (fleet.rules.name, shape)
            bins.add_alike(number, offer if offer in offered else None, amount(free), None)
        idle: list[Course] = []
        for course in fleet.usable_lively():
            seen = course.seen
            if seen is None or seen.state is not NodeState.ACCEPTING:
                continue
            if seen.running == 0:
                idle.append(course)
            elif not course.worker.single_use:
                for node in seen.nodes:
                    bins.add(_key(course, offered), amount(node.free), None)
        for course in keepers_first(idle, fleet):
            slots = 1 if course.worker.single_use else None
            for node in course.seen.nodes if course.seen is not None else ():
                bins.add(_key(course, offered), amount(node.free), slots, course.worker.id)
    return bins.all()


def soon(fleets: Iterable[Fleet], evidence: Evidence) -> list[Bin]:
    """Workers that have just joined, or are on the way, as whole machines."""
    bins = _Bins()
    for fleet in fleets:
        for course in fleet.usable_lively():
            if course.seen is None:
                _add_whole(bins, course, None)
            elif course.seen.state is not NodeState.ACCEPTING:
                _add_undrained(bins, course, course.seen, None)
        for course in fleet.starting():
            worker = course.worker
            age = evidence.now - (worker.launched if worker.launched is not None else worker.created)
            if fleet.aim.deploy_time is None or age <= fleet.aim.deploy_time:
                _add_whole(bins, course, fleet.aim.jobs_per_worker)
        for launch in fleet.launches:
            slots = 1 if launch.single_use else fleet.aim.jobs_per_worker
            bins.add_alike(launch.count, (launch.group, launch.shape.name), amount(launch.shape.resources), slots)
    return bins.all()


def draining(courses: Iterable[Course]) -> list[Bin]:
    """Workers whose drain could be taken back, with what they could take then."""
    bins = _Bins()
    for course in courses:
        if course.seen is not None:
            _add_undrained(bins, course, course.seen, course.worker.id)
    return bins.all()


def _add_undrained(bins: _Bins, course: Course, seen: Seen, member: WorkerId | None) -> None:
    """What its nodes will have free once the queue has taken their drain back."""
    worker = course.worker
    for node in seen.nodes:
        free = node.total if node.running == 0 else node.free
        bins.add((worker.group, worker.shape.name), amount(free), 1 if worker.single_use else None, member)


def _add_whole(bins: _Bins, course: Course, jobs: int | None) -> None:
    worker = course.worker
    slots = 1 if worker.single_use else jobs
    bins.add((worker.group, worker.shape.name), amount(worker.shape.resources), slots)


def _key(course: Course, offered: set[OfferKey]) -> OfferKey | None:
    """Its offer; None for a shape that is not offered any more, where resources alone must decide."""
    key = (course.worker.group, course.worker.shape.name)
    return key if key in offered else None
