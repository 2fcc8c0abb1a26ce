"""What a workload is replayed on: groups, policies and limits from a site file, and how its clouds and queue behave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from types import MappingProxyType
from typing import Final

from gridtide.control.assembly import Timing
from gridtide.control.sources import Rhythm
from gridtide.errors import SiteFileError
from gridtide.model.demand import Attribute
from gridtide.model.ids import CloudName, Generation, GroupName, QueueName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import CloudRules, GroupRules, LoadPolicy, Policy, QueuePolicy, SchedulePolicy, SiteRules
from gridtide.sim.batch import Order, Placement
from gridtide.sim.cloud import CloudModel
from gridtide.sim.faults import Fault
from gridtide.sim.trace import Skip, Trace, TraceJob

STEP: Final = 30.0
"""Seconds. The queue is looked at so often while something happens in it. Less is closer to a site that looks every
five seconds, and takes longer to simulate; a job that has to wait waits for half of it more."""

STANDARD_PRICE: Final = 0.05
"""Per core and hour, of the standard setting: of the order of what public clouds ask."""

_ATTRIBUTES: Final[Mapping[str, Attribute]] = MappingProxyType({"Arch": "X86_64", "OpSys": "LINUX"})
_PER_CORE: Final = Resources(1, 4096, 20_480)
_STANDARD_CORES: Final = (8, 4, 2, 1)
_SIGN_OF_LIFE: Final = 300.0


@dataclass(frozen=True, slots=True)
class Setting:
    """All that a run depends on, beside the workload and the seed."""

    name: str
    rules: SiteRules
    queue: QueueName
    """The one that the workload goes to. Groups of other queues are left out."""
    clouds: Mapping[CloudName, CloudModel]
    step: float = STEP
    order: Order = Order.FIRST_FIT
    placement: Placement = Placement.FULLEST
    contact_timeout: float = 300.0
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: _ATTRIBUTES)
    baseline: str | None = None
    """The model of another autoscaler that decides (:mod:`gridtide.sim.baselines`); None: Gridtide."""
    faults: tuple[Fault, ...] = ()

    @property
    def groups(self) -> tuple[GroupRules, ...]:
        """Those that serve the queue."""
        return tuple(group for group in self.rules.groups.values() if group.queue == self.queue)

    @property
    def by_the_hour(self) -> bool:
        """Whether it matters at what time of the day the workload begins."""
        return any(isinstance(group.policy, SchedulePolicy) for group in self.groups)

    @property
    def heartbeat(self) -> float:
        """Seconds between signs of life: every five minutes, but twice in whatever goes by them."""
        periods = [min(group.lease / 2, _SIGN_OF_LIFE) for group in self.groups]
        for policy in (group.policy for group in self.groups):
            followed = policy.follow if isinstance(policy, SchedulePolicy) else policy
            if isinstance(followed, LoadPolicy):
                periods.append(max(min(followed.heard_within, followed.high_for, followed.low_for), 2.0) / 2)
        return min(periods, default=_SIGN_OF_LIFE)

    def shapes_of(self, group: GroupRules) -> tuple[Shape, ...]:
        """What the group may launch."""
        every = (shape for cloud in group.clouds for shape in self.clouds[cloud].shapes)
        return tuple(shape for shape in every if not group.shapes or shape.name in group.shapes)

    def following(self, name: str, policy: Policy) -> Setting:
        """With this policy of that name in the place of each group's own."""
        groups = {key: replace(group, policy=policy) for key, group in self.rules.groups.items()}
        return replace(self, name=f"{self.name}, {name}", rules=replace(self.rules, groups=groups))

    def timing(self) -> Timing:
        """The controller's rhythm, stretched to the step of the simulation.

        A queue that has no news is not read again for five minutes (:class:`gridtide.sim.run.Simulation` tells of
        news); what happens within a sixth of a step is looked at together.
        """
        watchful = bool(self.faults) or any(model.reclaim or model.outages for model in self.clouds.values())
        return Timing(
            batch=self.step / 6,
            queue=Rhythm(every=max(300.0, self.step), spacing=self.step / 2, deadline=10.0),
            cloud=Rhythm(every=2 * self.step if watchful else max(600.0, self.step), spacing=self.step, deadline=20.0),
            shapes=Rhythm(every=300.0 if self.faults else 86_400.0, spacing=60.0, deadline=20.0),
        )


def standard_setting(
    name: str = "standard", *, cores: Iterable[int] = _STANDARD_CORES, policy: Policy | None = None
) -> Setting:
    """One group on one cloud: shapes of 8, 4, 2 and 1 cores, priced by the core; policy ``queue`` unless given."""
    shapes = tuple(
        Shape(ShapeName(f"{number}core"), _PER_CORE.times(number), STANDARD_PRICE * number) for number in cores
    )
    cloud, group, queue = CloudName("cloud"), GroupName("grid"), QueueName("pool")
    rules = SiteRules(
        name=name,
        groups={
            group: GroupRules(
                name=group,
                queue=queue,
                clouds=(cloud,),
                shapes=(),
                generation=Generation("simulated"),
                minimum=0,
                maximum=100_000,
                policy=QueuePolicy() if policy is None else policy,
            )
        },
        clouds={cloud: CloudRules(cloud, Quota(), 0.0)},
        queues=(queue,),
    )
    return Setting(name, rules, queue, {cloud: CloudModel(shapes)})


def fitted(trace: Trace, setting: Setting) -> Trace:
    """The workload as the site can run it: memory in coarse steps, jobs that fit on no machine left out and counted.

    SiteFileError when none fits.
    """
    groups = {str(group.name): setting.shapes_of(group) for group in setting.groups}
    every = tuple(shape for shapes in groups.values() for shape in shapes)
    fits: dict[tuple[object, ...], bool] = {}
    kept: list[TraceJob] = []
    for job in trace.jobs:
        key = (*job[3:7], job.group)
        if key not in fits:
            need = coarse(job).need
            shapes = groups.get(job.group, ()) if job.group else every
            fits[key] = any(shape.resources.covers(need) for shape in shapes)
        if fits[key]:
            kept.append(coarse(job) if job.memory or job.disk else job)
    left_out = len(trace.jobs) - len(kept)
    if not left_out:
        return replace(trace, jobs=tuple(kept))
    if not kept:
        raise SiteFileError(
            f"no job of {trace.name} fits on a machine of this site",
            where=setting.name,
            remedy="name larger shapes, or a group of the jobs' name",
        )
    skipped = {**trace.skipped, Skip.TOO_LARGE: trace.skipped.get(Skip.TOO_LARGE, 0) + left_out}
    return replace(trace, jobs=tuple(kept), skipped=skipped)


def coarse(job: TraceJob) -> TraceJob:
    """Memory and disk rounded up, by an eighth at most: a log has as many figures as jobs, a queue must not."""
    return job._replace(memory=_rounded(job.memory), disk=_rounded(job.disk))


def _rounded(amount: int) -> int:
    step = max(1, 1 << max(amount.bit_length() - 4, 0))
    return ceil(amount / step) * step
