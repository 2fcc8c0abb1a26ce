"""Slots as the collector lists them, made into nodes.

A node is a startd with all its slots: static ones, partitionable ones, and the dynamic ones that were cut out of these.
A slot that is claimed counts as a running job, whether the job has begun or not: a claim is a promise to a schedd. As
long as none has begun there it is free as well: a job that still waits, in the schedd's words, will take it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from gridtide.model.demand import Node, NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.queues.htcondor.asking import Json
from gridtide.queues.htcondor.joining import DOMAIN, DRAIN, LEASE_LOST, SINGLE_USE, WORKER

Slot = Mapping[str, Json]

ATTRIBUTES: Final = (
    "Name", "SlotType", "State", "Activity", "Cpus", "Memory", "Disk", "GPUs",
    "TotalSlotCpus", "TotalSlotMemory", "TotalSlotDisk", "TotalSlotGPUs", "TotalSlots", "NumDynamicSlots",
    "NumDynamicSlotsTime", "EnteredCurrentState", "MyCurrentTime", "LastHeardFrom", "DaemonStartTime", "JobStarts",
    "MaxJobRetirementTime", "Start", "AuthenticatedIdentity", "Offline",
    WORKER, DRAIN, LEASE_LOST, SINGLE_USE, "GridtideGroup", "GridtideShape", "GridtideGeneration",
)  # fmt: skip
"""What is asked of each slot. Whole ads are twenty times as large."""

_CLAIMED: Final = frozenset({"Claimed", "Preempting", "Matched"})
_DRAINING: Final = frozenset({"Drained"})
# A node is out of contact after so many of its update intervals, and some seconds more for a slow collector.
_LATE: Final = 3.0
_SLACK: Final = 30.0
# More kinds than this are no kinds: the jobs' requirements name single machines.
_MOST_KINDS: Final = 200


@dataclass(frozen=True, slots=True)
class Machine:
    """The slots of one startd."""

    name: str
    worker: WorkerId | None
    slots: tuple[Slot, ...]

    @property
    def base(self) -> tuple[Slot, ...]:
        """Those that are there for good."""
        return tuple(slot for slot in self.slots if slot.get("SlotType") != "Dynamic")

    @property
    def heard(self) -> float:
        """When the collector heard of it last."""
        return max(_number(slot, "LastHeardFrom") for slot in self.slots)


def machines(slots: Sequence[Slot]) -> list[Machine]:
    """By startd. An ad that claims to be of a worker without that worker's token is nobody's."""
    found: dict[str, list[Slot]] = {}
    for slot in slots:
        if slot.get("Offline") is True:  # a machine that sleeps, kept by a pool that saves power
            continue
        name = str(slot.get("Name", ""))
        found.setdefault(name.partition("@")[2] or name, []).append(slot)
    return [Machine(name, _worker(each), tuple(each)) for name, each in sorted(found.items())]


def _worker(slots: Sequence[Slot]) -> WorkerId | None:
    named = {slot.get(WORKER) for slot in slots}
    if len(named) != 1:
        return None
    (worker,) = named
    if not isinstance(worker, str):
        return None
    # Collectors that got the ad from another collector do not know who sent it.
    senders = {slot.get("AuthenticatedIdentity", f"{worker}@{DOMAIN}") for slot in slots}
    return WorkerId(worker) if senders == {f"{worker}@{DOMAIN}"} else None


@dataclass(frozen=True, slots=True)
class Order:
    """The last order to a worker."""

    number: int
    """It grows from order to order. A drain shows in the slots as its number."""
    drain: bool


@dataclass(frozen=True, slots=True)
class Looking:
    """What is known besides the slots."""

    now: float
    update_interval: float
    orders: Mapping[WorkerId, Order]
    """The last order to each worker since this driver exists."""
    running: Mapping[str, int]
    """Jobs by node, says the second witness: the schedds."""
    witnessed: bool
    """Whether all schedds have spoken, after the slots were read."""
    busy: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """When each node was last seen running something: an ad may say for some seconds that nothing runs any more, and
    not yet since when."""


def looks_drained(machine: Machine) -> bool:
    """Whether the schedds are worth asking: the node itself says that it takes no job and runs none."""
    return _running(machine) == 0 and (_own_will(machine) or any(_drain(slot) for slot in machine.base))


def node(machine: Machine, looking: Looking, kind: str | None) -> Node:
    """The node."""
    shown = _running(machine)
    running = max(shown, looking.running.get(machine.name, 0))
    state = _state(machine, running, looking)
    total, free = Resources(), Resources()
    for slot in machine.base:
        total = total.plus(_resources(slot, "TotalSlot"))
    # A job that only its schedd knows of has taken we do not know what.
    for slot in machine.slots if running == shown else ():
        more = free.plus(_resources(slot, ""))
        # Ads of one startd may be of two moments, and together claim more than there is.
        if _awaits_a_job(slot) and total.covers(more):
            free = more
    return Node(
        name=machine.name,
        worker=machine.worker,
        state=state,
        total=total,
        free=free,
        running=running,
        idle_since=None if running else max(_idle_since(machine), looking.busy.get(machine.name, 0.0)),
        kind=None if machine.worker is not None else kind,
    )


def _awaits_a_job(slot: Slot) -> bool:
    """Nothing runs in it, and something may: what is left of a divided one, or one that was claimed for a job."""
    state = slot.get("State")
    if state in ("Claimed", "Matched"):
        return slot.get("Activity") == "Idle"
    return state not in ("Preempting", "Owner", "Drained") and slot.get("SlotType") != "Dynamic"


def _state(machine: Machine, running: int, looking: Looking) -> NodeState:
    late = looking.now - machine.heard > _LATE * looking.update_interval + _SLACK
    if machine.worker is not None and late:
        return NodeState.UNAVAILABLE
    if not machine.base:
        return NodeState.UNAVAILABLE  # only dynamic slots are listed: their owner will be in a moment
    shown = [_drain(slot) for slot in machine.base]
    order = looking.orders.get(machine.worker) if machine.worker is not None else None
    own_will = _own_will(machine)
    if order is not None and order.drain:
        settled = all(each == order.number for each in shown)
        draining = settled or own_will
    else:
        # Slots need a second to show that a drain was taken back: older numbers than that order's mean nothing.
        since = 0 if order is None else order.number
        draining, settled = (
            own_will or any(each > since for each in shown),
            own_will or all(each > since for each in shown),
        )
    if not draining:
        return NodeState.ACCEPTING
    complete = len(machine.slots) >= max(int(_number(slot, "TotalSlots")) for slot in machine.base)
    if running or not settled or not complete or not looking.witnessed:
        return NodeState.DRAINING
    return NodeState.DRAINED


def _own_will(machine: Machine) -> bool:
    """It takes no job whatever we say: an administrator drains it, its agent does, or it was for one job alone."""
    base = machine.base
    spent = any(slot.get(SINGLE_USE) is True and (_number(slot, "JobStarts") > 0) for slot in base)
    if spent or (any(slot.get(SINGLE_USE) is True for slot in base) and _running(machine) > 0):
        return True
    if any(slot.get(LEASE_LOST) is True for slot in base):
        return True
    return bool(base) and all(slot.get("State") in _DRAINING for slot in base)


def _running(machine: Machine) -> int:
    """Claims, by what the slots say and by what those that were divided say of their parts."""
    claimed = sum(slot.get("State") in _CLAIMED for slot in machine.base)
    dynamic = sum(slot.get("SlotType") == "Dynamic" for slot in machine.slots)
    told = sum(int(_number(slot, "NumDynamicSlots")) for slot in machine.base)
    return claimed + max(dynamic, told)


def _idle_since(machine: Machine) -> float:
    """Since when none of its slots was claimed. The node's clock may be wrong: its ages are taken, not its times."""
    ages = []
    for slot in machine.base:
        changed = max(_number(slot, "NumDynamicSlotsTime"), _number(slot, "EnteredCurrentState"))
        ages.append(_number(slot, "LastHeardFrom") - max(0.0, _number(slot, "MyCurrentTime") - changed))
    return max(ages)


