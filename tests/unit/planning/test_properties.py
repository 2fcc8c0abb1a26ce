"""What holds for every plan, whatever the snapshot."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from gridtide.model.actions import Advance, Drain, Launch, Plan, Terminate, TerminateStray, Undrain
from gridtide.model.costs import Budget
from gridtide.model.demand import Demand, DemandRow, Node, Nodes, NodeState
from gridtide.model.ids import CloudName, GroupName, MachineId, QueueName, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, Machines, MachineState, Quota
from gridtide.model.readings import Fresh, Missing, Reading, Stale, Unconfirmed, fresh
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources
from gridtide.model.rules import (
    FixedPolicy,
    LoadPolicy,
    PerJobPolicy,
    Policy,
    QueuePolicy,
    SchedulePolicy,
    SiteRules,
    TidePolicy,
    Window,
    Wishes,
)
from gridtide.model.snapshot import CloudView, GroupMemory, Heartbeat, Level, OfferHealth, QueueView, Rise, Snapshot
from gridtide.model.workers import HOLDS_MACHINE, MAY_RUN_JOBS, Worker, WorkerState, may
from gridtide.planning import plan
from gridtide.planning.lifecycle import SILENCE
from gridtide.planning.policies.learning import EDGES, KEEPINGS, SPANS
from tests.unit.planning.worlds import LARGE, NOW, SMALL, group, machine, node, site, worker

T = TypeVar("T")

NAMES = [f"w{number}" for number in range(7)]
JOINED_ONCE = (WorkerState.JOINED, WorkerState.DRAINING, WorkerState.DRAINED)
GROUPS = ["a", "b", "removed"]
CLOUDS = ["private", "burst"]
QUEUES = ["pool", "second"]
MOMENTS = [NOW - 5000, NOW - 700, NOW - 61, NOW - 30, NOW - 3, NOW - 0.2, NOW - 0.1, NOW]
LIVING = [state for state in WorkerState if state is not WorkerState.GONE]

EXAMPLES = int(os.environ.get("GRIDTIDE_EXAMPLES", "400"))
"""Snapshots for each property."""


class Dice(random.Random):
    """Draws snapshots. Far faster than composed strategies, and as repeatable: Hypothesis draws the seed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.calm = self.randint(0, 3) > 0
        """Whether most sources answer, and nodes and machines are mostly those of the workers."""
        self.held: dict[WorkerId, Worker] = {}

    def few(self) -> int:
        return self.randint(0, 3)

    def rarely(self) -> bool:
        return self.randint(0, 5) == 0

    def maybe(self, value: T) -> T | None:
        return value if self.randint(0, 1) else None

    def moment(self) -> float:
        return self.choice(MOMENTS)

    def several(self, make: Callable[[], T], most: int) -> list[T]:
        return [make() for _ in range(self.randint(0, most))]

    def reading(self, make: Callable[[], T]) -> Reading[T]:
        kind = self.randint(0, 60 if self.calm else 8)
        good = Fresh(make(), self.choice([NOW - 40, NOW - 0.1]), NOW)
        if kind == 0:
            return Missing("not read yet", NOW - 100)
        if kind == 1:
            return Stale(good, "refused", NOW - 100)
        return Unconfirmed(make(), good, NOW - 1, NOW, "many are gone") if kind == 2 else good

    def worker(self) -> Worker:
        made = worker(
            self.choice(NAMES),
            self.choice(LIVING),
            since=self.moment(),
            launched=self.moment(),
            joined=self.moment(),
            cause=self.choice([*Cause, Cause.IDLE, Cause.IDLE, Cause.JOINED]),
            shape=self.choice([SMALL, LARGE]),
            group_name=self.choice(["a", "b", "a", "b", "removed"]),
            cloud=self.choice(CLOUDS[:1] if self.calm else CLOUDS),
            single_use=self.rarely(),
            generation=self.choice(["g0", "g1"]),
            drain_wanted=self.rarely(),
            force_wanted=self.rarely(),
        )
        return replace(made, machine=None) if self.rarely() else made

    def node(self) -> Node:
        return node(
            self.choice([*NAMES, *NAMES, "ghost", None]),
            self.choice([*NodeState, NodeState.ACCEPTING, NodeState.ACCEPTING]),
            running=self.choice([0, 0, 0, 0, 1, 2]),
            idle_since=self.moment() if self.few() else None,
            total=self.choice([SMALL.resources, LARGE.resources]),
            host=self.choice(["", "", "n1", "n2"]),
        )

    def nodes(self, queue: str) -> Nodes:
        strange = self.several(self.node, 1 if self.calm else 8)
        listed = [entry for entry in self.held.values() if entry.state in JOINED_ONCE and not self.rarely()]
        own = [self.node_of(entry) for entry in listed if self.calm and queue == "pool"]
        return tuple({entry.name: entry for entry in [*strange, *own]}.values())

    def node_of(self, entry: Worker) -> Node:
        leaving = [NodeState.DRAINING, NodeState.DRAINED, NodeState.DRAINED]
        states = [NodeState.ACCEPTING] if entry.state is WorkerState.JOINED else leaving
        return replace(self.node(), worker=entry.id, name=f"node-{entry.id}", state=self.choice(states))

    def machine(self) -> Machine:
        return machine(
            self.choice([*NAMES, "ghost", None]),
            self.choice([*MachineState, MachineState.RUNNING, MachineState.RUNNING]),
            identity=self.choice([None, None, None, "x", "m-w1"]),
        )

    def machines(self) -> Machines:
        strange = self.several(self.machine, 1 if self.calm else 8)
        held = [entry for entry in self.held.values() if entry.machine and self.calm and not self.rarely()]
        own = [machine(entry.id, identity=entry.machine) for entry in held]
        return tuple({entry.id: entry for entry in [*strange, *own]}.values())

    def row(self) -> DemandRow:
        need = Resources(self.few(), self.choice([0, 1000, 5000]), 0, self.choice([0, 0, 0, 1]))
        offers = [(GroupName(name), ShapeName(shape)) for name in GROUPS for shape in ("small", "large", "huge")]
        keys = frozenset(offer for offer in offers if self.randint(0, 1))
        return DemandRow(need, self.randint(0, 40), self.moment(), keys, self.choice(["r1", "r2", "r3"]))

    def demand(self) -> Demand:
        return tuple(self.several(self.row, self.choice([0, 1, 5])))

    def wishes(self) -> Wishes:
        desired = self.few() if self.rarely() else None
        return Wishes(
            self.maybe(self.few()), self.maybe(self.few()), desired, hold=self.rarely(), closing=self.rarely()
        )

    def policy(self) -> Policy:
        following = QueuePolicy(
            threshold=self.choice([0, 0, 3]),
            waiting_time=self.choice([0.0, 50.0]),
            jobs_per_worker=self.choice([None, 1, 4]),
            idle_for=self.choice([0.0, 300.0]),
            deploy_time=self.choice([None, 10.0]),
        )
        load = LoadPolicy(add=self.randint(1, 3), remove=self.randint(1, 3), cooldown=self.choice([0.0, 60.0]))
        others: list[Policy] = [following, PerJobPolicy(), FixedPolicy(self.few()), load]
        windows = self.several(self.window, 2)
        schedule = SchedulePolicy(tuple(windows), "UTC", self.choice(others), self.choice([0, 0, 2]))
        return self.choice([following, self.tide(), *others, schedule])

    def window(self) -> Window:
        begins = self.choice(["* * * * *", "0 0 29 2 *"])
        return Window(begins, 60.0, self.maybe(self.few()), self.maybe(self.few()), None, self.maybe(self.few()))

    def tide(self) -> Policy:
        return TidePolicy(
            self.choice([0.0, 300.0, 1800.0]),
            self.choice([0.0, 1.0, 1.0]),
            self.choice([1, 4, 12]),
            self.choice([0.0, 8.0]),
        )

    def level(self) -> Level:
        return Level(
            self.moment(),
            self.moment(),
            float(self.few()),
            tuple(self.rise() for _ in SPANS),
            tuple((NOW - 60.0 * number, float(1 + self.few())) for number in range(self.few(), 0, -1)),
            tuple(float(self.few()) for _ in range(len(KEEPINGS) + 1)),
        )

    def rise(self) -> Rise:
        counts = tuple(float(self.few()) for _ in EDGES)
        return Rise(self.moment(), float(self.few()), float(self.few()), counts)

    def rules(self) -> SiteRules:
        groups = [
            group(
                name,
                clouds=self.sample(CLOUDS, 2),
                shapes=self.choice([(), ("small",), ("large", "small")]),
                minimum=self.choice([0, 0, 1, 3]),
                maximum=self.randint(0, 9),
                policy=self.policy(),
                queue=self.choice(["pool", "pool", "pool", "second"]),
            )
            for name in ("a", "b")
        ]
        quota = Quota(
            self.maybe(self.randint(0, 60)), self.maybe(self.randint(0, 120_000)), self.maybe(self.randint(0, 12))
        )
        return site(*groups, quota=quota, settle=self.choice([0.0, 30.0]))

    def cloud(self) -> CloudView:
        zones: Sequence[tuple[Zone | None, ...]] = [(None,), (Zone("z1"), Zone("z2"))]
        health = {
            (self.choice([None, Zone("z1"), Zone("z2")]), self.choice([SMALL.name, LARGE.name])): OfferHealth(
                self.few(), self.choice([NOW - 1, NOW + 50]), "no capacity"
            )
            for _ in range(self.randint(0, 2))
        }
        shapes = self.reading(lambda: self.choice([(SMALL, LARGE), (SMALL, LARGE), (SMALL,), ()]))
        return CloudView(self.reading(self.machines), shapes, self.choice(zones), health)

    def queue(self, name: str) -> QueueView:
        return QueueView(self.reading(self.demand), self.reading(lambda: self.nodes(name)))

    def heartbeat(self) -> Heartbeat:
        load = self.choice([0.0, 0.0, 0.5, 0.9, 7.0, float("nan")])
        return Heartbeat(self.moment(), self.few(), load, draining=False)

    def snapshot(self) -> Snapshot:
        held = self.held = {entry.id: entry for entry in self.several(self.worker, 8)}
        queues = QUEUES[:1] if self.rarely() else QUEUES
        clouds = CLOUDS[:1] if self.rarely() else CLOUDS
        quiet = Heartbeat(NOW - 0.2, 0, 0.0, draining=False) if self.rarely() else None
        heard = [WorkerId(name) for name in [*NAMES, "ghost"] if quiet is not None or self.rarely()]
        since = [self.maybe(self.moment()) for _ in range(4)]
        memory = GroupMemory(since[0], since[1], since[2], since[3], self.maybe(self.level()))
        if quiet is not None:  # all the same for a while, so that the alarm of a low load is reached
            memory = GroupMemory(low_since=NOW - 700)
        return Snapshot(
            now=NOW,
            started=self.choice([NOW - 5000, NOW - 30]),
            queues={QueueName(name): self.queue(name) for name in queues},
            clouds={CloudName(name): self.cloud() for name in clouds},
            workers=held,
            heartbeats={name: quiet or self.heartbeat() for name in heard},
            wishes={GroupName(name): self.wishes() for name in ("a", "b") if self.rarely() or self.rarely()},
            memory=dict.fromkeys((GroupName("a"), GroupName("b")), memory),
            drain_acknowledged={name: self.moment() for name in held if not self.rarely()},
            undrain_answered={name: self.moment() for name in held if not self.rarely()},
        )


