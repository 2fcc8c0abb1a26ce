"""The readings behind a decision, short enough to be kept with it."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Final

from gridtide.model.demand import Demand, Nodes, NodeState
from gridtide.model.ids import CloudName, QueueName, WorkerId
from gridtide.model.machines import Machines
from gridtide.model.readings import Fresh, Missing, Reading, Stale, Unconfirmed, last_known
from gridtide.model.snapshot import Snapshot
from gridtide.store.ports import Json

_RUNNING: Final[attrgetter[int]] = attrgetter("running")
_STATE: Final[attrgetter[NodeState]] = attrgetter("state")
_WORKER: Final[attrgetter[WorkerId | None]] = attrgetter("worker")


def quality(reading: Reading[object]) -> str:
    """One word."""
    match reading:
        case Fresh():
            return "fresh"
        case Unconfirmed():
            return "unconfirmed"
        case Stale():
            return "stale"
        case Missing():
            return "missing"


def trouble(reading: Reading[object]) -> str:
    """What is wrong with it; empty when nothing is."""
    match reading:
        case Fresh():
            return ""
        case Unconfirmed(doubt=doubt):
            return doubt
        case Stale(error=error) | Missing(error=error):
            return error


def summary(reading: Reading[object], now: float) -> dict[str, Json]:
    """Quality, age in seconds, trouble."""
    known = last_known(reading)
    told: dict[str, Json] = {"quality": quality(reading)}
    if known is not None:
        told["age"] = round(now - known.finished, 3)
    if trouble(reading):
        told["error"] = trouble(reading)
    return told


def of_queue(snapshot: Snapshot, name: QueueName) -> Mapping[str, Json]:
    """Demand and nodes of a queue as one cycle saw them."""
    view = snapshot.queues.get(name)
    if view is None:
        return {}
    demand, nodes = summary(view.demand, snapshot.now), summary(view.nodes, snapshot.now)
    rows: Fresh[Demand] | None = last_known(view.demand)
    listed: Fresh[Nodes] | None = last_known(view.nodes)
    if rows is not None:
        demand["waiting"] = sum(row.count for row in rows.value)
    if listed is not None:
        nodes["nodes"] = len(listed.value)
        nodes["running"] = sum(map(_RUNNING, listed.value))
        nodes["drained"] = list(map(_STATE, listed.value)).count(NodeState.DRAINED)
    return {f"{name}: demand": demand, f"{name}: nodes": nodes}


def of_cloud(snapshot: Snapshot, name: CloudName) -> Mapping[str, Json]:
    """Machines of a cloud as one cycle saw them."""
    view = snapshot.clouds.get(name)
    if view is None:
        return {}
    machines = summary(view.machines, snapshot.now)
    listed: Fresh[Machines] | None = last_known(view.machines)
    if listed is not None:
        machines["machines"] = len(listed.value)
        machines["foreign"] = list(map(_WORKER, listed.value)).count(None)
    return {f"{name}: machines": machines}
