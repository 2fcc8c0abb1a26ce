"""A worker, its states, and the only ways between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, QueueName, WorkerId, Zone
from gridtide.model.reasons import Reason
from gridtide.model.resources import Shape


class WorkerState(StrEnum):
    """Where a worker is in its life. Busy or idle is an observation, not a state."""

    INTENDED = "intended"
    """Recorded; no cloud was called yet."""
    LAUNCHING = "launching"
    """The cloud may have been called; whether a machine exists is not known until its answer or its listing."""
    BOOTING = "booting"
    """A machine exists; it has not joined yet."""
    JOINED = "joined"
    """It has traded its join token: it may run jobs."""
    DRAINING = "draining"
    """Told, or found, to take no new job; jobs may still run."""
    DRAINED = "drained"
    """The queue said, after the drain, that it takes no job and runs none."""
    FAILED = "failed"
    """Of no use any more, for the recorded reason; a machine may still exist."""
    TERMINATING = "terminating"
    """The cloud is asked, until it has done so, to end the machine."""
    GONE = "gone"
    """No machine exists. Final."""


_S = WorkerState

TRANSITIONS: Final[Mapping[tuple[WorkerState, WorkerState], str]] = MappingProxyType(
    {
        (
            _S.INTENDED,
            _S.LAUNCHING,
        ): "the cloud is about to be called; recorded first, so that a crash cannot lose a machine",
        (_S.INTENDED, _S.GONE): "not wanted any more, and no call was made: no machine can exist",
        (_S.LAUNCHING, _S.BOOTING): "the cloud answered with a machine, or lists one with the worker's tag",
        (_S.LAUNCHING, _S.JOINED): "the machine joined before the cloud's answer was seen",
        (
            _S.LAUNCHING,
            _S.FAILED,
        ): "the cloud refused, or its answer was lost and no machine was listed in the settling time",
        (_S.BOOTING, _S.JOINED): "the machine traded its join token",
        (
            _S.BOOTING,
            _S.FAILED,
        ): "it did not join before its deadline, or the cloud says that it is broken, stopped or gone",
        (
            _S.BOOTING,
            _S.TERMINATING,
        ): "not wanted any more before it joined; its join token is revoked in the same transaction",
        (_S.JOINED, _S.DRAINING): "a drain is ordered, or the queue says that the worker drains by itself",
        (_S.JOINED, _S.FAILED): "the cloud says that the machine is broken, stopped or gone",
        (_S.JOINED, _S.TERMINATING): "an operator forced it",
        (_S.DRAINING, _S.JOINED): "the load came back: recorded before the queue is asked, which voids older evidence",
        (_S.DRAINING, _S.DRAINED): "a reading begun after the drain lists it as drained and attributes no job to it",
        (_S.DRAINING, _S.FAILED): "the cloud says that the machine is broken, stopped or gone",
        (_S.DRAINING, _S.TERMINATING): "an operator forced it",
        (_S.DRAINED, _S.JOINED): "the same, before terminate was called",
        (_S.DRAINED, _S.TERMINATING): "drained and empty: it may be returned",
        (_S.FAILED, _S.TERMINATING): "a machine may exist: the cloud is asked to end it",
        (_S.FAILED, _S.GONE): "no machine was ever made for it",
        (_S.TERMINATING, _S.GONE): "the cloud confirmed, or a reading begun after the call lists the machine no more",
    }
)
"""Every legal transition with what justifies it. What is not here is refused, by the store too."""

HOLDS_MACHINE: Final = frozenset(WorkerState) - {_S.GONE}
"""States that count against maximum and quota: in each of them a machine exists or may exist."""

MAY_JOIN: Final = frozenset({_S.LAUNCHING, _S.BOOTING})
"""States in which a join token may be traded. Not INTENDED: no call was made, so nobody can hold the token."""

MAY_RUN_JOBS: Final = frozenset({_S.JOINED, _S.DRAINING})
"""States in which a job may be running: terminating from these takes an operator's force."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One machine of ours, from intent to end. Times are seconds since the epoch."""

    id: WorkerId
    group: GroupName
    cloud: CloudName
    shape: Shape
    zone: Zone | None
    generation: Generation
    single_use: bool
    """It takes one job and then drains by itself (policy ``per_job``)."""
    state: WorkerState
    since: float
    """When it entered ``state``."""
    created: float
    """When the intent was recorded."""
    reason: Reason
    """Why it is in this state."""
    machine: MachineId | None = None
    launched: float | None = None
    """When the launch call was about to be made."""
    joined: float | None = None
    drain_wanted: bool = False
    """An operator asked to drain this one: load does not cancel it."""
    image: str | None = None
    """What its machine was booted from; None on clouds without images."""
    force_wanted: bool = False
    """An operator takes the responsibility: end it, whatever it runs."""
    queue: QueueName | None = None
    """Its group's queue when it was made: its machine works for that one, whatever the site file says later.
    None: it was recorded before this was kept."""


def may(before: WorkerState, after: WorkerState) -> bool:
    """Whether the transition is legal."""
    return (before, after) in TRANSITIONS
