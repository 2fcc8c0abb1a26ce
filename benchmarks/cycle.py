"""What the controller costs at 10 000 workers, while 1 000 000 jobs of 64 kinds wait and workers come and go.

The production controller, on time that jumps over waits and goes on with the processor's: what is measured is what it
computes, whoever else uses the machine. Queue and cloud are made of nothing; each of their answers consists of new
objects, as those of real drivers do, and what making them costs is left out.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from benchmarks.figures import Figure
from gridtide.clock import LoopClock
from gridtide.clouds.protocol import Finding, LaunchRequest
from gridtide.control.api import Cycle
from gridtide.control.assembly import Assembly
from gridtide.control.controller import Controller
from gridtide.control.lease import LeaseKeeper
from gridtide.errors import CloudError
from gridtide.model.demand import Attribute, Demand, DemandRow, Node, Nodes, NodeState, Offer
from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, QueueName, ShapeName, WorkerId
from gridtide.model.machines import Machine, Machines, MachineState, Quota
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import CloudRules, GroupRules, QueuePolicy, SiteRules
from gridtide.model.workers import Worker, WorkerState
from gridtide.queues.protocol import JoinOrders, Outcome
from gridtide.sim.virtual_time import VirtualTimeLoop
from gridtide.store.memory import MemoryFleetStore
from gridtide.store.ports import AddWorker, Change, Lease, Owner, UpdateWorker, no_check

QUEUE: Final = QueueName("pool")
CLOUD: Final = CloudName("cloud")
GROUPS: Final = tuple(GroupName(f"g{number}") for number in range(4))
SHAPES: Final = tuple(Shape(ShapeName(f"s{cores}"), Resources(cores, 2048 * cores), cores / 20) for cores in (4, 8, 16))
BOOT: Final = 60.0
"""Seconds until a machine joins."""
HEARTBEAT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is, and for how many seconds it is watched."""

    workers: int
    jobs: int
    kinds: int
    seconds: float

    @property
    def leave_every(self) -> float:
        """Seconds from one worker that leaves to the next: 1 % of all in a minute."""
        return 60.0 / (0.01 * self.workers)


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Time of a cycle, part of a core, memory: in a process of its own."""
    size = Size(300, 30_000, 16, 60.0) if quick else Size(10_000, 1_000_000, 64, 300.0)
    arguments = [str(size.workers), str(size.jobs), str(size.kinds), str(size.seconds)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.cycle", *arguments], check=True, capture_output=True)
    found = json.loads(done.stdout)
    words = f"{size.workers} workers, {size.jobs} jobs of {size.kinds} kinds, 1 % of the workers come and go a minute"
    yield Figure("cycle, median", found["median"], "s", "<=", 0.1, f"{words}; {found['cycles']} cycles")
    yield Figure("cycle, p99", found["p99"], "s", "<=", 0.25, words)
    yield Figure("cycles, part of a core", found["core"], "", "<=", 0.25, f"in {size.seconds:g} s")
    yield Figure("cycles, peak memory", found["memory"], "MiB", "<=", 256.0, words)
    yield Figure("cycles, workers replaced", found["replaced"], "", ">=", size.workers * 0.01, "so that it was no rest")


class _ProcessorTime(VirtualTimeLoop):
    """Waits take no time; computing takes as long as it takes."""

    def __init__(self) -> None:
        super().__init__()
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return super().time() + time.process_time()


class _Own:
    """What the stand-ins cost, in seconds."""

    def __init__(self) -> None:
        self.spent = 0.0


class _Queue:
    """Nodes with jobs. A drained one is empty at once."""

    name = QUEUE

    def __init__(self, own: _Own, rows: Demand) -> None:
        self.known: dict[WorkerId, Node] = {}
        self._own = own
        self._rows = rows

    async def demand(self, offers: Sequence[Offer]) -> Demand:
        return tuple([replace(row) for row in self._rows])

    async def nodes(self) -> Nodes:
        began = time.process_time()
        nodes = tuple([_copy_of_node(node) for node in self.known.values()])
        self._own.spent += time.process_time() - began
        return nodes

    async def drain(self, workers: Mapping[WorkerId, Reason]) -> Mapping[WorkerId, Outcome]:
        for worker in workers:
            node = self.known[worker]
            self.known[worker] = replace(node, state=NodeState.DRAINED, running=0, free=node.total)
        return dict.fromkeys(workers)

    async def undrain(self, workers: Sequence[WorkerId]) -> Mapping[WorkerId, Outcome]:
        for worker in workers:
            self.known[worker] = replace(self.known[worker], state=NodeState.ACCEPTING)
        return dict.fromkeys(workers)

    async def join(self, worker: Worker, host: Mapping[str, Attribute]) -> JoinOrders:
        self.known[worker.id] = _node(worker, random.Random(worker.id))
        return JoinOrders("played")

    async def forget(self, workers: Sequence[WorkerId]) -> None:
        for worker in workers:
            self.known.pop(worker, None)


class _Cloud:
    """Machines that run from the launch on."""

    name = CLOUD
    settle = 0.0

    def __init__(self, own: _Own) -> None:
        self.known: dict[MachineId, Machine] = {}
        self.made: list[tuple[WorkerId, str]] = []
        self._own = own

    async def shapes(self) -> tuple[Shape, ...]:
        return SHAPES

    async def machines(self) -> Machines:
        began = time.process_time()
        machines = tuple([_copy_of_machine(each) for each in self.known.values()])
        self._own.spent += time.process_time() - began
        return machines

    async def launch(self, requests: Sequence[LaunchRequest]) -> Mapping[WorkerId, MachineId | CloudError]:
        sizes = {shape.name: shape.resources for shape in SHAPES}
        for request in requests:
            machine = _machine_id(request.worker)
            self.known[machine] = Machine(machine, request.worker, MachineState.RUNNING, sizes[request.shape])
            self.made.append((request.worker, request.user_data.decode()))
        return {request.worker: _machine_id(request.worker) for request in requests}

    async def terminate(self, machines: Sequence[MachineId]) -> Mapping[MachineId, CloudError | None]:
        for machine in machines:
            self.known.pop(machine, None)
        return dict.fromkeys(machines)

    async def check(self, images: Sequence[str]) -> tuple[Finding, ...]:
        return ()

    async def close(self) -> None:
        pass


class _Timed(Controller):
    """Notes what each cycle costs, without the stand-ins' part."""

    own: _Own
    taken: list[float]

    async def run_cycle(self) -> Cycle:
        began = time.process_time() - self.own.spent
        cycle = await super().run_cycle()
        self.taken.append(time.process_time() - self.own.spent - began)
        return cycle


