"""Short ways to write down a snapshot. Defaults are a calm site: one queue, one cloud, everything answered just now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gridtide.model.actions import Action, Advance, Drain, Launch, Plan, Terminate, TerminateStray, Undrain
from gridtide.model.demand import Demand, DemandRow, Node, Nodes, NodeState
from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, QueueName, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, Machines, MachineState, Quota
from gridtide.model.readings import Fresh, Reading, Stale
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import CloudRules, GroupRules, Policy, QueuePolicy, SiteRules, Wishes
from gridtide.model.snapshot import CloudView, GroupMemory, Heartbeat, OfferHealth, QueueView, Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning import plan

T = TypeVar("T")

NOW = 10_000.0
POOL = QueueName("pool")
CLOUD = CloudName("private")
BURST = CloudName("burst")
GRID = GroupName("grid")

SMALL = Shape(ShapeName("small"), Resources(2, 4096))
LARGE = Shape(ShapeName("large"), Resources(8, 16384))
ONE_CORE = Resources(1, 1024)


def fresh(value: T, started: float = NOW - 0.1, finished: float = NOW) -> Fresh[T]:
    return Fresh(value, started, finished)


def stale(value: T, error: str = "connection refused") -> Stale[T]:
    return Stale(Fresh(value, NOW - 900, NOW - 900), error, NOW - 890)


def group(
    name: str = "grid",
    *,
    clouds: Sequence[str] = ("private",),
    shapes: Sequence[str] = ("small",),
    minimum: int = 0,
    maximum: int = 10,
    policy: Policy | None = None,
    queue: str = "pool",
    join_deadline: float | None = 600.0,
    generation: str = "g1",
    share: float = 1.0,
) -> GroupRules:
    return GroupRules(
        name=GroupName(name),
        queue=QueueName(queue),
        clouds=tuple(CloudName(cloud) for cloud in clouds),
        shapes=tuple(ShapeName(shape) for shape in shapes),
        generation=Generation(generation),
        minimum=minimum,
        maximum=maximum,
        policy=policy if policy is not None else QueuePolicy(),
        join_deadline=join_deadline,
        share=share,
    )


def site(
    *groups: GroupRules,
    quota: Quota | None = None,
    settle: float = 0.0,
    warmup: float = 60.0,
    clouds: Sequence[str] = ("private", "burst"),
) -> SiteRules:
    groups = groups or (group(),)
    rules = {CloudName(name): CloudRules(CloudName(name), quota or Quota(), settle) for name in clouds}
    queues = tuple(sorted({entry.queue for entry in groups}))
    return SiteRules("test", {entry.name: entry for entry in groups}, rules, queues, warmup)


def worker(
    name: str = "w1",
    state: WorkerState = WorkerState.JOINED,
    *,
    since: float = NOW - 1000,
    launched: float | None = None,
    joined: float | None = None,
    cause: Cause | None = None,
    machine: str | None = "",
    shape: Shape = SMALL,
    group_name: str = "grid",
    cloud: str = "private",
    single_use: bool = False,
    generation: str = "g1",
    drain_wanted: bool = False,
    force_wanted: bool = False,
    created: float = NOW - 2000,
) -> Worker:
    """``machine=""`` names it after the worker, in the states in which it has one."""
    called = state is not WorkerState.INTENDED
    has_machine = called and state is not WorkerState.LAUNCHING
    return Worker(
        id=WorkerId(name),
        group=GroupName(group_name),
        cloud=CloudName(cloud),
        shape=shape,
        zone=None,
        generation=Generation(generation),
        single_use=single_use,
        state=state,
        since=since,
        created=created,
        reason=Reason(cause or Cause.LAUNCHED, "as the test says"),
        machine=(MachineId(f"m-{name}") if has_machine else None) if machine == "" else _machine_id(machine),
        launched=(launched if launched is not None else since) if called else None,
        joined=joined if joined is not None else (since if state in _HAS_JOINED else None),
        drain_wanted=drain_wanted,
        force_wanted=force_wanted,
    )


_HAS_JOINED = (WorkerState.JOINED, WorkerState.DRAINING, WorkerState.DRAINED)


def _machine_id(name: str | None) -> MachineId | None:
    return None if name is None else MachineId(name)


def machine(
    name: str | None = "w1",
    state: MachineState = MachineState.RUNNING,
    *,
    identity: str | None = None,
    resources: Resources = SMALL.resources,
    message: str = "",
) -> Machine:
    """A machine of the worker of that name; of somebody else for None."""
    made = identity or f"m-{name}"
    return Machine(MachineId(made), None if name is None else WorkerId(name), state, resources, None, message)


def node(
    name: str | None = "w1",
    state: NodeState = NodeState.ACCEPTING,
    *,
    running: int = 0,
    idle_since: float | None = NOW - 10,
    total: Resources = SMALL.resources,
    free: Resources | None = None,
    host: str = "",
) -> Node:
    """A node of the worker of that name; of somebody else for None."""
    left = free if free is not None else (total if running == 0 else Resources())
    return Node(
        name=host or f"node-{name}",
        worker=None if name is None else WorkerId(name),
        state=state,
        total=total,
        free=left,
        running=running,
        idle_since=None if running else idle_since,
    )


def row(
    count: int,
    need: Resources = ONE_CORE,
    runs_on: Iterable[tuple[str, str]] = (("grid", "small"), ("grid", "large")),
    label: str = "",
) -> DemandRow:
    offers = frozenset((GroupName(name), ShapeName(shape)) for name, shape in runs_on)
    return DemandRow(need, count, NOW - 30, offers, label or f"{need}")


@dataclass
class World:
    """A snapshot in the making. Machines follow from the workers unless they are given."""

    rules: SiteRules = field(default_factory=site)
    workers: Sequence[Worker] = ()
    nodes: Sequence[Node] = ()
    demand: Sequence[DemandRow] = ()
    machines: Sequence[Machine] | None = None
    shapes: Sequence[Shape] = (LARGE, SMALL)
    wishes: Wishes = field(default_factory=Wishes)
    memory: GroupMemory = field(default_factory=GroupMemory)
    heartbeats: Mapping[str, Heartbeat] = field(default_factory=dict)
    health: Mapping[tuple[str | None, str], OfferHealth] = field(default_factory=dict)
    zones: Sequence[str | None] = (None,)
    started: float = NOW - 5000
    now: float = NOW
    demand_reading: Reading[Demand] | None = None
    nodes_reading: Reading[Nodes] | None = None
    machines_reading: Reading[Machines] | None = None
    shapes_reading: Reading[tuple[Shape, ...]] | None = None
    clouds: Mapping[str, CloudView] = field(default_factory=dict)
    queues: Mapping[str, QueueView] = field(default_factory=dict)
    acknowledged: Mapping[WorkerId, float] | None = None
    """When the queue took the drains; None: each at once."""
    answered: Mapping[WorkerId, float] = field(default_factory=dict)

    def snapshot(self) -> Snapshot:
        listed = self.machines
        if listed is None:
            held = (entry for entry in self.workers if entry.machine is not None)
            listed = [machine(entry.id, resources=entry.shape.resources) for entry in held]
        cloud = CloudView(
            self.machines_reading or fresh(tuple(listed)),
            self.shapes_reading or fresh(tuple(self.shapes)),
            tuple(None if zone is None else Zone(zone) for zone in self.zones),
            {
                (None if zone is None else Zone(zone), ShapeName(name)): entry
                for (zone, name), entry in self.health.items()
            },
        )
        queue = QueueView(
            self.demand_reading or fresh(tuple(self.demand)),
            self.nodes_reading or fresh(tuple(self.nodes)),
        )
        return Snapshot(
            now=self.now,
            started=self.started,
            queues={POOL: queue, **{QueueName(name): view for name, view in self.queues.items()}},
            clouds={CLOUD: cloud, **{CloudName(name): view for name, view in self.clouds.items()}},
            workers={entry.id: entry for entry in self.workers},
            heartbeats={WorkerId(name): beat for name, beat in self.heartbeats.items()},
            wishes={GRID: self.wishes},
            memory={GRID: self.memory},
            drain_acknowledged=self.acknowledged
            if self.acknowledged is not None
            else {entry.id: entry.since for entry in self.workers if entry.state is WorkerState.DRAINING},
            undrain_answered=self.answered,
        )

    def plan(self) -> Plan:
        return plan(self.snapshot(), self.rules)

    def actions(self) -> tuple[Action, ...]:
        return self.plan().actions

    def why(self, name: str = "w1") -> Reason:
        return self.plan().why_worker[WorkerId(name)]

    def but(self, **changes: object) -> World:
        return replace(self, **changes)  # type: ignore[arg-type]


def brief(actions: Iterable[Action]) -> list[str]:
    """One line for each action: what the tests compare."""
    return [_line(action) for action in actions]


def _line(action: Action) -> str:
    match action:
        case Advance():
            found = f" {action.machine}" if action.machine else ""
            return f"{action.worker} {action.before}->{action.after} {action.reason.cause}{found}"
        case Drain() | Undrain():
            return f"{type(action).__name__.lower()} {action.worker} {action.reason.cause}"
        case Terminate():
            return f"terminate {action.worker} {action.before} {action.reason.cause}"
        case TerminateStray():
            return f"stray {action.machine} {action.reason.cause}"
        case Launch():
            zone = f" {action.zone}" if action.zone else ""
            return (
                f"launch {action.count} {action.group} {action.cloud} {action.shape.name}{zone} {action.reason.cause}"
            )
