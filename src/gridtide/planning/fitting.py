"""Arithmetic of jobs and machines: what fits onto what is there, and which machines to add.

Jobs that look alike are one :class:`Load`, machines that look alike one :class:`Bin`; nothing here is done per job or,
beyond slicing lists of ids, per machine. Amounts are plain tuples (cores, memory, disk, GPUs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Final

from gridtide.model.demand import DemandRow, OfferKey
from gridtide.model.ids import GroupName, WorkerId
from gridtide.model.resources import Resources
from gridtide.planning.shelves import Shelves

Amount = tuple[int, int, int, int]

_ONE_CORE: Amount = (1, 0, 0, 0)

_DIGITS: Final = 9
"""Of a price: more are the rounding of fractions, and no reason to prefer anything."""


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


def plus(have: Amount, more: Amount, number: int) -> Amount:
    """``have`` and ``number`` times ``more``, which may be below 0."""
    return (
        have[0] + more[0] * number,
        have[1] + more[1] * number,
        have[2] + more[2] * number,
        have[3] + more[3] * number,
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
    node_kinds: frozenset[str] | None = None
    """Kinds of nodes of others that take them; None: any."""
    barred: frozenset[GroupName | None] = frozenset()
    """Groups, None for nodes of others, whose machines had room for them and did not take them."""

    def put(self, stage: str, number: int) -> None:
        """Note that ``number`` jobs found a place."""
        self.left -= number
        self.placed[stage] = self.placed.get(stage, 0) + number

    @property
    def groups(self) -> frozenset[GroupName]:
        """Whose machines run them."""
        return frozenset(group for group, _ in self.runs_on)

    @property
    def count(self) -> int:
        """All of them, placed or not."""
        return sum(row.count for row in self.rows)


def loads_of(demand: Iterable[DemandRow], barred: Iterable[frozenset[GroupName | None]] | None = None) -> list[Load]:
    """Rows that look alike joined, the largest needs first: what is hard to place is placed first.

    ``barred`` says of each row who is out for it already.
    """
    joined: dict[tuple[object, ...], Load] = {}
    for row, out in zip(demand, repeat(frozenset()) if barred is None else barred, strict=False):
        # A job that needs nothing would fit without limit: it gets the core that it will use.
        need = amount(row.need) if row.need != Resources() else _ONE_CORE
        key = (need, row.runs_on, row.node_kinds, out)
        load = joined.setdefault(key, Load(need, row.runs_on, [], 0, {}, row.node_kinds, out))
        load.rows.append(row)
        load.left += row.count
    return sorted(joined.values(), key=_hardest_first)


def _hardest_first(load: Load) -> tuple[object, ...]:
    """What only nodes of others run comes first: it has no other choice, and starts no machine."""
    cores, memory, disk, gpus = load.need
    kinds = () if load.node_kinds is None else sorted(load.node_kinds)
    return (
        bool(load.runs_on),
        -gpus,
        -cores,
        -memory,
        -disk,
        sorted(load.runs_on),
        kinds,
        sorted(map(str, load.barred)),
    )


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
    foreign: bool = False
    """Nodes that are not ours."""
    kind: str | None = None
    """Theirs."""

    def room_for(self, load: Load) -> int:
        """How many jobs of the load one of the machines takes, if its requirements let it."""
        return self.slots if self.slots is not None else times(self.free, load.need)

    def fill(self, load: Load, stage: str) -> list[Bin]:
        """Machines filled with the load, the last one filled in part, and machines left as they were."""
        room = self.room_for(load)
        full = min(load.left // room, self.count)
        parts = [self._used(0, full, load, room)] if full else []
        load.put(stage, full * room)
        if full < self.count and 0 < load.left < room:
            parts.append(self._used(full, full + 1, load, load.left))
            load.put(stage, load.left)
            full += 1
        if full < self.count:
            parts.append(replace(self, count=self.count - full, members=self.members[full:]))
        return parts

    def _used(self, first: int, end: int, load: Load, jobs: int) -> Bin:
        """Some of the machines with ``jobs`` more on each."""
        return replace(
            self,
            free=less(self.free, load.need, jobs),
            slots=None if self.slots is None else self.slots - jobs,
            count=end - first,
            members=self.members[first:end],
            touched=True,
        )


def place(loads: Sequence[Load], bins: list[Bin], stage: str) -> list[Bin]:
    """Give the loads a place in the bins, in the order of the loads. Returns the bins as they are afterwards."""
    if not any(load.left for load in loads):
        return bins
    shelves = Shelves(bins)
    for load in loads:
        if load.left:
            shelves.put(load, stage)
    return shelves.bins()


@dataclass(slots=True)
class Kind:
    """A kind of machine that could be added."""

    key: OfferKey
    rank: int
    """Position of its cloud in its group: the first cloud that can take a job gets it. 0 where the clouds compete."""
    order: tuple[str, int, str]
    """Decides among kinds that are as good: group, position of the shape, its name."""
    whole: Amount
    slots: int | None
    price: float | None = None
    """Per hour, where the price decides before what is left unused; None where it does not."""


@dataclass(slots=True)
class Choice:
    """A kind, and what one machine of it would run."""

    kind: Kind
    jobs: list[tuple[Load, int]]
    unused: int
    """Cores and GPUs that would stay without a job."""
    beside: tuple[Load, int] | None
    """A load of which more is left than the machine takes, and how many it takes."""

    @property
    def last(self) -> bool:
        """One machine takes all that this kind can run: it is left unfilled for want of jobs, not of room."""
        return self.beside is None

    @property
    def standing(self) -> tuple[float, float, tuple[str, int, str]]:
        """Smaller is better: the price of what is used, if that decides; the part that is unused; the order given."""
        size = self.kind.whole[0] + self.kind.whole[3]
        return (self._price(), self.unused / size if size else 0.0, self.kind.order)

    @property
    def last_standing(self) -> tuple[float, float, tuple[str, int, str]]:
        """The same among machines that take all there is for them: what is unused is not measured by their size."""
        return (self._price(), self.unused, self.kind.order)

    def _price(self) -> float:
        """For each core and GPU that jobs get; for each job where they need neither."""
        if self.kind.price is None:
            return 0.0
        used = sum(number * (load.need[0] + load.need[3]) for load, number in self.jobs)
        return round(self.kind.price / (used or sum(number for _, number in self.jobs)), _DIGITS)

    @property
    def waste(self) -> float:
        """What choosing this kind loses, summed up over the machines: its price, or what stays unused."""
        return float(self.unused) if self.kind.price is None else self.kind.price


Room = Callable[[Kind], int]
Take = Callable[[Kind, int], None]


class _Stand:
    """A kind with the loads that it could run, and the last choice, kept for as long as it would come out the same."""

    def __init__(self, kind: Kind, loads: Iterable[Load]) -> None:
        self.kind = kind
        self._loads = [load for load in loads if kind.key in load.runs_on]
        self._choice: Choice | None = None
        self._all_of: list[bool] = []
        """Of each load of the choice, whether the machine takes all that is left of it."""

    def choice(self) -> Choice | None:
        """What one machine would run; None when it can run nothing."""
        choice = self._choice
        if choice is None or not self._same(choice):
            self._loads = [load for load in self._loads if load.left]
            choice = self._choice = _one_machine(self.kind, self._loads)
            self._all_of = [load.left == number for load, number in choice.jobs] if choice is not None else []
        return choice

    def _same(self, choice: Choice) -> bool:
        if choice.beside is not None and choice.beside[0].left <= choice.beside[1]:
            return False
        return all(
            load.left == number if whole else load.left > number
            for (load, number), whole in zip(choice.jobs, self._all_of, strict=True)
        )


def add_machines(loads: Sequence[Load], kinds: Sequence[Kind], room: Room, take: Take, stage: str) -> None:
    """Decide machines for the loads that are left, as long as a kind has room.

    Machines that jobs fill come first, by the smallest unused part and then by the order given. For the last jobs, one
    large machine is compared with the smaller ones that would do: the choice that leaves least unused wins, and
    among equals the one with fewer machines. Where the price decides, what jobs get is to cost least in both cases.
    """
    stands = [_Stand(kind, loads) for kind in kinds]
    while True:
        found = (stand.choice() for stand in stands if room(stand.kind) > 0)
        best = _best([choice for choice in found if choice is not None], room)
        if best is None:
            return
        number = min(min(load.left // jobs for load, jobs in best.jobs), room(best.kind))
        for load, jobs in best.jobs:
            load.put(stage, jobs * number)
        take(best.kind, number)


def _best(choices: list[Choice], room: Room) -> Choice | None:
    if not choices:
        return None
    rank = min(choice.kind.rank for choice in choices)
    choices = [choice for choice in choices if choice.kind.rank == rank]
    priced = [choice for choice in choices if choice.kind.price is not None]
    if not priced or len(priced) == len(choices):
        return _best_of(choices, room)
    # Groups that choose in different ways: each finds its own best, of which none is compared by what it costs.
    plain = [choice for choice in choices if choice.kind.price is None]
    both = [best for best in (_best_of(priced, room), _best_of(plain, room)) if best is not None]
    return min(both, key=lambda choice: choice.standing[1:], default=None)


def _best_of(choices: list[Choice], room: Room) -> Choice | None:
    full = min((choice for choice in choices if not choice.last), key=lambda choice: choice.standing, default=None)
    last = min((choice for choice in choices if choice.last), key=lambda choice: choice.last_standing, default=None)
    if full is None or last is None:
        return full or last
    rivals = [choice.kind for choice in choices]
    smaller = _waste_with(full.kind, [load for load, _ in last.jobs], rivals, room)
    return full if smaller is not None and round(smaller - last.waste, _DIGITS) < 0.0 else last


def _one_machine(kind: Kind, loads: Sequence[Load]) -> Choice | None:
    """What one machine of the kind would run: the largest jobs first. None when it can run nothing of it.

    The loads are those that it could run.
    """
    free, slots = kind.whole, kind.slots
    jobs: list[tuple[Load, int]] = []
    beside: tuple[Load, int] | None = None
    for load in loads:
        need, left = load.need, load.left
        if not left:
            continue
        if slots is not None:
            number = min(slots, left)
        elif need[0] > free[0] or need[1] > free[1] or need[2] > free[2] or need[3] > free[3]:
            number = 0
        else:
            number = min(times(free, need), left)
        if number < left and beside is None:
            beside = (load, number)
        if number:
            jobs.append((load, number))
            free = less(free, need, number)
            slots = None if slots is None else slots - number
            if beside is not None and (slots == 0 or not any(free)):
                break
    return Choice(kind, jobs, free[0] + free[3], beside) if jobs else None


def _waste_with(first: Kind, loads: Sequence[Load], kinds: Sequence[Kind], room: Room) -> float | None:
    """What would be lost if these jobs got machines of ``first`` before others; None if that does not place all."""
    rest = [Load(load.need, load.runs_on, [], load.left) for load in loads]

    def one(kind: Kind) -> Choice | None:
        return _one_machine(kind, [load for load in rest if kind.key in load.runs_on])

    waste, available = 0.0, room(first)
    choice = one(first)
    while choice is not None:
        number = min(load.left // jobs for load, jobs in choice.jobs)
        available -= number
        if available < 0:
            return None
        waste += choice.waste * number
        for load, jobs in choice.jobs:
            load.left -= jobs * number
        rest = [load for load in rest if load.left]
        if not rest:
            return waste
        options = [option for kind in kinds if (option := one(kind)) is not None]
        filled = [option for option in options if not option.last]
        choice = min(filled or options, key=lambda option: option.last_standing, default=None)
    return None