def drawn(seed: int) -> tuple[Snapshot, SiteRules]:
    dice = Dice(seed)
    return dice.snapshot(), dice.rules()


seeds = st.integers(0, 2**64)
many = settings(max_examples=EXAMPLES, deadline=None)


def test_the_dice_reach_every_kind_of_action() -> None:
    """So that no property below holds for want of cases."""
    seen: Counter[tuple[object, ...]] = Counter()
    for seed in range(3000):
        for action in plan(*drawn(seed)).actions:
            before = getattr(action, "before", None)
            seen[(type(action), before, getattr(action, "after", action.reason.cause))] += 1
    ended = {before for kind, before, _ in seen if kind is Terminate}
    assert ended == set(LIVING) - {WorkerState.INTENDED, WorkerState.LAUNCHING}
    assert {kind for kind, _, _ in seen} == {Advance, Drain, Launch, Terminate, TerminateStray, Undrain}
    steps = {(before, after) for kind, before, after in seen if kind is Advance and before is not after}
    assert len(steps) >= 9, steps
    causes = {after for kind, _, after in seen if kind in (Launch, Drain)}
    assert causes >= {Cause.DEMAND, Cause.BELOW_MINIMUM, Cause.BELOW_DESIRED, Cause.IDLE, Cause.SURPLUS, Cause.OPERATOR}
    assert causes >= {Cause.LOAD_HIGH, Cause.LOAD_LOW, Cause.SCHEDULED}


