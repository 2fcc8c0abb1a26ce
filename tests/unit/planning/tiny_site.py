"""A site in a few hundred lines: a cloud, a queue, a store and a controller that does as the plan says.

Everything may fail, lag or be interrupted between any two steps. The world itself checks the two things that must never
happen: that a machine which runs a job is ended by us, and that there are more machines than the maximum, or two of one
worker.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gridtide.control.ledger import Ledger
from gridtide.model.actions import Advance, Drain, Launch, Terminate, TerminateStray, Undrain
from gridtide.model.demand import Demand, DemandRow, Node, Nodes, NodeState
from gridtide.model.ids import MachineId, WorkerId
from gridtide.model.machines import Machine, Machines, MachineState
from gridtide.model.readings import Fresh, Missing, Reading, Stale, last_known
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import SiteRules, Wishes
from gridtide.model.snapshot import CloudView, GroupMemory, Heartbeat, QueueView, Snapshot
from gridtide.model.workers import MAY_JOIN, Worker, WorkerState, may
from gridtide.planning import Planner, plan
from gridtide.planning.guards import believe_demand, believe_machines, believe_nodes
from gridtide.planning.lifecycle import CALL_ALLOWANCE
from tests.unit.planning.worlds import CLOUD, GRID, POOL, SMALL, row

T = TypeVar("T")

SETTLE = 10.0
"""Seconds for which the cloud's listing may miss a new machine."""

SLOTS = 2
PRICED = replace(SMALL, price=1.0)
NOT_READ = Missing("not read yet", 0.0)


@dataclass
class RealMachine:
    """What exists, whatever anybody believes."""

    id: MachineId
    worker: WorkerId
    state: MachineState
    listed_from: float


@dataclass
class RealNode:
    """What the queue holds of a worker that has joined."""

    worker: WorkerId
    running: int = 0
    draining: bool = False
    idle_since: float | None = 0.0
    single_use: bool = False
    used: bool = False

    @property
    def free(self) -> int:
        """Jobs that may still start."""
        if self.draining or (self.single_use and self.used):
            return 0
        return (1 if self.single_use else SLOTS) - self.running

    def as_listed(self, *, reachable: bool) -> Node:
        draining = self.draining or (self.single_use and self.used)
        state = NodeState.ACCEPTING if not draining else NodeState.DRAINING if self.running else NodeState.DRAINED
        if not reachable:
            state = NodeState.UNAVAILABLE
        free = Resources(SLOTS - self.running, (SLOTS - self.running) * 2048)
        idle = self.idle_since if self.running == 0 else None
        return Node(f"node-{self.worker}", self.worker, state, SMALL.resources, free, self.running, idle)


@dataclass
class Flight:
    """Orders on their way to the queue."""

    back: set[WorkerId]
    drains: dict[WorkerId, float]
    taken: bool = False


@dataclass
class Memory:
    """What a controller knows and loses with its process."""

    started: float
    demand: Reading[Demand] = NOT_READ
    nodes: Reading[Nodes] = NOT_READ
    machines: Reading[Machines] = NOT_READ
    shapes: Reading[tuple[Shape, ...]] = NOT_READ
    heartbeats: dict[WorkerId, Heartbeat] = field(default_factory=dict)
    acknowledged: dict[WorkerId, float] = field(default_factory=dict)
    answered: dict[WorkerId, float] = field(default_factory=dict)
    undrain: set[WorkerId] = field(default_factory=set)
    flight: Flight | None = None
    strays: set[MachineId] = field(default_factory=set)
    reading_nodes: Fresh[Nodes] | None = None
    reading_machines: Fresh[Machines] | None = None
    reading_demand: Fresh[Demand] | None = None
    policy: GroupMemory = field(default_factory=GroupMemory)


