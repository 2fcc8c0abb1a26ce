"""Arithmetic of jobs and machines: what fits onto what is there, and which machines to add.

Jobs that look alike are one :class:`Load`, machines that look alike one :class:`Bin`; nothing here is done per job or,
beyond slicing lists of ids, per machine. Amounts are plain tuples (cores, memory, disk, GPUs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gridtide.model.demand import Demand, DemandRow, OfferKey
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources

Amount = tuple[int, int, int, int]

_ONE_CORE: Amount = (1, 0, 0, 0)


def amount(resources: Resources) -> Amount:
    """As a tuple."""
    return (resources.cores, resources.memory, resources.disk, resources.gpus)


def times(have: Amount, want: Amount) -> int:
    """How many of ``want`` fit into ``have`` at the same time. ``want`` is never nothing at all."""
    return min(h // w for h, w in zip(have, want, strict=True) if w)


def less(have: Amount, want: Amount, number: int) -> Amount:
    """What is left of ``have``; nothing where more was taken than there is."""
    return (
        max(have[0] - want[0] * number, 0),
        max(have[1] - want[1] * number, 0),
        max(have[2] - want[2] * number, 0),
        max(have[3] - want[3] * number, 0),
    )


@dataclass(slots=True)
class Load:
    """Waiting jobs with the same needs and the same offers, and how many of them still want a place."""

    need: Amount
    runs_on: frozenset[OfferKey]
    rows: list[DemandRow]
    left: int
    placed: dict[str, int] = field(default_factory=dict)
    """Stage of planning -> how many jobs found a place in it."""

    def put(self, stage: str, number: int) -> None:
        """Note that ``number`` jobs found a place."""
        self.left -= number
        self.placed[stage] = self.placed.get(stage, 0) + number

    @property
    def count(self) -> int:
        """All of them, placed or not."""
        return sum(row.count for row in self.rows)


def loads_of(demand: Demand) -> list[Load]:
    """Rows that look alike joined, the largest needs first: what is hard to place is placed first."""
    joined: dict[tuple[Amount, frozenset[OfferKey]], Load] = {}
    for row in demand:
        # A job that needs nothing would fit without limit: it gets the core that it will use.
        need = amount(row.need) if row.need != Resources() else _ONE_CORE
        load = joined.setdefault((need, row.runs_on), Load(need, row.runs_on, [], 0))
        load.rows.append(row)
        load.left += row.count
    return sorted(joined.values(), key=_largest_first)


def _largest_first(load: Load) -> tuple[object, ...]:
    cores, memory, disk, gpus = load.need
    return (-gpus, -cores, -memory, -disk, sorted(load.runs_on))


@dataclass(slots=True)
class Bin:
    """``count`` equal machines, or what is free of them."""

    key: OfferKey | None
    """The offer that they are of; None where resources alone decide."""
    free: Amount
    slots: int | None
    """At most so many jobs a machine, whatever their needs; None: as many as resources allow."""
    count: int
    members: list[WorkerId]
    """Who they are, the one to be used first first; empty where nobody asks."""
    touched: bool = False
    """Whether a job was given a place."""

    def room_for(self, load: Load) -> int:
        """How many jobs of the load one of the machines takes."""
        if self.key is not None and self.key not in load.runs_on:
            return 0
        if self.slots is not None:
            return self.slots
        return times(self.free, load.need)

    def used(self, number: int, load: Load, jobs: int) -> Bin:
        """The first ``number`` of the machines with ``jobs`` more on each."""
        slots = None if self.slots is None else self.slots - jobs
        return Bin(self.key, less(self.free, load.need, jobs), slots, number, self.members[:number], touched=True)

    def without(self, number: int) -> Bin:
        """The machines after the first ``number``."""
        return Bin(self.key, self.free, self.slots, self.count - number, self.members[number:], self.touched)


def place(loads: Iterable[Load], bins: list[Bin], stage: str) -> list[Bin]:
    """Give the loads a place in the bins, in the order of both. Returns the bins as they are afterwards."""
    for load in loads:
        if load.left == 0:
            continue
        after: list[Bin] = []
        for bin_ in bins:
            room = bin_.room_for(load) if load.left else 0
            after.extend(_fill(bin_, load, room, stage) if room else (bin_,))
        bins = after
    return bins


def _fill(bin_: Bin, load: Load, room: int, stage: str) -> list[Bin]:
    """One bin split into machines filled with the load, the last one filled in part, and machines left as they were."""
    parts: list[Bin] = []
    full = min(load.left // room, bin_.count)
    if full:
        parts.append(bin_.used(full, load, room))
        load.put(stage, full * room)
        bin_ = bin_.without(full)
    if bin_.count and load.left and load.left < room:
        parts.append(bin_.used(1, load, load.left))
        load.put(stage, load.left)
        bin_ = bin_.without(1)
    if bin_.count:
        parts.append(bin_)
    return parts


@dataclass(slots=True)
class Kind:
    """A kind of machine that could be added."""

    key: OfferKey
    rank: int
    """Position of its cloud in its group: the first cloud that can take a job gets it."""
    order: tuple[str, int, str]
    """Decides among kinds that are as good: group, position of the shape, its name."""
    whole: Amount
    slots: int | None


@dataclass(slots=True)
class Choice:
    """A kind, and what one machine of it would run."""

    kind: Kind
    jobs: list[tuple[Load, int]]
    unused: int
    """Cores and GPUs that would stay without a job."""
    last: bool
    """One machine takes all that this kind can run: it is left unfilled for want of jobs, not of room."""

    @property
    def standing(self) -> tuple[float, tuple[str, int, str]]:
        """Smaller is better: the part of the machine that is unused, then the order given."""
        size = self.kind.whole[0] + self.kind.whole[3]
        return (self.unused / size if size else 0.0, self.kind.order)


Room = Callable[[Kind], int]
Take = Callable[[Kind, int], None]


def add_machines(loads: Sequence[Load], kinds: Sequence[Kind], room: Room, take: Take, stage: str) -> None:
    """Decide machines for the loads that are left, as long as a kind has room.

    Machines that jobs fill come first, by the smallest unused part and then by the order given. For the last jobs, one
    large machine is compared with the smaller ones that would do: the choice that leaves least unused wins, and
    among equals the one with fewer machines.
    """
    while True:
        best = _best([load for load in loads if load.left], [kind for kind in kinds if room(kind) > 0], room)
        if best is None:
            return
        number = min(min(load.left // jobs for load, jobs in best.jobs), room(best.kind))
        for load, jobs in best.jobs:
            load.put(stage, jobs * number)
        take(best.kind, number)


def _best(loads: Sequence[Load], kinds: Sequence[Kind], room: Room) -> Choice | None:
    choices = [choice for kind in kinds if (choice := _one_machine(kind, loads)) is not None]
    if not choices:
        return None
    rank = min(choice.kind.rank for choice in choices)
    choices = [choice for choice in choices if choice.kind.rank == rank]
    full = min((choice for choice in choices if not choice.last), key=lambda choice: choice.standing, default=None)
    last = min(
        (choice for choice in choices if choice.last),
        key=lambda choice: (choice.unused, choice.kind.order),
        default=None,
    )
    if full is None or last is None:
        return full or last
    rivals = [choice.kind for choice in choices]
    smaller = _unused_with(full.kind, [load for load, _ in last.jobs], rivals, room)
    return full if smaller is not None and smaller < last.unused else last


def _one_machine(kind: Kind, loads: Sequence[Load]) -> Choice | None:
    """What one machine of the kind would run: the largest jobs first. None when it can run nothing of it."""
    free, slots = kind.whole, kind.slots
    jobs: list[tuple[Load, int]] = []
    last = True
    for load in loads:
        if kind.key not in load.runs_on:
            continue
        fits = slots if slots is not None else times(free, load.need)
        number = min(fits, load.left)
        last = last and number == load.left
        if number:
            jobs.append((load, number))
            free = less(free, load.need, number)
            slots = None if slots is None else slots - number
    return Choice(kind, jobs, free[0] + free[3], last) if jobs else None


def _unused_with(first: Kind, loads: Sequence[Load], kinds: Sequence[Kind], room: Room) -> int | None:
    """What would stay unused if these jobs got machines of ``first`` before others; None if that does not place all."""
    rest = [Load(load.need, load.runs_on, [], load.left) for load in loads]
    unused, available = 0, room(first)
    choice = _one_machine(first, rest)
    while choice is not None:
        number = min(load.left // jobs for load, jobs in choice.jobs)
        available -= number
        if available < 0:
            return None
        unused += choice.unused * number
        for load, jobs in choice.jobs:
            load.left -= jobs * number
        rest = [load for load in rest if load.left]
        if not rest:
            return unused
        options = [option for kind in kinds if (option := _one_machine(kind, rest)) is not None]
        filled = [option for option in options if not option.last]
        choice = min(filled or options, key=lambda option: (option.unused, option.kind.order), default=None)
    return None
