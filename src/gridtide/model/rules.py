"""What the site file says, as plain values for the planner. ``gridtide.site`` makes them; nothing else does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gridtide.model.costs import Billing, Budget, Choose
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, Generation, GroupName, QueueName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.workers import Worker


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """Follow the queue. With the defaults: one look, no waiting, as many machines as the waiting jobs fill.

    The five parameters are elastiq's (seeds-digest section 5), whose own defaults were 10, 100 s, 4, 3600 s, 600 s.
    """

    threshold: int = 0
    """Start workers only when more than this many jobs wait."""
    waiting_time: float = 0.0
    """... and have done so without a break for this many seconds."""
    jobs_per_worker: int | None = None
    """None: computed from the shapes."""
    idle_for: float = 300.0
    """Seconds without a job before a worker is drained."""
    deploy_time: float | None = None
    """A worker that was requested longer ago than this and has not joined no longer counts against demand
    (it counts against the maximum until it is gone). None: it counts until its join deadline."""


@dataclass(frozen=True, slots=True)
class PerJobPolicy:
    """One single-use worker for each waiting job (AliEC2, seeds-digest section 1)."""

    idle_for: float = 300.0
    """A single-use worker that got no job for so long is drained: its job was cancelled or ran elsewhere."""


@dataclass(frozen=True, slots=True)
class FixedPolicy:
    """A constant number of workers, whatever waits."""

    count: int


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """Follow the mean load of the group's workers, as an orchestrator follows an alarm (seeds-digest section 2).

    Loads are parts of a worker's cores, from 0 to 1. The defaults are those of the source document.
    """

    high: float = 0.5
    """Above this mean load workers are added ..."""
    high_for: float = 60.0
    """... once it has been above it for this many seconds without a break."""
    low: float = 0.1
    """Below this mean load idle workers are given back ..."""
    low_for: float = 60.0
    """... once it has been below it for this many seconds without a break."""
    cooldown: float = 60.0
    """Seconds after a change in which nothing else is changed."""
    add: int = 1
    """How many workers one alarm adds."""
    remove: int = 1
    """How many workers one alarm gives back at most."""
    heard_within: float = 60.0
    """A heartbeat older than this many seconds says nothing of the load any more."""


@dataclass(frozen=True, slots=True)
class Window:
    """A time that comes back, and what holds in it. None: as outside of it."""

    begins: str
    """Five fields of cron, in the policy's time zone."""
    lasts: float
    """Seconds."""
    minimum: int | None = None
    maximum: int | None = None
    desired: int | None = None
    """A pinned number of workers, whatever waits."""
    warm: int | None = None
    """So many workers more than run jobs are kept ready."""


@dataclass(frozen=True, slots=True)
class SchedulePolicy:
    """Another policy whose minimum, maximum or number changes with the hour."""

    windows: tuple[Window, ...]
    """Where several are open, the later one counts, figure by figure."""
    zone: str = "UTC"
    """Name of the time zone in which windows begin."""
    follow: Policy = QueuePolicy()
    """What is followed within these figures. Not another schedule."""
    warm: int = 0
    """Workers kept ready outside of all windows."""


@dataclass(frozen=True, slots=True)
class TidePolicy:
    """Follow the queue with machines no larger than they must be, some ahead of the jobs, and no more idle ones than
    the load is likely to want again."""

    idle_for: float = 1800.0
    """Seconds without a job after which a worker is drained at the latest."""
    ahead: float = 0.05
    """At most this part of the cores that jobs use is kept free for jobs to come. 0: nothing is launched ahead."""
    spread: int = 10
    """No machine has more than one of so many parts of the cores that are being launched, where smaller ones will do.
    1: machines as large as jobs fill."""
    wait_worth: float = 8.0
    """Seconds of an idle core that a second of a waiting one is worth. Smaller: jobs wait for boots more often. Larger:
    more cores are idle, and where jobs come seldom many more. 0: as cheap as can be."""


class OtherPolicy:
    """A policy of another package: :class:`gridtide.planning.policies.PlugInPolicy` says what it can do."""

    __slots__ = ()


Policy = QueuePolicy | PerJobPolicy | FixedPolicy | LoadPolicy | SchedulePolicy | TidePolicy | OtherPolicy


@dataclass(frozen=True, slots=True)
class GroupRules:
    """One group of the site file."""

    name: GroupName
    queue: QueueName
    clouds: tuple[CloudName, ...]
    """In order of preference."""
    shapes: tuple[ShapeName, ...]
    """In order of preference; empty: every shape that the cloud offers."""
    generation: Generation
    minimum: int
    maximum: int
    policy: Policy
    join_deadline: float | None = None
    """Seconds from launch to join after which a worker is given up. None: learned from the boots before."""
    lease: float = 600.0
    """Seconds without contact after which a worker must drain itself."""
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: MappingProxyType({}))
    """What its workers advertise to the queue."""
    image: str | None = None
    """What its machines boot from; None on clouds without images."""
    share: float = 1.0
    """Its weight beside other groups where a cloud's quota does not hold what all of them want. More than 0."""
    choose: Choose = Choose.ORDER
    price_limit: float | None = None
    """Highest price per core and hour of a machine that is launched. None: any price."""


@dataclass(frozen=True, slots=True)
class CloudRules:
    """One cloud of the site file, as far as planning is concerned."""

    name: CloudName
    quota: Quota
    settle: float
    """Seconds for which a machine that was made may be missing from the cloud's listing. Too small a value
    makes a lost answer look like a refused launch."""
    billing: Billing = field(default_factory=Billing)
    budget: Budget | None = None
    """None: it may charge whatever it does."""


@dataclass(frozen=True, slots=True)
class SiteRules:
    """All of it."""

    name: str
    groups: Mapping[GroupName, GroupRules]
    clouds: Mapping[CloudName, CloudRules]
    queues: tuple[QueueName, ...]
    warmup: float = 60.0
    """Seconds after the start for which a group waits for the first reading of *each* of its clouds; afterwards
    a cloud that has never answered only blocks what depends on it. Its queue is always waited for."""

    def queue_of(self, worker: Worker) -> QueueName | None:
        """The queue whose jobs the worker runs. One that is not among the queues any more may have another name now:
        its group's is taken for it. None when there is no such group either."""
        if worker.queue in self.queues:
            return worker.queue
        group = self.groups.get(worker.group)
        return None if group is None else group.queue

    def group_of(self, worker: Worker) -> GroupRules | None:
        """The group that the worker works for; None when there is none of its name, or that has another queue now."""
        group = self.groups.get(worker.group)
        return group if group is not None and self.queue_of(worker) == group.queue else None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What operators asked of a group; kept in the store. None: as in the site file."""

    minimum: int | None = None
    maximum: int | None = None
    desired: int | None = None
    """A pinned number of workers: demand is ignored until it is taken back."""
    hold: bool = False
    """Launch nothing and drain nothing."""
    closing: bool = False
    """Launch nothing, drain everything (``gridtide down``)."""
    rollout_paused: bool = False
    """Leave over-old workers in place: new ones are of the new generation, none is replaced for its age."""
