"""How long one plan takes at a site of 10 000 workers beside 2 000 nodes of others, with 500 kinds of waiting jobs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.figures import Figure
from gridtide.model.demand import DemandRow, Node, NodeState
from gridtide.model.ids import CloudName, Generation, GroupName, MachineId, QueueName, ShapeName, WorkerId
from gridtide.model.machines import Machine, MachineState, Quota
from gridtide.model.readings import Fresh
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import CloudRules, GroupRules, QueuePolicy, SiteRules
from gridtide.model.snapshot import CloudView, QueueView, Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning import plan

T = TypeVar("T")

NOW = 1_700_000_000.0
QUEUE, CLOUD = QueueName("pool"), CloudName("cloud")
SHAPES = tuple(Shape(ShapeName(f"s{cores}"), Resources(cores, 2048 * cores)) for cores in (2, 4, 8, 16, 32, 64))
GROUPS = tuple(GroupName(f"g{number}") for number in range(5))


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is."""

    workers: int
    foreign: int
    rows: int


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """CPU seconds of one plan: in a pool whose machines are mostly full, with a quota that binds, and at its worst."""
    size = Size(500, 100, 50) if quick else Size(10_000, 2_000, 500)
    words = f"{size.workers} workers, {size.foreign} nodes of others, {size.rows} kinds of jobs"
    cores = size.workers * 20
    for name, ragged, quota in (
        ("mostly full", False, Quota()),
        ("quota binds", False, Quota(cores=cores)),
        ("all machines have other room left", True, Quota()),
    ):
        snapshot, rules = _site(size, ragged=ragged, quota=quota)
        taken = min(_seconds(snapshot, rules) for _ in range(3))
        yield Figure(f"plan, {name}", taken, "s", "<=", 0.5, words)


def _seconds(snapshot: Snapshot, rules: SiteRules) -> float:
    began = time.process_time()
    plan(snapshot, rules)
    return time.process_time() - began


def _site(size: Size, *, ragged: bool, quota: Quota) -> tuple[Snapshot, SiteRules]:
    dice = random.Random(1)
    workers = {worker.id: worker for worker in (_worker(number, dice) for number in range(size.workers))}
    nodes = [_node(worker, dice, ragged) for worker in workers.values() if worker.state is WorkerState.JOINED]
    nodes += [_foreign(number, dice, ragged) for number in range(size.foreign)]
    machines = tuple(
        Machine(MachineId(f"m-{worker.id}"), worker.id, MachineState.RUNNING, worker.shape.resources)
        for worker in workers.values()
    )
    snapshot = Snapshot(
        now=NOW,
        started=NOW - 9000,
        queues={QUEUE: QueueView(_fresh(tuple(_row(n, dice) for n in range(size.rows))), _fresh(tuple(nodes)))},
        clouds={CLOUD: CloudView(_fresh(machines), _fresh(SHAPES))},
        workers=workers,
        heartbeats={},
        wishes={},
        memory={},
    )
    groups = {name: _group(name, size.workers) for name in GROUPS}
    return snapshot, SiteRules("bench", groups, {CLOUD: CloudRules(CLOUD, quota, 0.0)}, (QUEUE,))


def _fresh(value: T) -> Fresh[T]:
    return Fresh(value, NOW - 0.2, NOW - 0.1)


def _group(name: GroupName, workers: int) -> GroupRules:
    return GroupRules(
        name=name,
        queue=QUEUE,
        clouds=(CLOUD,),
        shapes=tuple(shape.name for shape in SHAPES),
        generation=Generation("g"),
        minimum=0,
        maximum=workers,
        policy=QueuePolicy(),
    )


def _worker(number: int, dice: random.Random) -> Worker:
    booting = number % 20 == 0
    return Worker(
        id=WorkerId(f"w{number}"),
        group=GROUPS[number % len(GROUPS)],
        cloud=CLOUD,
        shape=dice.choice(SHAPES),
        zone=None,
        generation=Generation("g"),
        single_use=False,
        state=WorkerState.BOOTING if booting else WorkerState.JOINED,
        since=NOW - 100,
        created=NOW - 200,
        reason=Reason(Cause.LAUNCHED, "a benchmark"),
        machine=MachineId(f"m-w{number}"),
        launched=NOW - 150,
        joined=None if booting else NOW - 100,
    )


def _room(total: Resources, dice: random.Random, ragged: bool) -> Resources:
    """What a working node has left: nothing on most of them, or something else on each."""
    if ragged:
        return Resources(dice.randint(0, total.cores), dice.randint(0, total.memory))
    cores = dice.choice([0, 0, 0, 0, 0, 1, 2])
    return Resources(min(cores, total.cores), min(cores, total.cores) * dice.choice([0, 1024, 2048]))


def _node(worker: Worker, dice: random.Random, ragged: bool) -> Node:
    total = worker.shape.resources
    if dice.random() < 0.1:
        return Node(worker.id, worker.id, NodeState.ACCEPTING, total, total, 0, NOW - 50)
    return Node(worker.id, worker.id, NodeState.ACCEPTING, total, _room(total, dice, ragged), 2, None)


def _foreign(number: int, dice: random.Random, ragged: bool) -> Node:
    total = Resources(8, 16384)
    free = _room(total, dice, ragged)
    return Node(f"f{number}", None, NodeState.ACCEPTING, total, free, 1, None, f"kind{number % 10}")


def _row(number: int, dice: random.Random) -> DemandRow:
    need = Resources(dice.randint(1, 16), dice.randint(1, 32) * 1000)
    able = [shape.name for shape in SHAPES if shape.resources.covers(need)]
    offers = frozenset((group, shape) for group in dice.sample(GROUPS, 2) for shape in able)
    kinds = frozenset(f"kind{kind}" for kind in dice.sample(range(10), 3))
    return DemandRow(need, dice.randint(1, 200), NOW - 60, offers, f"row {number}", None, kinds)
