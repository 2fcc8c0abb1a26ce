"""What a model of another autoscaler sees and says. Each is a pure step: what it sees and remembers -> what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import NamedTuple, TypeVar

from gridtide.model.ids import WorkerId
from gridtide.model.resources import Shape
from gridtide.sim.batch import Amount

M = TypeVar("M")


class Idle(NamedTuple):
    """A machine that has joined, takes jobs and runs none."""

    worker: WorkerId
    since: float


class InUse(NamedTuple):
    """A machine that has joined and takes jobs."""

    worker: WorkerId
    used: int
    """Cores that are given to jobs."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The same batch system and cloud as Gridtide's controller sees, as far as any of the models looks at them."""

    now: float
    """Seconds since 1970."""
    shapes: tuple[Shape, ...]
    """What may be launched, the largest first."""
    waiting: tuple[tuple[Amount, int], ...]
    """Waiting jobs by what they need, and how many."""
    running: int
    """Cores of running jobs."""
    joined: int
    """Machines that take jobs."""
    starting: tuple[Shape, ...]
    """Machines that were asked for and have not joined."""
    idle: tuple[Idle, ...]
    """The longest idle first."""
    in_use: Callable[[], tuple[InUse, ...]]
    """All that take jobs, the least used first; sorted only when it is asked for."""

    @property
    def machine(self) -> Shape:
        """The one size that most of the models know."""
        return self.shapes[0]

    @property
    def cores(self) -> int:
        """Of one machine."""
        return max(self.machine.resources.cores, 1)

    @property
    def load(self) -> int:
        """Cores of jobs that wait or run."""
        return self.running + sum(need[0] * count for need, count in self.waiting)

    @property
    def wanted(self) -> int:
        """Machines that the load would fill."""
        return ceil(self.load / self.cores)

    @property
    def capacity(self) -> int:
        """Machines that take jobs, or will."""
        return self.joined + len(self.starting)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done now. A machine that runs a job is never ended, whatever is said here."""

    launch: tuple[Shape, ...] = ()
    end: tuple[WorkerId, ...] = ()
    """Idle machines."""
    drain: tuple[WorkerId, ...] = ()
    """Take no more jobs, and end when the last one is over."""


Rule = Callable[[Sight], Decision]
"""One autoscaler in one run."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A model."""

    name: str
    every: float
    """Seconds between two looks."""
    rule: Callable[[], Rule]
    """A fresh one, for one run."""


def remembering(step: Callable[[Sight, M], tuple[Decision, M]], start: M) -> Callable[[], Rule]:
    """Rules that hand a step what it remembered the last time."""

    def fresh() -> Rule:
        memory = start

        def rule(sight: Sight) -> Decision:
            nonlocal memory
            decision, memory = step(sight, memory)
            return decision

        return rule

    return fresh


def towards(sight: Sight, target: int) -> Decision:
    """So many machines: new ones of the one size, or fewer by those that are idle, the longest first."""
    missing = target - sight.capacity
    if missing >= 0:
        return Decision(launch=(sight.machine,) * missing)
    return Decision(end=tuple(each.worker for each in sight.idle[:-missing]))


def lacking(sight: Sight) -> list[tuple[Amount, int]]:
    """What jobs would take of new machines of the one size, and of how many in a row the same: first fit, the largest
    jobs first. Room of machines that are starting is filled before.
    """
    starting: _Rooms = [(room, len(list(alike))) for room, alike in groupby(map(_amount, sight.starting))]
    whole = _amount(sight.machine)
    new: _Rooms = []
    for need, count in sorted(sight.waiting, reverse=True):
        each = _times(whole, need)
        if not each:
            continue
        starting, left = _fill(starting, need, count)
        new, left = _fill(new, need, left)
        new += _fill([(whole, -(-left // each))], need, left)[0]
    return [(_less(whole, room, 1), number) for room, number in new]


_Rooms = list[tuple[Amount, int]]
"""What is free, and on how many machines in a row. By a few of these, since thousands of jobs are of a few kinds."""


def _fill(rooms: _Rooms, need: Amount, count: int) -> tuple[_Rooms, int]:
    """First fit of so many jobs: what is free then, and how many found no place."""
    after: _Rooms = []
    for room, number in rooms:
        each = _times(room, need)
        full = min(count // each, number) if each else 0
        rest = min(count - full * each, each) if full < number else 0  # on one machine more
        after.append((_less(room, need, each), full))
        after.append((_less(room, need, rest), 1 if rest else 0))
        after.append((room, number - full - (1 if rest else 0)))
        count -= full * each + rest
    return [run for run in after if run[1]], count


def _amount(shape: Shape) -> Amount:
    resources = shape.resources
    return (resources.cores, resources.memory, resources.disk, resources.gpus)


def _times(room: Amount, need: Amount) -> int:
    """How many such jobs fit; a job that needs nothing fits once."""
    return min((have // want for have, want in zip(room, need, strict=True) if want), default=1)


def _less(room: Amount, need: Amount, times: int) -> Amount:
    return (room[0] - times * need[0], room[1] - times * need[1], room[2] - times * need[2], room[3] - times * need[3])


def smallest(shapes: Iterable[Shape], need: Amount) -> Shape | None:
    """The cheapest shape that covers it, of equals the smallest."""
    able = [shape for shape in shapes if all(h >= n for h, n in zip(_amount(shape), need, strict=True))]
    return min(able, key=lambda shape: (shape.price, shape.resources.cores, shape.name), default=None)
