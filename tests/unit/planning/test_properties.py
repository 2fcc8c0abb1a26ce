"""What holds for every plan, whatever the snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from gridtide.model.actions import Advance, Drain, Launch, Plan, Terminate, TerminateStray, Undrain
from gridtide.model.demand import DemandRow, Node, NodeState
from gridtide.model.ids import CloudName, GroupName, MachineId, QueueName, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, MachineState, Quota
from gridtide.model.readings import Fresh, Missing, Reading, Stale, Unconfirmed, fresh
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources
from gridtide.model.rules import FixedPolicy, PerJobPolicy, QueuePolicy, SiteRules, Wishes
from gridtide.model.snapshot import CloudView, GroupMemory, Heartbeat, OfferHealth, QueueView, Snapshot
from gridtide.model.workers import HOLDS_MACHINE, Worker, WorkerState, may
from gridtide.planning import plan
from tests.unit.planning.worlds import LARGE, NOW, SMALL, group, machine, node, site, worker

T = TypeVar("T")

NAMES = [f"w{number}" for number in range(7)]
GROUPS = ["a", "b", "removed"]
CLOUDS = ["private", "burst"]
QUEUES = ["pool", "second"]
moments = st.sampled_from([NOW - 5000, NOW - 700, NOW - 61, NOW - 30, NOW - 3, NOW - 0.2, NOW - 0.1, NOW])
few = st.integers(0, 3)


def readings(values: st.SearchStrategy[T]) -> st.SearchStrategy[Reading[T]]:
    good = st.builds(Fresh, values, st.sampled_from([NOW - 40, NOW - 0.1]), st.just(NOW))
    return st.one_of(
        good,
        good,
        good,
        st.builds(Unconfirmed, values, good, st.just(NOW - 1), st.just(NOW), st.just("many are gone")),
        st.builds(Stale, good, st.just("refused"), st.just(NOW - 100)),
        st.just(Missing("not read yet", NOW - 100)),
    )


@st.composite
def workers(draw: st.DrawFn) -> Worker:
    state = draw(st.sampled_from([state for state in WorkerState if state is not WorkerState.GONE]))
    made = worker(
        draw(st.sampled_from(NAMES)),
        state,
        since=draw(moments),
        launched=draw(moments),
        joined=draw(moments),
        cause=draw(st.sampled_from(Cause)),
        shape=draw(st.sampled_from([SMALL, LARGE])),
        group_name=draw(st.sampled_from(GROUPS)),
        cloud=draw(st.sampled_from(CLOUDS)),
        single_use=draw(st.booleans()),
        generation=draw(st.sampled_from(["g0", "g1"])),
        drain_wanted=draw(st.integers(0, 5)) == 0,
        force_wanted=draw(st.integers(0, 5)) == 0,
    )
    return replace(made, machine=None) if draw(st.integers(0, 3)) == 0 else made


nodes = st.builds(
    node,
    st.sampled_from([*NAMES, "ghost", None]),
    st.sampled_from(NodeState),
    running=few,
    idle_since=st.one_of(st.none(), moments),
    total=st.sampled_from([SMALL.resources, LARGE.resources]),
    host=st.sampled_from(["", "n1", "n2", "n3"]),
)
machines = st.builds(
    machine,
    st.sampled_from([*NAMES, "ghost", None]),
    st.sampled_from(MachineState),
    identity=st.sampled_from([None, None, "x", "y", "m-w1"]),
)
offers = st.sets(st.sampled_from([(group_, shape) for group_ in GROUPS for shape in ("small", "large", "huge")]))


@st.composite
def rows(draw: st.DrawFn) -> DemandRow:
    need = draw(st.builds(Resources, few, st.sampled_from([0, 1000, 5000]), st.just(0), st.integers(0, 1)))
    keys = frozenset((GroupName(name), ShapeName(shape)) for name, shape in draw(offers))
    return DemandRow(need, draw(st.integers(0, 40)), draw(moments), keys, draw(st.sampled_from(["r1", "r2", "r3"])))


wishes = st.builds(
    Wishes,
    minimum=st.one_of(st.none(), few),
    maximum=st.one_of(st.none(), few),
    desired=st.one_of(st.none(), st.none(), few),
    hold=st.integers(0, 5).map(lambda number: number == 0),
    closing=st.integers(0, 5).map(lambda number: number == 0),
)
policies = st.one_of(
    st.builds(
        QueuePolicy,
        threshold=few,
        waiting_time=st.sampled_from([0.0, 50.0]),
        jobs_per_worker=st.sampled_from([None, 1, 4]),
        idle_for=st.sampled_from([0.0, 300.0]),
        deploy_time=st.sampled_from([None, 10.0]),
    ),
    st.builds(PerJobPolicy),
    st.builds(FixedPolicy, few),
)
quotas = st.builds(
    Quota,
    cores=st.one_of(st.none(), st.integers(0, 40)),
    memory=st.one_of(st.none(), st.integers(0, 80_000)),
    machines=st.one_of(st.none(), st.integers(0, 9)),
)


@st.composite
def sites(draw: st.DrawFn) -> SiteRules:
    groups = [
        group(
            name,
            clouds=draw(st.permutations(CLOUDS)),
            shapes=draw(st.sampled_from([(), ("small",), ("large", "small")])),
            minimum=draw(few),
            maximum=draw(st.integers(0, 9)),
            policy=draw(policies),
            queue=draw(st.sampled_from(QUEUES)),
        )
        for name in ("a", "b")
    ]
    return site(*groups, quota=draw(quotas), settle=draw(st.sampled_from([0.0, 30.0])))


def unique_machines(listed: list[Machine]) -> tuple[Machine, ...]:
    return tuple({entry.id: entry for entry in listed}.values())


def unique_nodes(listed: list[Node]) -> tuple[Node, ...]:
    return tuple({entry.name: entry for entry in listed}.values())


@st.composite
def clouds(draw: st.DrawFn) -> CloudView:
    listed = draw(readings(st.lists(machines, max_size=8).map(unique_machines)))
    shapes = draw(readings(st.sampled_from([(SMALL, LARGE), (SMALL,), ()])))
    zones = draw(st.sampled_from([(None,), (Zone("z1"), Zone("z2"))]))
    health = draw(
        st.dictionaries(
            st.tuples(st.sampled_from([None, Zone("z1"), Zone("z2")]), st.sampled_from([SMALL.name, LARGE.name])),
            st.builds(OfferHealth, few, st.sampled_from([NOW - 1, NOW + 50]), st.just("no capacity")),
            max_size=3,
        )
    )
    return CloudView(listed, shapes, zones, health)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    held = {entry.id: entry for entry in draw(st.lists(workers(), max_size=8))}
    return Snapshot(
        now=NOW,
        started=draw(st.sampled_from([NOW - 5000, NOW - 30])),
        queues={
            QueueName(name): QueueView(
                draw(readings(st.lists(rows(), max_size=5).map(tuple))),
                draw(readings(st.lists(nodes, max_size=8).map(unique_nodes))),
            )
            for name in draw(st.sampled_from([QUEUES, QUEUES[:1]]))
        },
        clouds={CloudName(name): draw(clouds()) for name in draw(st.sampled_from([CLOUDS, CLOUDS[:1]]))},
        workers=held,
        heartbeats=draw(
            st.dictionaries(
                st.sampled_from([WorkerId(name) for name in [*NAMES, "ghost"]]),
                st.builds(Heartbeat, moments, few, st.just(0.5), st.booleans()),
                max_size=4,
            )
        ),
        wishes={GroupName(name): draw(wishes) for name in draw(st.sampled_from([["a"], ["a", "b"], []]))},
        memory={GroupName("a"): GroupMemory(draw(st.one_of(st.none(), moments)))},
        drain_acknowledged={name: draw(moments) for name in held if draw(st.booleans())},
        undrain_answered={name: draw(moments) for name in held if draw(st.booleans())},
    )


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


@settings(max_examples=400, deadline=None)
@given(snapshots(), sites())
def test_every_plan_is_legal_explained_and_repeatable(snapshot: Snapshot, rules: SiteRules) -> None:
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


@settings(max_examples=400, deadline=None)
@given(snapshots(), sites())
def test_nothing_that_may_run_a_job_is_ended_without_evidence(snapshot: Snapshot, rules: SiteRules) -> None:
    for action in plan(snapshot, rules).actions:
        if isinstance(action, Terminate):
            subject = snapshot.workers[action.worker]
            if action.before in (WorkerState.JOINED, WorkerState.DRAINING):
                assert subject.force_wanted
            if action.before is WorkerState.DRAINED and not subject.force_wanted:
                check_emptiness(snapshot, subject)
            if action.before is WorkerState.FAILED and subject.state in (WorkerState.JOINED, WorkerState.DRAINING):
                check_death(snapshot, subject)
        if isinstance(action, TerminateStray):
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
    assert listed_running(snapshot, subject.id) == 0


@settings(max_examples=400, deadline=None)
@given(snapshots(), sites())
def test_no_limit_is_passed(snapshot: Snapshot, rules: SiteRules) -> None:
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


@settings(max_examples=300, deadline=None)
@given(snapshots(), sites())
def test_scaling_needs_fresh_evidence(snapshot: Snapshot, rules: SiteRules) -> None:
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
            and cause is Cause.IDLE
            and snapshot.workers[action.worker].state is WorkerState.JOINED
        ):
            view = snapshot.queues[rules.groups[snapshot.workers[action.worker].group].queue]
            assert fresh(view.demand) is not None
            assert listed_running(snapshot, action.worker) == 0
        if isinstance(action, Undrain):
            subject = snapshot.workers[action.worker]
            assert cause is Cause.LOAD_RETURNED
            if subject.state is WorkerState.DRAINING:
                assert not subject.drain_wanted
                assert nodes_of(snapshot, action.worker)


@settings(max_examples=200, deadline=None)
@given(snapshots(), sites())
def test_before_the_queue_has_answered_only_operators_force_moves_anything(
    snapshot: Snapshot, rules: SiteRules
) -> None:
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
