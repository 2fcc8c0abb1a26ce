"""Waiting work, counted by shape, and the nodes of a queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gridtide.model.ids import GroupName, ShapeName, WorkerId
from gridtide.model.resources import Resources, Shape

Attribute = str | int | float | bool
OfferKey = tuple[GroupName, ShapeName]


@dataclass(frozen=True)
class Offer:
    """A machine that a group could launch, as a job's requirements see it before it exists.

    ``attributes`` are what the machine will advertise besides its resources (group, site, architecture ...).
    """

    group: GroupName
    shape: Shape
    attributes: Mapping[str, Attribute]

    @property
    def key(self) -> OfferKey:
        """What demand rows refer to."""
        return (self.group, self.shape.name)


@dataclass(frozen=True, slots=True)
class DemandRow:
    """``count`` waiting jobs that look alike to the scheduler."""

    need: Resources
    count: int
    oldest_since: float
    """When the one that waits longest began to wait."""
    runs_on: frozenset[OfferKey]
    """The offers whose machines satisfy the jobs' requirements (resources included)."""
    label: str
    """How a person would name these jobs in one line, e.g. ``1 core, 2 GiB memory; Requirements: Arch == "X86_64"``."""
    walltime: float | None = None
    """Seconds that each may run, None when the queue does not know."""
    node_kinds: frozenset[str] | None = None
    """Kinds of nodes that are not ours (:attr:`Node.kind`) which satisfy the requirements, resources left out.

    None: the queue makes no difference between nodes, so that resources alone decide. A queue with requirements and
    with nodes of others fills it, or jobs are reckoned to run where they cannot.
    """


Demand = tuple[DemandRow, ...]


class NodeState(StrEnum):
    """What the queue says of a node."""

    ACCEPTING = "accepting"
    DRAINING = "draining"
    """Takes no new job; at least one may still run."""
    DRAINED = "drained"
    """Takes no new job and runs none, says the queue."""
    UNAVAILABLE = "unavailable"
    """Listed, but down, unknown or out of contact. Not evidence of anything else."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine as the queue sees it, with all its slots."""

    name: str
    worker: WorkerId | None
    """None for nodes that are not ours; they are seen, never touched."""
    state: NodeState
    total: Resources
    free: Resources
    """What jobs could still take. Counts as supply only while ACCEPTING."""
    running: int
    """Jobs attributed to the node, from every witness the queue has. Claimed but idle slots count as running."""
    idle_since: float | None
    """Since when it runs nothing; None while it runs something or when the queue does not know."""
    kind: str | None = None
    """Of a node that is not ours: what jobs' requirements see of it, as a name that nodes which look alike share.

    Demand rows refer to it. A kind says nothing of resources and of what changes while jobs run, so that thousands of
    nodes have few kinds. None: no row that names kinds runs on it.
    """

    @property
    def used(self) -> tuple[int, int, int, int]:
        """Cores, memory, disk and GPUs that jobs have taken; none of what is free beyond the total."""
        total, free = self.total, self.free
        return (
            max(total.cores - free.cores, 0),
            max(total.memory - free.memory, 0),
            max(total.disk - free.disk, 0),
            max(total.gpus - free.gpus, 0),
        )


Nodes = tuple[Node, ...]
