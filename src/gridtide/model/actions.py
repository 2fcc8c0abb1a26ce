"""What the planner decides, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, QueueName, WorkerId, Zone
from gridtide.model.reasons import Reason
from gridtide.model.resources import Shape
from gridtide.model.snapshot import GroupMemory, QueueMemory
from gridtide.model.workers import WorkerState


@dataclass(frozen=True, slots=True)
class Launch:
    """Record ``count`` intents; the controller names the workers."""

    group: GroupName
    cloud: CloudName
    shape: Shape
    zone: Zone | None
    generation: Generation
    single_use: bool
    count: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Advance:
    """Evidence has moved a worker on. ``machine`` is set when the evidence is the machine itself."""

    worker: WorkerId
    before: WorkerState
    after: WorkerState
    reason: Reason
    machine: MachineId | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask the queue to give the worker no more jobs (JOINED -> DRAINING first)."""

    worker: WorkerId
    reason: Reason


@dataclass(frozen=True, slots=True)
class Undrain:
    """Take the drain back (-> JOINED first, then the queue is asked; if it refuses, it lists a draining one)."""

    worker: WorkerId
    reason: Reason


@dataclass(frozen=True, slots=True)
class Terminate:
    """End the worker's machine (state -> TERMINATING first; repeated while it is TERMINATING)."""

    worker: WorkerId
    before: WorkerState
    reason: Reason


@dataclass(frozen=True, slots=True)
class TerminateStray:
    """End a machine that carries our tag but belongs to no living worker, or is the second one of its worker."""

    cloud: CloudName
    machine: MachineId
    worker: WorkerId
    reason: Reason


Action = Launch | Advance | Drain | Undrain | Terminate | TerminateStray


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a group is with replacing workers of an older generation. Capacities are cores."""

    present: int
    """Workers of the present generation that take jobs."""
    over_old: int
    """Those still to be replaced, in any state."""
    capacity: float
    """Of all workers that go on taking jobs."""
    wanted: float
    """What the group would keep if there were nothing to replace."""
    why: Reason
    """What was done in this cycle, or what is waited for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The planner's whole answer.

    ``why_worker`` says of every worker, ``why_group`` of every group, and ``why_demand`` of every waiting shape
    (queue name, label) why it is as it is. ``look_again`` is when a timer that the plan depends on runs out.
    """

    actions: tuple[Action, ...] = ()
    why_worker: Mapping[WorkerId, Reason] = field(default_factory=lambda: MappingProxyType({}))
    why_group: Mapping[GroupName, Reason] = field(default_factory=lambda: MappingProxyType({}))
    why_demand: Mapping[tuple[str, str], Reason] = field(default_factory=lambda: MappingProxyType({}))
    memory: Mapping[GroupName, GroupMemory] = field(default_factory=lambda: MappingProxyType({}))
    look_again: float | None = None
    rollouts: Mapping[GroupName, Rollout] = field(default_factory=lambda: MappingProxyType({}))
    """Of groups that have something to replace."""
    queue_memory: Mapping[QueueName, QueueMemory] = field(default_factory=lambda: MappingProxyType({}))
    """To be handed back in the next cycle, like ``memory``."""