class TinySite:
    """``random`` decides what the world leaves open (which node a job goes to)."""

    def __init__(self, rules: SiteRules, seed: int) -> None:
        self.rules = rules
        self.random = random.Random(seed)
        self.now = 1000.0
        self.waiting = 0
        self.wishes = Wishes()
        self.machines: dict[MachineId, RealMachine] = {}
        self.nodes: dict[WorkerId, RealNode] = {}
        self.workers: dict[WorkerId, Worker] = {}
        self.view: dict[WorkerId, Worker] = {}
        self.memory = Memory(self.now)
        self.planner = Planner()
        self.ledger = Ledger()
        self.numbers = 0
        self.calls: dict[WorkerId, float] = {}
        self.seen: Counter[str] = Counter()
        """How often what happened, so that a test can tell that it was not for nothing."""

    # --- the world goes on

    def start_job(self) -> None:
        """The queue gives a job to a node, behind everybody's back."""
        ready = sorted(name for name, node in self.nodes.items() if node.free > 0 and self.runs(name))
        if ready and self.waiting:
            node = self.nodes[self.random.choice(ready)]
            node.running += 1
            self.seen["jobs"] += 1
            node.used = True
            node.idle_since = None
            self.waiting -= 1

    def finish_job(self) -> None:
        """One job ends by itself."""
        busy = sorted(name for name, node in self.nodes.items() if node.running and self.runs(name))
        if busy:
            node = self.nodes[self.random.choice(busy)]
            node.running -= 1
            node.idle_since = self.now if node.running == 0 else None

    def runs(self, worker: WorkerId) -> bool:
        """Whether a machine of the worker runs."""
        return any(each.worker == worker and each.state is MachineState.RUNNING for each in self.machines.values())

    def boot(self) -> None:
        """One machine comes up and trades its join token, if that is still worth something."""
        for machine in sorted(self.machines.values(), key=lambda each: each.id):
            if machine.state is MachineState.STARTING:
                machine.state = MachineState.RUNNING
                worker = self.workers.get(machine.worker)
                if worker is not None and worker.state in MAY_JOIN:
                    self.move(worker, WorkerState.JOINED, Reason(Cause.JOINED, "joined"), joined=self.now)
                    self.nodes[worker.id] = RealNode(worker.id, idle_since=self.now, single_use=worker.single_use)
                return

    def stop_machine(self, state: MachineState) -> None:
        """A machine dies by itself; its jobs are lost by that, not by us, and wait again."""
        living = sorted(name for name, machine in self.machines.items() if machine.state in LIVING)
        if living:
            machine = self.machines[self.random.choice(living)]
            machine.state = state
            self.lose_node(machine.worker)
            self.seen["died"] += 1

    def lose_node(self, worker: WorkerId) -> None:
        """The queue notices at once that a node has died."""
        node = self.nodes.pop(worker, None)
        self.waiting += node.running if node is not None else 0

    def leave(self) -> None:
        """An agent that is drained and empty says so and switches its machine off."""
        for name, node in sorted(self.nodes.items()):
            if node.running == 0 and node.as_listed(reachable=True).state is NodeState.DRAINED and self.runs(name):
                for machine in self.machines.values():
                    if machine.worker == name:
                        machine.state = MachineState.STOPPED
                del self.nodes[name]
                return

    def beat(self) -> None:
        """All agents report."""
        for name, node in self.nodes.items():
            if self.runs(name):
                self.memory.heartbeats[name] = Heartbeat(self.now, node.running, 0.5, node.draining)

    # --- reading

    def begin_nodes(self, *, empty: bool = False, unreachable: bool = False) -> None:
        listed = tuple(node.as_listed(reachable=not unreachable) for _, node in sorted(self.nodes.items()))
        self.memory.reading_nodes = Fresh(() if empty else listed, self.now, self.now)

    def begin_machines(self, *, empty: bool = False) -> None:
        listed = tuple(
            Machine(each.id, each.worker, each.state, SMALL.resources)
            for _, each in sorted(self.machines.items())
            if each.listed_from <= self.now
        )
        self.memory.reading_machines = Fresh(() if empty else listed, self.now, self.now)

    def begin_demand(self, *, empty: bool = False) -> None:
        rows: tuple[DemandRow, ...] = (row(self.waiting),) if self.waiting and not empty else ()
        self.memory.reading_demand = Fresh(rows, self.now, self.now)

    def end_reads(self) -> None:
        """The answers arrive; what happened since they were made does not show in them."""
        memory = self.memory
        leaving = {name for name, worker in self.workers.items() if worker.state in ENDING}
        if memory.reading_nodes is not None:
            memory.nodes = believe_nodes(memory.nodes, replace(memory.reading_nodes, finished=self.now), leaving)
        if memory.reading_machines is not None:
            answer = replace(memory.reading_machines, finished=self.now)
            memory.machines = believe_machines(memory.machines, answer, leaving)
        if memory.reading_demand is not None:
            memory.demand = believe_demand(memory.demand, replace(memory.reading_demand, finished=self.now))
        memory.shapes = Fresh((PRICED,), self.now, self.now)
        memory.reading_nodes = memory.reading_machines = memory.reading_demand = None

    def fail_reads(self) -> None:
        """Every source fails."""
        memory = self.memory
        memory.nodes = self.stale(memory.nodes)
        memory.machines = self.stale(memory.machines)
        memory.demand = self.stale(memory.demand)
        memory.shapes = self.stale(memory.shapes)
        memory.reading_nodes = memory.reading_machines = memory.reading_demand = None

    def stale(self, reading: Reading[T]) -> Reading[T]:
        known = last_known(reading)
        return reading if known is None else Stale(known, "connection refused", self.now)

    # --- the controller

    def snapshot(self) -> Snapshot:
        memory = self.memory
        if self.view != self.workers:  # as the controller's: the same one until a worker changes
            self.view = dict(self.workers)
        return Snapshot(
            now=self.now,
            started=memory.started,
            queues={POOL: QueueView(memory.demand, memory.nodes)},
            clouds={CLOUD: CloudView(memory.machines, memory.shapes)},
            workers=self.view,
            heartbeats=dict(memory.heartbeats),
            wishes={GRID: self.wishes},
            memory={GRID: memory.policy},
            drain_acknowledged=dict(memory.acknowledged),
            undrain_answered=dict(memory.answered),
            ended_costs=self.ledger.view(self.now),
        )

    def decide(self) -> None:
        """Plan, and record what the plan says. No call is made yet."""
        snapshot = self.snapshot()
        decided = self.planner.plan(snapshot, self.rules)
        assert decided == plan(snapshot, self.rules), "what is kept of the cycle before changed the plan"
        self.memory.policy = decided.memory[GRID]
        for action in decided.actions:
            match action:
                case Launch():
                    for _ in range(action.count):
                        self.intend(action)
                case Advance(name, before, after, reason, machine):
                    assert self.workers[name].state is before
                    self.move(self.workers[name], after, reason, machine=machine)
                case Drain(name, reason):
                    if self.workers[name].state is WorkerState.JOINED:
                        self.move(self.workers[name], WorkerState.DRAINING, reason)
                    else:
                        self.memory.acknowledged.pop(name, None)
                case Undrain(name, reason):
                    self.move(self.workers[name], WorkerState.JOINED, reason)
                    self.memory.undrain.add(name)
                case Terminate(name, before, reason):
                    if before is not WorkerState.TERMINATING:
                        self.move(self.workers[name], WorkerState.TERMINATING, reason)
                case TerminateStray(_, stray):
                    self.memory.strays.add(stray)

    def intend(self, action: Launch) -> None:
        self.numbers += 1
        name = WorkerId(f"w{self.numbers:04}")
        self.workers[name] = Worker(
            id=name,
            group=action.group,
            cloud=action.cloud,
            shape=action.shape,
            zone=action.zone,
            generation=action.generation,
            single_use=action.single_use,
            state=WorkerState.INTENDED,
            since=self.now,
            created=self.now,
            reason=action.reason,
        )
        assert len(self.workers) <= self.rules.groups[GRID].maximum, "more workers than the maximum"

    def move(
        self,
        worker: Worker,
        after: WorkerState,
        reason: Reason,
        *,
        machine: MachineId | None = None,
        launched: float | None = None,
        joined: float | None = None,
    ) -> None:
        assert worker.state is after or may(worker.state, after), f"{worker.state} -> {after}"
        memory = self.memory
        self.seen[f"{worker.state}->{after} {reason.cause}"] += 1
        if after is WorkerState.GONE:
            self.ledger.add(replace(worker, state=after, since=self.now, reason=reason))
            del self.workers[worker.id]
            self.nodes.pop(worker.id, None)
            memory.heartbeats.pop(worker.id, None)
        else:
            moved = replace(worker, machine=machine or worker.machine)
            if worker.state is not after:
                moved = replace(moved, state=after, since=self.now, reason=reason)
            times = {"launched": launched or worker.launched, "joined": joined or worker.joined}
            self.workers[worker.id] = replace(moved, launched=times["launched"], joined=times["joined"])
        if after is not WorkerState.DRAINING:
            memory.acknowledged.pop(worker.id, None)
        if after is not WorkerState.JOINED:
            memory.answered.pop(worker.id, None)

    def begin_launch(self) -> None:
        """Execute the first intent: recorded before the cloud is called."""
        for worker in sorted(self.in_state(WorkerState.INTENDED), key=lambda each: each.id):
            self.move(worker, WorkerState.LAUNCHING, worker.reason, launched=self.now)
            self.calls[worker.id] = self.now
            return

    def end_launch(self, *, refused: bool = False, lost: bool = False, lag: float = 0.0) -> None:
        """The cloud takes the oldest call; its answer is ``lost`` or seen. A call that took too long is no call."""
        for name, called in sorted(self.calls.items()):
            del self.calls[name]
            if self.now - called >= CALL_ALLOWANCE:
                return
            worker = self.workers.get(name)
            waiting = worker is not None and worker.state is WorkerState.LAUNCHING and not lost
            if refused:
                if worker is not None and waiting:
                    self.move(worker, WorkerState.FAILED, Reason(Cause.LAUNCH_REFUSED, "no capacity"))
                return
            made = MachineId(f"m-{name}")
            assert made not in self.machines
            self.machines[made] = RealMachine(made, name, MachineState.STARTING, self.now + lag)
            if worker is not None and waiting:
                self.move(worker, WorkerState.BOOTING, Reason(Cause.LAUNCHED, "made"), machine=made)
            return

    def begin_orders(self) -> None:
        """Orders to the queue are sent: one sending at a time."""
        memory = self.memory
        if memory.flight is None:
            drains = {
                worker.id: worker.since
                for worker in self.in_state(WorkerState.DRAINING)
                if worker.id not in memory.acknowledged
            }
            back = {name for name in memory.undrain if self.state_of(name) is WorkerState.JOINED}
            memory.undrain.clear()
            memory.flight = Flight(back, drains)

    def take_orders(self) -> None:
        """The queue does what it is told, at a moment of its own."""
        flight = self.memory.flight
        if flight is not None and not flight.taken:
            flight.taken = True
            for name in flight.back:
                if name in self.nodes:
                    self.nodes[name].draining = False
            for name in flight.drains:
                if name in self.nodes:
                    self.nodes[name].draining = True

    def end_orders(self, *, heard: bool = True) -> None:
        """The answer arrives, or the time for it is over."""
        memory, flight = self.memory, self.memory.flight
        if flight is None:
            return
        memory.flight = None
        memory.answered.update(dict.fromkeys(flight.back, self.now))
        for name, since in flight.drains.items():
            same = self.state_of(name) is WorkerState.DRAINING and self.workers[name].since == since
            if flight.taken and heard and same and name in self.nodes:
                memory.acknowledged[name] = self.now

    def give_orders(self) -> None:
        """Without any fault."""
        self.begin_orders()
        self.take_orders()
        self.end_orders()

    def launch(self) -> None:
        """Without any fault."""
        self.begin_launch()
        self.end_launch()

    def state_of(self, name: WorkerId) -> WorkerState:
        worker = self.workers.get(name)
        return WorkerState.GONE if worker is None else worker.state

    def end_machines(self, *, taken: bool = True, state: MachineState | None = None) -> None:
        """Calls to end what is to be ended."""
        ending = {worker.id for worker in self.in_state(WorkerState.TERMINATING)}
        for machine in list(self.machines.values()):
            wanted = machine.worker in ending or machine.id in self.memory.strays
            if taken and wanted and machine.state is not MachineState.GONE:
                self.end(machine, state)
        self.memory.strays.clear()

    def end(self, machine: RealMachine, state: MachineState | None) -> None:
        node = self.nodes.get(machine.worker)
        worker = self.workers.get(machine.worker)
        forced = worker is not None and worker.force_wanted
        if node is not None and node.running and not forced and machine.state is MachineState.RUNNING:
            raise AssertionError(f"{node.running} running jobs of {machine.worker} were killed")
        self.lose_node(machine.worker)
        if state is None:
            del self.machines[machine.id]
        else:
            machine.state = state

    def in_state(self, state: WorkerState) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.state is state]

    def unsettled(self) -> bool:
        """Whether machines are being made or ended."""
        states = {WorkerState.LAUNCHING, *ENDING}
        return any(worker.state in states for worker in self.workers.values())

    def want_drain(self, states: Collection[WorkerState]) -> None:
        """An operator asks to drain one worker."""
        names = sorted(name for name, worker in self.workers.items() if worker.state in states)
        if names:
            name = self.random.choice(names)
            self.workers[name] = replace(self.workers[name], drain_wanted=True)

    def crash(self) -> None:
        """The process dies and another one begins to lead: only the store, the cloud and the queue remember."""
        if self.random.random() < 0.5:
            self.take_orders()
        self.memory = Memory(self.now)
        self.memory.answered = {worker.id: self.now for worker in self.in_state(WorkerState.JOINED)}

    # --- invariants

    def check(self) -> None:
        """What must hold at every instant."""
        living = [machine for machine in self.machines.values() if machine.state is not MachineState.GONE]
        assert len(living) <= self.rules.groups[GRID].maximum, "more machines than the maximum"
        assert len({machine.worker for machine in living}) == len(living), "two machines of one worker"

    def finish_ending(self) -> None:
        """The cloud forgets machines that have ended."""
        ended = (WorkerState.TERMINATING, WorkerState.GONE)
        for name, machine in list(self.machines.items()):
            over = machine.state in (MachineState.ENDING, MachineState.GONE)
            if over and self.state_of(machine.worker) in ended:
                del self.machines[name]

    def calm_down(self) -> None:
        """All faults end and nothing waits: everything that was made must go, by itself."""
        self.waiting = 0
        self.wishes = Wishes()
        self.end_orders()
        for _ in range(400):
            self.now += 15.0
            self.finish_job()
            self.begin_nodes()
            self.begin_machines()
            self.begin_demand()
            self.end_reads()
            self.decide()
            self.launch()
            self.give_orders()
            self.end_machines()
            self.boot()
            self.finish_ending()
            if not self.machines and not self.workers:
                return
        raise AssertionError(f"left over: {self.machines}, {self.workers}")


LIVING = (MachineState.STARTING, MachineState.RUNNING)
ENDING = (WorkerState.FAILED, WorkerState.TERMINATING)
