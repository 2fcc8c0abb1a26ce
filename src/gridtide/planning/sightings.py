"""What the readings say of each worker, kept from one cycle to the next as far as the readings are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import is_not
from typing import Final

from gridtide.model.demand import Node, Nodes, NodeState
from gridtide.model.ids import CloudName, MachineId, QueueName, WorkerId
from gridtide.model.machines import Machine, Machines
from gridtide.model.readings import Fresh, Reading, last_known
from gridtide.model.snapshot import Snapshot

_LEAST_ENDED_FIRST: Final = (NodeState.ACCEPTING, NodeState.UNAVAILABLE, NodeState.DRAINING, NodeState.DRAINED)
"""A worker with several nodes is as far on its way out as the one that is least far."""


@dataclass(slots=True)
class Seen:
    """What the queues say of one worker: all nodes that carry its id, taken together."""

    nodes: tuple[Node, ...]
    state: NodeState
    running: int
    idle_since: float | None
    """Since when none of them runs anything."""
    started: float | None
    """When the oldest of the readings began; None when one of them is not fresh."""

    def joined_with(self, other: Seen) -> Seen:
        """Both together: no surer and no emptier than either."""
        unsure = self.started is None or other.started is None
        busy = self.idle_since is None or other.idle_since is None
        return Seen(
            nodes=self.nodes + other.nodes,
            state=min(self.state, other.state, key=_LEAST_ENDED_FIRST.index),
            running=self.running + other.running,
            idle_since=None if busy else max(self.idle_since or 0.0, other.idle_since or 0.0),
            started=None if unsure else min(self.started or 0.0, other.started or 0.0),
        )


@dataclass(slots=True)
class Listed:
    """A machine that carries a worker's id, and the cloud that lists it."""

    cloud: CloudName
    machine: Machine


@dataclass(slots=True)
class _NodesOf:
    """One queue."""

    value: Nodes = ()
    started: float | None = None
    seen: dict[WorkerId, Seen] = field(default_factory=dict)
    foreign: list[Node] = field(default_factory=list)

    def read(self, reading: Reading[Nodes], changed: set[WorkerId]) -> bool:
        """Take a reading in; whether anything is other than before. ``changed`` gets the workers of which it is."""
        known = last_known(reading)
        value = () if known is None else known.value
        started = known.started if known is not None and isinstance(reading, Fresh) else None
        if value is self.value and started == self.started:
            return False
        self.started = started
        if value is not self.value and not self._change(value, changed):
            self._index(value, changed)
        for seen in self.seen.values():
            seen.started = started
        return True

    def _change(self, value: Nodes, changed: set[WorkerId]) -> bool:
        """Take in a list of the same nodes, some of ours other than before. False: it is no such list."""
        if len(value) != len(self.value):
            return False
        pairs = list(compress(zip(self.value, value, strict=True), map(is_not, self.value, value)))
        for old, new in pairs:
            if old.name != new.name or old.worker is None or old.worker != new.worker:
                return False
            if len(self.seen[old.worker].nodes) != 1:
                return False
        for old, new in pairs:
            if old != new and new.worker is not None:
                self.seen[new.worker] = Seen((new,), new.state, new.running, new.idle_since, self.started)
                changed.add(new.worker)
        self.value = value
        return True

    def _index(self, value: Nodes, changed: set[WorkerId]) -> None:
        before, after = self.seen, dict[WorkerId, Seen]()
        self.value, self.seen, self.foreign = value, after, []
        for node in value:
            worker = node.worker
            if worker is None:
                self.foreign.append(node)
                continue
            seen = before.get(worker)
            if seen is None or len(seen.nodes) != 1 or (seen.nodes[0] is not node and seen.nodes[0] != node):
                seen = Seen((node,), node.state, node.running, node.idle_since, self.started)
                changed.add(worker)
            if worker in after:
                seen = after[worker].joined_with(seen)
                changed.add(worker)
            after[worker] = seen
        changed.update(before.keys() - after.keys())