def _drain(slot: Slot) -> int:
    return int(_number(slot, DRAIN))


def _resources(slot: Slot, prefix: str) -> Resources:
    """HTCondor counts memory in MiB, disk in KiB."""
    return Resources(
        int(_number(slot, f"{prefix}Cpus")),
        int(_number(slot, f"{prefix}Memory")),
        int(_number(slot, f"{prefix}Disk")) // 1024,
        int(_number(slot, f"{prefix}GPUs")),
    )


def _number(slot: Slot, name: str) -> float:
    value = slot.get(name)
    return max(0.0, float(value)) if isinstance(value, int | float) else 0.0


# --- kinds of nodes that are not ours


def kinds(found: Sequence[Machine], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """A name for each look that these nodes have for the jobs' requirements, and that look as an ad.

    ``names`` are the attributes that requirements ask for, in lower case. Empty when there are too many looks.
    """
    looks: dict[str, dict[str, str]] = {}
    for machine in found:
        if machine.worker is None and machine.base:
            looks[kind_of(machine, names)] = _look(machine, names)
            if len(looks) > _MOST_KINDS:
                return {}
    return looks


def kind_of(machine: Machine, names: Sequence[str]) -> str:
    """The name of the look of one node."""
    text = json.dumps([sorted(names), _look(machine, names)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_AMOUNTS: Final = ("cpus", "memory", "disk", "gpus")
_OF_RESOURCES: Final = frozenset([*_AMOUNTS, *(f"totalslot{name}" for name in _AMOUNTS), "state", "activity"])


def _look(machine: Machine, names: Sequence[str]) -> dict[str, str]:
    slot = machine.base[0]
    told = {name.lower(): value for name, value in slot.items()}
    look = {
        name: json.dumps(told[name])
        for name in sorted(names)
        if name not in _OF_RESOURCES and isinstance(told.get(name), str | int | float)
    }
    start = slot.get("Start")
    return {**look, "Start": start if isinstance(start, str) else json.dumps(start if start is not None else True)}