def walk(snapshot: Snapshot, decided: Plan) -> Mapping[WorkerId, WorkerState]:
    """Apply the actions one after the other; every step must be legal when its turn comes."""
    states = {name: entry.state for name, entry in snapshot.workers.items()}
    for action in decided.actions:
        match action:
            case Advance(name, before, after, _, found):
                assert states[name] is before
                assert may(before, after) or (before is after and found is not None)
                states[name] = after
            case Drain(name):
                assert states[name] in (WorkerState.JOINED, WorkerState.DRAINING)
                states[name] = WorkerState.DRAINING
            case Undrain(name):
                assert may(states[name], WorkerState.JOINED)
                states[name] = WorkerState.JOINED
            case Terminate(name, before):
                assert states[name] is before
                assert before is WorkerState.TERMINATING or may(before, WorkerState.TERMINATING)
                states[name] = WorkerState.TERMINATING
            case TerminateStray() | Launch():
                pass
    return states


@many
@given(seeds)
def test_every_plan_is_legal_explained_and_repeatable(seed: int) -> None:
    snapshot, rules = drawn(seed)
    decided = plan(snapshot, rules)
    walk(snapshot, decided)
    assert all(action.reason.text for action in decided.actions)
    assert set(snapshot.workers) <= set(decided.why_worker)
    assert set(decided.why_group) == set(rules.groups)
    assert set(decided.memory) == set(rules.groups)
    reasons = [*decided.why_worker.values(), *decided.why_group.values(), *decided.why_demand.values()]
    assert all(isinstance(reason, Reason) and reason.text for reason in reasons)
    assert decided.look_again is None or decided.look_again > NOW
    assert plan(snapshot, rules) == decided
    assert plan(turned_around(snapshot), rules) == decided, "the order in which things are listed decides nothing"


