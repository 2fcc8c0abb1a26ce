"""Faults by name: what may go wrong outside of the controller, and with its process.

A fault is a value: a name, when it strikes, for how long, and how hard. It acts at the boundary of the production code
and nowhere inside: on the simulated clouds, queue, network and wall clock, and on the process of the controller
(:mod:`gridtide.sim.gate`). It strikes at a given time, at a random one, or again and again at random ones
(:mod:`gridtide.sim.injector`); chance comes from the seed of the run, so the same seed gives the same bits. What must
hold all the same is watched at every event (:mod:`gridtide.sim.watch`). docs/reference/faults.md lists them for users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from gridtide.model.ids import CloudName, ShapeName, Zone

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0


class FaultName(StrEnum):
    """What can go wrong."""

    STOCK_OUT = "stock-out"
    HALF_QUOTA = "half-quota"
    LIST_LAG = "list-lag"
    LOST_LAUNCH = "lost-launch"
    DEAD_ON_ARRIVAL = "dead-on-arrival"
    PARTITION = "partition"
    CONTROLLER_KILL = "controller-kill"
    TWO_CONTROLLERS = "two-controllers"
    CLOCK_STEP = "clock-step"
    API_429 = "api-429"
    PRICE_FLIP = "price-flip"
    SPOT_RECLAIM = "spot-reclaim"
    SILENT_QUEUE = "silent-queue"
    EMPTY_QUEUE = "empty-queue"


class Dial(StrEnum):
    """What of a fault may be set, beside its times."""

    LASTING = "for"
    CLOUD = "cloud"
    ZONE = "zone"
    SHAPE = "shape"
    SHARE = "share"
    BY = "by"


@dataclass(frozen=True, slots=True)
class Habit:
    """How a fault is unless told otherwise."""

    text: str
    """What it does."""
    dials: frozenset[Dial]
    lasting: float = 0.0
    """Seconds; 0: it strikes at one moment."""
    share: float = 1.0
    by: float = 0.0
    """Seconds."""
    every: float = _DAY
    """Mean seconds from the end of one to the start of the next among the random faults of ``--chaos``."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One that will strike. Times are seconds from the workload's start."""

    name: FaultName
    at: float | None = None
    """None, without ``every``: at a random moment of the workload."""
    every: float | None = None
    """Again and again: the mean time from the end of one to the start of the next, exponential."""
    lasting: float = 0.0
    cloud: CloudName | None = None
    """None: all of them."""
    zone: Zone | None = None
    shape: ShapeName | None = None
    share: float = 1.0
    """Of machines, calls, launches or quota, from 0 to 1."""
    by: float = 0.0
    """Seconds."""


_ON_CLOUD: Final = frozenset({Dial.LASTING, Dial.CLOUD})

HABITS: Final[Mapping[FaultName, Habit]] = MappingProxyType(
    {
        FaultName.STOCK_OUT: Habit(
            "The cloud has no room for new machines: in a zone, of a shape, or at all.",
            _ON_CLOUD | {Dial.ZONE, Dial.SHAPE},
            lasting=30 * _MINUTE,
            every=6 * _HOUR,
        ),
        FaultName.HALF_QUOTA: Habit(
            "The cloud grants only a part (`share`) of the quota that the site file knows of; without one, of what is "
            "in use.",
            _ON_CLOUD | {Dial.SHARE},
            lasting=_HOUR,
            share=0.5,
            every=12 * _HOUR,
        ),
        FaultName.LIST_LAG: Habit(
            "New machines are missing from the cloud's listing for a while (`by`).",
            _ON_CLOUD | {Dial.BY},
            lasting=30 * _MINUTE,
            by=60.0,
            every=6 * _HOUR,
        ),
        FaultName.LOST_LAUNCH: Habit(
            "Machines are made, and the answer of the launch is lost.",
            _ON_CLOUD | {Dial.SHARE},
            lasting=10 * _MINUTE,
            every=6 * _HOUR,
        ),
        FaultName.DEAD_ON_ARRIVAL: Habit(
            "A part (`share`) of the new machines is made, is charged, and never does anything.",
            _ON_CLOUD | {Dial.SHARE},
            lasting=_HOUR,
            share=0.01,
            every=_HOUR,
        ),
        FaultName.PARTITION: Habit(
            "A part (`share`) of the machines reaches neither queue nor controller. Their jobs run on.",
            _ON_CLOUD | {Dial.SHARE},
            lasting=20 * _MINUTE,
            every=12 * _HOUR,
        ),
        FaultName.CONTROLLER_KILL: Habit(
            "kill -9 of the controller at some instant. A new one starts on the same store after the time given as "
            "`for`.",
            frozenset({Dial.LASTING}),
            lasting=30.0,
            every=3 * _HOUR,
        ),
        FaultName.TWO_CONTROLLERS: Habit(
            "The controller is frozen at some instant, another one takes over, and the first goes on as if nothing had "
            "happened.",
            frozenset({Dial.LASTING}),
            lasting=10 * _MINUTE,
            every=6 * _HOUR,
        ),
        FaultName.CLOCK_STEP: Habit(
            "The wall clock of the controller's host jumps (`by`, backwards with a minus sign). The monotonic one does "
            "not.",
            frozenset({Dial.BY}),
            by=_HOUR,
            every=12 * _HOUR,
        ),
        FaultName.API_429: Habit(
            "A part (`share`) of the calls to the cloud is answered with 429, Retry-After `by`.",
            _ON_CLOUD | {Dial.SHARE, Dial.BY},
            lasting=10 * _MINUTE,
            by=30.0,
            every=6 * _HOUR,
        ),
        FaultName.PRICE_FLIP: Habit(
            "The price of each shape is doubled or halved, by lot.",
            _ON_CLOUD,
            lasting=6 * _HOUR,
            every=6 * _HOUR,
        ),
        FaultName.SPOT_RECLAIM: Habit(
            "The cloud takes a part (`share`) of its machines back, without notice.",
            frozenset({Dial.CLOUD, Dial.SHARE}),
            share=0.3,
            every=12 * _HOUR,
        ),
        FaultName.SILENT_QUEUE: Habit(
            "Nobody answers what waits and which nodes there are; orders are taken.",
            frozenset({Dial.LASTING}),
            lasting=10 * _MINUTE,
            every=6 * _HOUR,
        ),
        FaultName.EMPTY_QUEUE: Habit(
            "The queue answers, with success, that nothing waits and that it has no nodes.",
            frozenset({Dial.LASTING}),
            lasting=_MINUTE,
            every=6 * _HOUR,
        ),
    }
)
"""Every fault. A test keeps docs/reference/faults.md the same."""


def usual(name: FaultName, *, at: float | None = None, every: float | None = None) -> Fault:
    """The fault as it is unless told otherwise."""
    habit = HABITS[name]
    return Fault(name, at, every, lasting=habit.lasting, share=habit.share, by=habit.by)


def chaos(rate: float = 1.0) -> tuple[Fault, ...]:
    """All faults, again and again. ``rate``: how many times as often as usual."""
    return tuple(usual(name, every=habit.every / rate) for name, habit in HABITS.items())
