"""Jobs and nodes of the fake batch system, as they really are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gridtide.model.demand import Attribute, Node
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources

Requirement = Callable[[Mapping[str, Attribute]], bool]
"""What a job asks of a machine's attributes."""


class FakeJobState(StrEnum):
    """Where a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


@dataclass(slots=True)
class FakeJob:
    """A job as it really is."""

    id: str
    need: Resources
    duration: float
    submitted: float
    label: str
    requirement: Requirement | None
    walltime: float | None
    state: FakeJobState = FakeJobState.WAITING
    node: str | None = None
    started: float | None = None
    ended: float | None = None
    starts: int = 0
    """How often it was started: more than once means that a run of it was lost."""


@dataclass(slots=True)
class FakeNode:
    """A node as it really is."""

    name: str
    worker: WorkerId | None
    attributes: Mapping[str, Attribute]
    total: Resources
    free: Resources
    idle_since: float | None
    single_use: bool = False
    own_will: bool = False
    """It drains by itself, for good: its only job was given, or its agent decided so."""
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    ordered: bool = False
    """A drain that was ordered has taken effect."""
    drain_pending: bool = False
    """One was ordered and has not taken effect yet."""
    orders: int = 0
    """Number of drain and undrain orders: an acknowledgement of an older order is void."""
    listed_from: float = 0.0
    silent_since: float | None = None
    """Out of contact: cut off, or dead without the queue's knowing."""
    last_seen: Node | None = None
    """What is listed of it while it is silent."""
    dead: bool = False
    unreported: list[tuple[FakeJob, float]] = field(default_factory=list)
    """Jobs that ended while it was cut off, and when."""

    @property
    def draining(self) -> bool:
        """Whether it takes no new job."""
        return self.ordered or self.own_will


def kind_of(attributes: Mapping[str, Attribute]) -> str:
    """Nodes with the same attributes are of one kind."""
    return repr(sorted(attributes.items()))