def measure(size: Size) -> Mapping[str, float]:
    """Run it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with asyncio.Runner(loop_factory=_ProcessorTime) as runner:
        return runner.run(_measure(size))


async def _measure(size: Size) -> Mapping[str, float]:
    dice = random.Random(1)
    clock, own = LoopClock(), _Own()
    store = _Store()
    keeper = LeaseKeeper(store, Owner("benchmark", "", 1, 1), lambda _: True, clock=clock, seconds=1e6)
    queue, cloud = _Queue(own, tuple(_row(number, size, dice) for number in range(size.kinds))), _Cloud(own)
    controller = _Timed(
        Assembly(_rules(size), {QUEUE: queue}, {CLOUD: cloud}, lambda _worker, token: token.encode()),
        store,
        keeper,
        clock=clock,
        random=dice,
        make_secret=lambda: f"{dice.getrandbits(256):064x}",
    )
    controller.own, controller.taken = own, []
    await keeper.take(lambda _: None)
    workers = [_worker(number, clock.now(), dice) for number in range(size.workers)]
    await store.commit(keeper.lease, [change for worker in workers for change in _made(worker)])
    queue.known = {worker.id: _node(worker, dice) for worker in workers}
    cloud.known = {machine.id: machine for machine in map(_machine, workers)}
    await controller.load()
    leading = asyncio.create_task(controller.lead())
    await asyncio.sleep(2 * BOOT)  # the first cycles look at all; and workers that leave are in all stages from now on
    crowd = [asyncio.create_task(work) for work in (_leave(controller, size, dice), _join(controller, cloud))]
    beats = asyncio.create_task(_beat(controller, own))
    await asyncio.sleep(2 * BOOT)
    controller.taken.clear()
    began, spent, at, made = clock.now(), own.spent, time.process_time(), store.gone
    await asyncio.sleep(size.seconds)
    used, elapsed = time.process_time() - at - (own.spent - spent), clock.now() - began
    for task in (leading, beats, *crowd):
        task.cancel()
    faults = await asyncio.gather(leading, beats, *crowd, return_exceptions=True)
    for fault in faults:
        if not isinstance(fault, asyncio.CancelledError):
            raise RuntimeError(f"the site did not go on: {fault!r}")
    return {
        "cycles": len(controller.taken),
        "median": statistics.median(controller.taken),
        "p99": statistics.quantiles(controller.taken, n=100)[98],
        "core": used / elapsed,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "replaced": store.gone - made,
    }


class _Store(MemoryFleetStore):
    """Counts the workers that end, and keeps no events."""

    gone = 0

    async def commit(self, lease: Lease, changes: Sequence[Change], check: Callable[[], None] = no_check) -> None:
        updates = [change for change in changes if isinstance(change, UpdateWorker)]
        self.gone += sum(change.worker.state is WorkerState.GONE for change in updates)
        await super().commit(lease, changes)
        self._events.clear()


async def _leave(controller: Controller, size: Size, dice: random.Random) -> None:
    """Operators drain a worker now and then; its jobs end, and it is replaced."""
    while True:
        await asyncio.sleep(size.leave_every)
        joined = [worker.id for worker in controller.workers.values() if worker.state is WorkerState.JOINED]
        await controller.drain([dice.choice(joined)], force=False, actor="benchmark")


async def _join(controller: Controller, cloud: _Cloud) -> None:
    """Machines boot."""
    loop = asyncio.get_running_loop()
    booting: list[tuple[float, WorkerId, str]] = []
    while True:
        await asyncio.sleep(0.5)
        booting += [(loop.time() + BOOT, worker, token) for worker, token in cloud.made]
        cloud.made.clear()
        while booting and booting[0][0] <= loop.time():
            _, worker, token = booting.pop(0)
            await controller.join(worker, token.rpartition(".")[2], f"secret of {worker}", {})


async def _beat(controller: Controller, own: _Own) -> None:
    """All tell that they live. That has a benchmark of its own, so it is left out here."""
    while True:
        await asyncio.sleep(HEARTBEAT)
        began = time.process_time()
        for worker in [each.id for each in controller.workers.values() if each.state is WorkerState.JOINED]:
            controller.alive(worker, load=1.0, running=1, draining=False)
        own.spent += time.process_time() - began


def _rules(size: Size) -> SiteRules:
    groups = {
        name: GroupRules(
            name=name,
            queue=QUEUE,
            clouds=(CLOUD,),
            shapes=(),
            generation=Generation("g"),
            minimum=0,
            maximum=size.workers // len(GROUPS),
            policy=QueuePolicy(),
        )
        for name in GROUPS
    }
    return SiteRules("benchmark", groups, {CLOUD: CloudRules(CLOUD, Quota(), 0.0)}, (QUEUE,))


def _row(number: int, size: Size, dice: random.Random) -> DemandRow:
    need = Resources(1 + number % 4, 1024 * (1 + number // 4 % 4))
    offers = frozenset((group, shape.name) for group in dice.sample(GROUPS, 2) for shape in SHAPES)
    return DemandRow(need, size.jobs // size.kinds, LoopClock().now(), offers, f"kind {number}")


def _worker(number: int, now: float, dice: random.Random) -> Worker:
    name = WorkerId(f"{GROUPS[number % len(GROUPS)]}-{dice.getrandbits(40):010x}")
    return Worker(
        id=name,
        group=GROUPS[number % len(GROUPS)],
        cloud=CLOUD,
        shape=dice.choice(SHAPES),
        zone=None,
        generation=Generation("g"),
        single_use=False,
        state=WorkerState.JOINED,
        since=now,
        created=now,
        reason=Reason(Cause.JOINED, "a benchmark"),
        machine=_machine_id(name),
        launched=now,
        joined=now,
    )


def _made(worker: Worker) -> list[Change]:
    """Its way into the store."""
    intended = replace(worker, state=WorkerState.INTENDED)
    launching = replace(worker, state=WorkerState.LAUNCHING)
    return [
        AddWorker(intended),
        UpdateWorker(WorkerState.INTENDED, launching),
        UpdateWorker(WorkerState.LAUNCHING, worker),
    ]


def _node(worker: Worker, dice: random.Random) -> Node:
    """With jobs, and little or no room for more."""
    total = worker.shape.resources
    free = Resources(0, 1024 * dice.choice([0, 1, 2]))
    return Node(worker.id, worker.id, NodeState.ACCEPTING, total, free, dice.randint(1, total.cores), None)


def _machine(worker: Worker) -> Machine:
    return Machine(_machine_id(worker.id), worker.id, MachineState.RUNNING, worker.shape.resources)


def _machine_id(worker: WorkerId) -> MachineId:
    return MachineId(f"m-{worker}")


def _copy_of_node(node: Node) -> Node:
    free = Resources(node.free.cores, node.free.memory)
    return Node(node.name, node.worker, node.state, node.total, free, node.running, node.idle_since)


def _copy_of_machine(machine: Machine) -> Machine:
    return Machine(machine.id, machine.worker, machine.state, machine.resources)


if __name__ == "__main__":
    workers, jobs, kinds, seconds = sys.argv[1:]
    print(json.dumps(measure(Size(int(workers), int(jobs), int(kinds), float(seconds)))))
