"""All that one cycle knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from gridtide.model.boots import BootKey, BootTimes
from gridtide.model.demand import Demand, Nodes
from gridtide.model.ids import CloudName, GroupName, QueueName, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machines
from gridtide.model.readings import Reading
from gridtide.model.resources import Shape
from gridtide.model.rules import Wishes
from gridtide.model.workers import Worker


@dataclass(frozen=True, slots=True)
class QueueView:
    """What is known of one queue."""

    demand: Reading[Demand]
    nodes: Reading[Nodes]


@dataclass(frozen=True, slots=True)
class OfferHealth:
    """What the breaker says of one (zone, shape) of a cloud. Offers without an entry are healthy."""

    allowed: int
    """How many launches may be tried now: 0 while it is open, 1 for the half-open probe."""
    until: float
    """When it may be probed next."""
    error: str


@dataclass(frozen=True, slots=True)
class CloudView:
    """What is known of one cloud."""

    machines: Reading[Machines]
    shapes: Reading[tuple[Shape, ...]]
    zones: tuple[Zone | None, ...] = (None,)
    """In order of preference; (None,) where the cloud has no zones."""
    health: Mapping[tuple[Zone | None, ShapeName], OfferHealth] | None = None


class Heartbeat(NamedTuple):
    """A worker's own word, from the life-cycle service. A second witness: it can forbid, never authorise.

    A tuple, since thousands are made a minute.
    """

    at: float
    running: int
    load: float
    draining: bool


@dataclass(frozen=True, slots=True)
class Rise:
    """How far the load rises within a time of some length, seen again and again."""

    since: float
    """When the present one of these times began."""
    base: float
    """Cores that were wanted then."""
    top: float
    """The most that were wanted since."""
    counts: tuple[float, ...]
    """How often it has risen how far, the latest counting most."""


@dataclass(frozen=True, slots=True)
class Level:
    """What was learned of a group's load: the cores that jobs use or wait for."""

    at: float
    """When it was last known."""
    rose: float
    """When it last rose."""
    load: float
    """Cores."""
    rises: tuple[Rise, ...]
    """Within one boot of a machine, two, four and eight."""
    unused: tuple[tuple[float, float], ...]
    """When cores were last wanted that are not any more, and how many; the latest last."""
    lulls: tuple[float, ...]
    """How many cores were wanted again after how long, the latest counting most."""


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """What a policy must remember from one cycle to the next. Lost on restart, which only makes it wait again."""

    waiting_since: float | None = None
    """Since when the number of waiting jobs has been above the threshold without a break."""
    high_since: float | None = None
    """Since when the mean load has been too high without a break."""
    low_since: float | None = None
    """Since when it has been too low without a break."""
    changed: float | None = None
    """When the load last changed the number of workers."""
    level: Level | None = None
    """How the load rises and falls."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Jobs that look alike wait, and machines that seem able to run them have room. Do they start there?"""

    since: float
    """Since when, without a break, there has been such room and none of them started."""
    count: int
    """How many waited at the last look."""
    oldest_since: float
    """Since when the oldest of these waited."""
    failures: int = 0
    """How often in a row the room was not taken."""
    until: float | None = None
    """Until when, after the last failure, these machines count as unable to run them. None: it never failed."""


TrialKey = tuple[str, GroupName | None]
"""Label of the jobs, and the group whose workers are meant; None: the nodes that are not ours."""


@dataclass(frozen=True, slots=True)
class QueueMemory:
    """What is remembered of a queue from one cycle to the next. Lost on restart, which only means to try again."""

    trials: Mapping[TrialKey, Trial] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Input of the planner, beside the site's rules. ``now`` is the only time there is."""

    now: float
    started: float
    """When this controller began to lead."""
    queues: Mapping[QueueName, QueueView]
    clouds: Mapping[CloudName, CloudView]
    workers: Mapping[WorkerId, Worker]
    """All but the GONE ones."""
    heartbeats: Mapping[WorkerId, Heartbeat]
    wishes: Mapping[GroupName, Wishes]
    memory: Mapping[GroupName, GroupMemory]
    drain_acknowledged: Mapping[WorkerId, float] = field(default_factory=lambda: MappingProxyType({}))
    """When the queue took the last drain order of a DRAINING worker. Missing: not (yet) known to have taken it.

    Only a reading begun after this may call the worker drained: before it, an older order to take a drain back may
    still be on its way, and a job could start behind a reading that looks drained and empty.
    """
    undrain_answered: Mapping[WorkerId, float] = field(default_factory=lambda: MappingProxyType({}))
    """When the queue answered the order to take a drain back, of JOINED workers with cause LOAD_RETURNED.

    Only a reading begun after this may call such a worker draining (by itself) again. Missing: not answered yet.
    """
    boot_times: Mapping[BootKey, BootTimes] = field(default_factory=lambda: MappingProxyType({}))
    """What was learned of how long machines take to join."""
    queue_memory: Mapping[QueueName, QueueMemory] = field(default_factory=lambda: MappingProxyType({}))
    """What the last plan wanted remembered of each queue."""
    ended_costs: Mapping[CloudName, Mapping[int, float]] = field(default_factory=lambda: MappingProxyType({}))
    """What machines of workers that are GONE have been charged, by cloud and number of the day: from today on."""