@many
@given(seeds, st.sampled_from([0.01, 1.0, 5.0, 50.0]))
def test_budgets_leave_every_plan_legal_explained_and_repeatable(seed: int, per_day: float) -> None:
    snapshot, rules = drawn(seed)
    budget = Budget(per_day, 3600.0)
    rules = replace(rules, clouds={name: replace(each, budget=budget) for name, each in rules.clouds.items()})
    workers = {
        name: replace(each, shape=replace(each.shape, price=0.1 * each.shape.resources.cores))
        for name, each in snapshot.workers.items()
    }
    snapshot = replace(snapshot, workers=workers)
    decided = plan(snapshot, rules)
    walk(snapshot, decided)
    assert all(action.reason.text for action in decided.actions)
    assert plan(turned_around(snapshot), rules) == decided
    for action in decided.actions:
        if isinstance(action, Terminate) and action.before in MAY_RUN_JOBS:
            assert snapshot.workers[action.worker].force_wanted, "nothing that may run a job is ended for a budget"


def turned_around(snapshot: Snapshot) -> Snapshot:
    def other_way(mapping: Mapping[T, object]) -> dict[T, object]:
        return dict(reversed(list(mapping.items())))

    return replace(
        snapshot,
        workers=other_way(snapshot.workers),  # type: ignore[arg-type]
        heartbeats=other_way(snapshot.heartbeats),  # type: ignore[arg-type]
        queues=other_way(snapshot.queues),  # type: ignore[arg-type]
        clouds=other_way(snapshot.clouds),  # type: ignore[arg-type]
    )


@many
@given(seeds)
def test_nothing_that_may_run_a_job_is_ended_without_evidence(seed: int) -> None:
    snapshot, rules = drawn(seed)
    decided = plan(snapshot, rules)
    over = {
        name for name, state in walk(snapshot, decided).items() if state in (WorkerState.TERMINATING, WorkerState.GONE)
    }
    for action in decided.actions:
        if isinstance(action, Terminate):
            subject = snapshot.workers[action.worker]
            if action.before in (WorkerState.JOINED, WorkerState.DRAINING):
                assert subject.force_wanted
            if action.before is WorkerState.DRAINED and not subject.force_wanted:
                check_emptiness(snapshot, subject)
            if action.before is WorkerState.FAILED and subject.state in (WorkerState.JOINED, WorkerState.DRAINING):
                check_death(snapshot, subject)
        if isinstance(action, TerminateStray) and action.worker not in over:
            assert listed_running(snapshot, action.worker) == 0


def nodes_of(snapshot: Snapshot, name: WorkerId) -> list[Node]:
    return [
        entry
        for view in snapshot.queues.values()
        if (reading := fresh(view.nodes)) is not None
        for entry in reading.value
        if entry.worker == name
    ]


def listed_running(snapshot: Snapshot, name: WorkerId) -> int:
    return sum(entry.running for entry in nodes_of(snapshot, name))


def check_emptiness(snapshot: Snapshot, subject: Worker) -> None:
    assert listed_running(snapshot, subject.id) == 0
    listed = nodes_of(snapshot, subject.id)
    if subject.state is WorkerState.DRAINING:
        assert listed
        assert {entry.state for entry in listed} == {NodeState.DRAINED}
        assert subject.id in snapshot.drain_acknowledged
    else:
        assert NodeState.ACCEPTING not in {entry.state for entry in listed}


