"""Free room, sorted so that a kind of jobs finds what it fits into without looking at every machine.

With thousands of nodes that all have different room left, comparing each kind of jobs with each node would take
seconds. Here only rooms with enough cores and memory are looked at, the tightest first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gridtide.planning.fitting import Amount, Bin, Load

_Place = tuple[bool, object]
"""Whether nodes are of others; and their offer or their kind."""

_Entry = tuple[int, int, int, int, int, "Bin"]
"""Free cores, memory, disk, GPUs; a number that decides among equals; the bin."""

OTHERS: Final = 0
"""Nodes of others come first: what only our machines can run must find ours free."""
WORKING: Final = 1
"""Then machines that nobody could drain."""
IDLE: Final = 2


def tier_of(bin_: Bin) -> int:
    """Which bins are used first."""
    if bin_.foreign:
        return OTHERS
    return IDLE if bin_.members else WORKING


class _Shelf:
    """Bins of one place."""

    def __init__(self) -> None:
        self._levels: dict[int, list[_Entry]] = {}
        """By free cores, each by free memory."""
        self._cores: list[int] = []
        """Its keys in order."""
        self._slotted: list[_Entry] = []
        """Those where resources do not matter."""

    def add(self, entry: _Entry) -> None:
        """One bin more."""
        insort(self._row(entry), entry)

    def remove(self, entry: _Entry) -> None:
        """It is used up, or has become another one."""
        row = self._row(entry)
        del row[bisect_left(row, entry)]

    def _row(self, entry: _Entry) -> list[_Entry]:
        if entry[5].slots is not None:
            return self._slotted
        row = self._levels.get(entry[0])
        if row is None:
            row = self._levels[entry[0]] = []
            insort(self._cores, entry[0])
        return row

    def fitting(self, need: Amount) -> Iterator[_Entry]:
        """Those with room for at least one job, the tightest first."""
        if not self._slotted:
            return self._roomy(need)
        return merge(self._roomy(need), (entry for entry in self._slotted if entry[5].slots))

    def _roomy(self, need: Amount) -> Iterator[_Entry]:
        cores, memory, disk, gpus = need
        for place in range(bisect_left(self._cores, cores), len(self._cores)):
            level = self._levels[self._cores[place]]
            for number in range(bisect_left(level, memory, key=_memory), len(level)):
                entry = level[number]
                if entry[2] >= disk and entry[3] >= gpus:
                    yield entry


def _memory(entry: _Entry) -> int:
    return entry[1]


class Shelves:
    """All bins of one stage of planning."""

    def __init__(self, bins: Iterable[Bin]) -> None:
        self._numbers = count()
        self._shelves: tuple[dict[_Place, _Shelf], ...] = ({}, {}, {})
        self._bins: dict[int, Bin] = {}
        for bin_ in bins:
            self._add(bin_)

    def _add(self, bin_: Bin) -> None:
        number = next(self._numbers)
        self._bins[number] = bin_
        self._shelf(bin_).add((*bin_.free, number, bin_))

    def _shelf(self, bin_: Bin) -> _Shelf:
        place: _Place = (bin_.foreign, bin_.kind if bin_.foreign else bin_.key)
        shelves = self._shelves[tier_of(bin_)]
        shelf = shelves.get(place)
        if shelf is None:
            shelf = shelves[place] = _Shelf()
        return shelf

    def put(self, load: Load, stage: str) -> None:
        """Give the load's jobs a place, as far as there is one."""
        for shelves in self._shelves:
            mine = [shelf for place, shelf in shelves.items() if _open(place, load)]
            changed: list[tuple[_Entry, list[Bin]]] = []
            for entry in merge(*(shelf.fitting(load.need) for shelf in mine)):
                changed.append((entry, entry[5].fill(load, stage)))
                if not load.left:
                    break
            for entry, parts in changed:
                self._shelf(entry[5]).remove(entry)
                del self._bins[entry[4]]
                for part in parts:
                    self._add(part)
            if not load.left:
                return

    def bins(self) -> list[Bin]:
        """As they are now."""
        return list(self._bins.values())


def _open(place: _Place, load: Load) -> bool:
    foreign, where = place
    if foreign:
        return load.node_kinds is None or where in load.node_kinds
    return where is None or where in load.runs_on