@dataclass(slots=True)
class _MachinesOf:
    """One cloud."""

    name: CloudName
    value: Machines = ()
    listed: dict[WorkerId, list[Listed]] = field(default_factory=dict)
    untagged: set[tuple[CloudName, MachineId]] = field(default_factory=set)

    def read(self, reading: Reading[Machines], changed: set[WorkerId]) -> bool:
        """Take a reading in; whether it is another one. ``changed`` gets the workers of which it is."""
        known = last_known(reading)
        value = () if known is None else known.value
        if value is self.value:
            return False
        before, after = self.listed, dict[WorkerId, list[Listed]]()
        self.value, self.listed, self.untagged = value, after, set()
        for machine in value:
            worker = machine.worker
            if worker is None:
                self.untagged.add((self.name, machine.id))
                continue
            listed = before.get(worker)
            if listed is None or len(listed) != 1 or not _same(listed[0].machine, machine):
                listed = [Listed(self.name, machine)]
                changed.add(worker)
            if worker in after:
                listed = after[worker] + listed
                changed.add(worker)
            after[worker] = listed
        changed.update(before.keys() - after.keys())
        return True


def _same(one: Machine, other: Machine) -> bool:
    return one is other or one == other


class Sightings:
    """Of every worker, and of what belongs to none."""

    def __init__(self) -> None:
        self.seen: Mapping[WorkerId, Seen] = {}
        """What the queues say."""
        self.machines: Mapping[WorkerId, list[Listed]] = {}
        """What the clouds say."""
        self.foreign_nodes: dict[QueueName, list[Node]] = {}
        self.untagged: set[tuple[CloudName, MachineId]] = set()
        self.changed: set[WorkerId] = set()
        """Those of which the last snapshot said something else than the one before."""
        self._queues: dict[QueueName, _NodesOf] = {}
        self._clouds: dict[CloudName, _MachinesOf] = {}

    def look(self, snapshot: Snapshot) -> None:
        """Take in the next snapshot."""
        self.changed = set()
        self._look_at_queues(snapshot)
        self._look_at_clouds(snapshot)

    def _look_at_queues(self, snapshot: Snapshot) -> None:
        names = sorted(snapshot.queues)
        queues = {name: self._queues.get(name) or _NodesOf() for name in names}
        for gone in self._queues.keys() - queues.keys():
            self.changed.update(self._queues[gone].seen)
        other = [queues[name].read(snapshot.queues[name].nodes, self.changed) for name in names]
        if any(other) or queues.keys() != self._queues.keys():
            self.foreign_nodes = {name: queue.foreign for name, queue in queues.items()}
            self.seen = _all_seen([queue.seen for queue in queues.values()])
        self._queues = queues

    def _look_at_clouds(self, snapshot: Snapshot) -> None:
        names = sorted(snapshot.clouds)
        clouds = {name: self._clouds.get(name) or _MachinesOf(name) for name in names}
        for gone in self._clouds.keys() - clouds.keys():
            self.changed.update(self._clouds[gone].listed)
        other = [clouds[name].read(snapshot.clouds[name].machines, self.changed) for name in names]
        if any(other) or clouds.keys() != self._clouds.keys():
            self.untagged = {each for cloud in clouds.values() for each in cloud.untagged}
            self.machines = _all_listed([cloud.listed for cloud in clouds.values()])
        self._clouds = clouds


def _all_seen(every: list[dict[WorkerId, Seen]]) -> Mapping[WorkerId, Seen]:
    if len(every) == 1:
        return every[0]
    joined: dict[WorkerId, Seen] = {}
    for seen in every:
        both = {worker: joined[worker].joined_with(seen[worker]) for worker in joined.keys() & seen.keys()}
        joined.update(seen)
        joined.update(both)
    return joined


def _all_listed(every: list[dict[WorkerId, list[Listed]]]) -> Mapping[WorkerId, list[Listed]]:
    if len(every) == 1:
        return every[0]
    joined: dict[WorkerId, list[Listed]] = {}
    for listed in every:
        both = {worker: joined[worker] + listed[worker] for worker in joined.keys() & listed.keys()}
        joined.update(listed)
        joined.update(both)
    return joined
