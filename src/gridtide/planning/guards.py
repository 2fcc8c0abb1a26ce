"""An implausible change needs a second reading (DESIGN 1.2, 1.3).

A collector that was restarted answers "no nodes" with success; an API behind a broken filter answers "no machines".
Such an answer is complete and well formed, so only its contrast to the last one shows it. It is held back as
:class:`~gridtide.model.readings.Unconfirmed` until a second answer agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from itertools import compress
from operator import attrgetter, is_not
from typing import Final, TypeVar

from gridtide.model.demand import Demand, Node, Nodes, NodeState
from gridtide.model.ids import MachineId, WorkerId
from gridtide.model.machines import Machine, Machines, MachineState
from gridtide.model.readings import Fresh, Reading, Unconfirmed, last_known

T = TypeVar("T")
K = TypeVar("K")

CONFIRM_AFTER: Final = 2.0
"""Seconds between the starts of the doubtful answer and of the one that may confirm it. Smaller: both may come from the
same broken moment of the source. Larger: a real change is acted on later."""

SUDDENLY_NONE: Final = 10
"""From this many waiting jobs to none at all is doubted. Smaller: every short queue that runs empty, which happens all
day, waits for a second reading. Larger: a queue without memory is believed, and idle workers (never busy ones) go."""

_NAME: Final[attrgetter[str]] = attrgetter("name")
_ID: Final[attrgetter[MachineId]] = attrgetter("id")
_OVER: Final = (MachineState.ENDING, MachineState.GONE)

Doubt = Callable[[T, T], str | None]
"""(what was believed, what is answered) -> what is implausible about it, or None."""


def believe(before: Reading[T], answer: Fresh[T], doubt: Doubt[T]) -> Reading[T]:
    """What to make of a new answer, given what was held before.

    The first answer of all is believed: there is nothing to compare it with, and nothing was learnt from before. An
    implausible one is believed when an earlier one, begun at least :data:`CONFIRM_AFTER` seconds before, already said
    so, and the newer is not implausible as its successor. The result's ``started`` is that of the first
    answer of a row of doubtful ones, so that frequent readings do not put the confirmation off.
    """
    last_good = last_known(before)
    if last_good is None:
        return answer
    words = doubt(last_good.value, answer.value)
    if words is None:
        return answer
    if isinstance(before, Unconfirmed) and doubt(before.value, answer.value) is None:
        if answer.started >= before.started + CONFIRM_AFTER:
            return answer
        return Unconfirmed(answer.value, last_good, before.started, answer.finished, words)
    return Unconfirmed(answer.value, last_good, answer.started, answer.finished, words)


def believe_nodes(
    before: Reading[Nodes], answer: Fresh[Nodes], leaving: Container[WorkerId | None] = ()
) -> Reading[Nodes]:
    """Nodes that vanish in numbers are doubted. ``leaving`` are workers that are being ended: theirs may vanish."""

    def doubt(last: Nodes, now: Nodes) -> str | None:
        if last is now:
            return None
        if _same_first(last, now, _NAME):
            return None
        listed = set(map(_NAME, now))
        if listed.issuperset(map(_NAME, last)):
            return None
        return _vanished(last, lambda node: node.name not in listed, stays, lambda node: node.running > 0, "node")

    def stays(node: Node) -> bool:
        return node.worker not in leaving and (node.state is not NodeState.DRAINED or node.running > 0)

    return believe(before, answer, doubt)


def believe_machines(
    before: Reading[Machines], answer: Fresh[Machines], leaving: Container[WorkerId | None] = ()
) -> Reading[Machines]:
    """Machines that vanish in numbers are doubted. ``leaving`` are workers that are being ended: theirs may vanish."""

    def doubt(last: Machines, now: Machines) -> str | None:
        if _same_first(last, now, _ID):
            return None
        listed = set(map(_ID, now))
        if listed.issuperset(map(_ID, last)):
            return None
        return _vanished(last, lambda machine: machine.id not in listed, stays, _runs, "machine")

    def stays(machine: Machine) -> bool:
        return machine.worker not in leaving and machine.state not in _OVER

    return believe(before, answer, doubt)


def believe_demand(before: Reading[Demand], answer: Fresh[Demand]) -> Reading[Demand]:
    """Many waiting jobs that are none at once are doubted.

    A wrong zero is little harm (it restarts the debounce, and idle workers that are due are drained), and so is doubt
    about a right one (two seconds more before such a drain; any job that comes ends it). So only the clear case counts.
    """

    def doubt(last: Demand, now: Demand) -> str | None:
        were = sum(row.count for row in last)
        if were >= SUDDENLY_NONE and not any(row.count for row in now):
            return f"{were} jobs waited, and suddenly none does"
        return None

    return believe(before, answer, doubt)


def _same_first(last: Sequence[K], now: Sequence[K], name: Callable[[K], str]) -> bool:
    """Whether the same ones are listed, with more at the end perhaps: that is how most answers are."""
    others = compress(zip(last, now, strict=False), map(is_not, last, now))
    return len(last) <= len(now) and all(name(one) == name(other) for one, other in others)


def _runs(machine: Machine) -> bool:
    return machine.state is MachineState.RUNNING


def _vanished(
    last: Sequence[K], gone: Callable[[K], bool], stays: Callable[[K], bool], works: Callable[[K], bool], noun: str
) -> str | None:
    """What there is to doubt, where some of ``last`` are gone. ``stays``: whether one should still be there."""
    missing = sum(stays(each) for each in last if gone(each))
    if not missing:
        return None
    staying = [each for each in last if stays(each)]
    many = missing >= 2 and 2 * missing > len(staying)
    all_at_work = missing == len(staying) and any(works(each) for each in staying)
    if many or all_at_work:
        return f"{missing} of {len(staying)} {noun}s are suddenly not listed"
    return None