def check_death(snapshot: Snapshot, subject: Worker) -> None:
    reading = fresh(snapshot.clouds[subject.cloud].machines)
    assert reading is not None
    mine = [entry for entry in reading.value if entry.worker == subject.id]
    assert {MachineState.BROKEN, MachineState.STOPPED, MachineState.GONE} & {entry.state for entry in mine}
    heartbeat = snapshot.heartbeats.get(subject.id)
    assert heartbeat is None or heartbeat.at <= snapshot.now - SILENCE


@many
@given(seeds)
def test_no_limit_is_passed(seed: int) -> None:
    snapshot, rules = drawn(seed)
    launches = [action for action in plan(snapshot, rules).actions if isinstance(action, Launch)]
    new = Counter(dict.fromkeys(rules.groups, 0))
    for launch in launches:
        assert launch.count > 0
        new[launch.group] += launch.count
        wished = snapshot.wishes.get(launch.group, Wishes())
        assert not wished.hold
        assert not wished.closing
        view = snapshot.clouds[launch.cloud]
        health = (view.health or {}).get((launch.zone, launch.shape.name))
        assert health is None or launch.count <= health.allowed
        assert launch.zone in view.zones
        assert launch.generation == rules.groups[launch.group].generation
    for name, number in new.items():
        if number:
            have = sum(entry.group == name and entry.state in HOLDS_MACHINE for entry in snapshot.workers.values())
            wished_maximum = snapshot.wishes.get(name, Wishes()).maximum
            limit = rules.groups[name].maximum if wished_maximum is None else wished_maximum
            assert have + number <= limit
    for cloud in {launch.cloud for launch in launches}:
        check_quota(snapshot, rules, cloud, [launch for launch in launches if launch.cloud == cloud])


def check_quota(snapshot: Snapshot, rules: SiteRules, cloud: CloudName, launches: list[Launch]) -> None:
    reading = fresh(snapshot.clouds[cloud].machines)
    assert reading is not None, "nothing is launched on a listing that is not fresh"
    quota = rules.clouds[cloud].quota
    used = [entry.resources for entry in reading.value if entry.state is not MachineState.GONE]
    tags = {entry.worker for entry in reading.value}
    ids: set[MachineId] = {entry.id for entry in reading.value}
    used += [
        entry.shape.resources
        for entry in snapshot.workers.values()
        if entry.cloud == cloud and entry.id not in tags and entry.machine not in ids
    ]
    used += [launch.shape.resources for launch in launches for _ in range(launch.count)]
    assert quota.machines is None or len(used) <= quota.machines
    assert quota.cores is None or sum(each.cores for each in used) <= quota.cores
    assert quota.memory is None or sum(each.memory for each in used) <= quota.memory


@many
@given(seeds)
def test_scaling_needs_fresh_evidence(seed: int) -> None:
    snapshot, rules = drawn(seed)
    for action in plan(snapshot, rules).actions:
        cause = action.reason.cause
        if isinstance(action, Launch):
            view = snapshot.queues[rules.groups[action.group].queue]
            assert fresh(snapshot.clouds[action.cloud].shapes) is not None
            if cause is Cause.DEMAND:
                assert fresh(view.demand) is not None
                assert fresh(view.nodes) is not None
        if (
            isinstance(action, Drain)
            and cause in (Cause.IDLE, Cause.LOAD_LOW)
            and snapshot.workers[action.worker].state is WorkerState.JOINED
        ):
            view = snapshot.queues[rules.groups[snapshot.workers[action.worker].group].queue]
            assert cause is Cause.LOAD_LOW or fresh(view.demand) is not None
            assert fresh(view.nodes) is not None
            assert listed_running(snapshot, action.worker) == 0
        if isinstance(action, Undrain):
            subject = snapshot.workers[action.worker]
            assert cause is Cause.LOAD_RETURNED
            if subject.state is WorkerState.DRAINING:
                assert not subject.drain_wanted
                assert nodes_of(snapshot, action.worker)


@many
@given(seeds)
def test_before_the_queue_has_answered_only_operators_force_moves_anything(seed: int) -> None:
    snapshot, rules = drawn(seed)
    silent = QueueView(Missing("refused", NOW - 9), Missing("refused", NOW - 9))
    cold = replace(snapshot, queues={QueueName(name): silent for name in QUEUES})
    for action in plan(cold, rules).actions:
        match action:
            case Launch() | Drain() | Undrain() | TerminateStray(reason=Reason(cause=Cause.STRAY)):
                raise AssertionError(action)
            case Terminate(name, before):
                subject = cold.workers[name]
                assert subject.force_wanted or before is WorkerState.TERMINATING
            case Advance() | TerminateStray():
                pass
