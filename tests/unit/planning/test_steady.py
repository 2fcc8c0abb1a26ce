"""What is kept of one cycle for the next changes no plan."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar
from unittest.mock import patch

import pytest
from hypothesis import given

from gridtide.model.actions import Drain, Plan
from gridtide.model.costs import HOUR, Budget
from gridtide.model.demand import Node, NodeState
from gridtide.model.ids import Generation, GroupName, MachineId, QueueName, WorkerId
from gridtide.model.machines import Machine, MachineState, Quota
from gridtide.model.readings import Missing, Reading, Stale, Unconfirmed, last_known
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources
from gridtide.model.rules import QueuePolicy, SiteRules, TidePolicy, Wishes
from gridtide.model.snapshot import CloudView, GroupMemory, Heartbeat, QueueView, Snapshot
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning import Planner, plan
from gridtide.planning import planner as planner_module
from gridtide.planning.budgets import LOOK_AHEAD, accounts_of
from gridtide.planning.evidence import Evidence
from gridtide.planning.policies.learning import EDGES
from gridtide.planning.steady import Past, Steady
from tests.unit.planning.test_properties import Dice, many, seeds
from tests.unit.planning.worlds import (
    CLOUD,
    GRID,
    NOW,
    SMALL,
    World,
    brief,
    fresh,
    group,
    machine,
    node,
    row,
    site,
    stale,
    worker,
)

T = TypeVar("T")

NAMES = ("w0", "w1", "w2")


def pool(**changes: object) -> World:
    """Three joined workers, each with a job and a core to spare, heard of ten seconds ago."""
    busy = World(
        workers=tuple(worker(name) for name in NAMES),
        nodes=tuple(node(name, running=1, free=Resources(1, 2048)) for name in NAMES),
        machines=tuple(machine(name) for name in NAMES),
        heartbeats={name: Heartbeat(NOW - 10, 1, 1.0, draining=False) for name in NAMES},
    )
    return busy.but(**changes)


def kept(planner: Planner) -> list[str]:
    """Workers that the next cycle need not look at."""
    past = planner._past
    assert past is not None
    return sorted(name for steady in past.groups.values() for name in steady.courses)


def test_a_worker_with_jobs_is_looked_at_once() -> None:
    planner, world = Planner(), pool()
    planner.plan(world.snapshot(), world.rules)
    assert kept(planner) == ["w0", "w1", "w2"]
    assert isinstance(planner._past, Past)
    evidence, others = planner._past.look(world.but(now=NOW + 5).snapshot(), world.rules)
    assert others == []
    assert evidence.seen.keys() == {WorkerId(name) for name in NAMES}


def test_their_room_takes_jobs() -> None:
    """Counted together, they are the same capacity as one by one."""
    planner, world = Planner(), pool(demand=(row(4),), rules=site(group(maximum=3)))
    for now in (NOW, NOW + 5):
        decided = planner.plan(world.but(now=now).snapshot(), world.rules)
        assert [reason.text for reason in decided.why_demand.values()] == [
            "of 4 jobs 3 fit into what is free now and 1 have no place: "
            "group grid: 3 of at most 3 workers exist or start"
        ]


def other(world: World, name: str, **changes: object) -> World:
    """One worker's record changed."""
    workers = tuple(replace(each, **changes) if each.id == name else each for each in world.workers)  # type: ignore[arg-type]
    return world.but(workers=workers)


CHANGES: dict[str, tuple[Callable[[World], World], list[str]]] = {
    "nothing": (lambda w: w, ["w0", "w1", "w2"]),
    "another job": (lambda w: w.but(nodes=(node("w0", running=2), *w.nodes[1:])), ["w0", "w1", "w2"]),
    "no job": (lambda w: w.but(nodes=(node("w0"), *w.nodes[1:])), ["w1", "w2"]),
    "it drains by itself": (
        lambda w: w.but(nodes=(node("w0", NodeState.DRAINING, running=1), *w.nodes[1:])),
        ["w1", "w2"],
    ),
    "it is not listed": (lambda w: w.but(nodes=w.nodes[1:]), ["w1", "w2"]),
    "two nodes": (lambda w: w.but(nodes=(*w.nodes, node("w0", running=1, host="second"))), ["w1", "w2"]),
    "an operator drains it": (lambda w: other(w, "w0", drain_wanted=True), ["w1", "w2"]),
    "an operator ends it": (lambda w: other(w, "w0", force_wanted=True), ["w1", "w2"]),
    "it is gone": (lambda w: w.but(workers=w.workers[1:]), ["w1", "w2"]),
    "its machine broke": (
        lambda w: w.but(machines=(machine("w0", MachineState.BROKEN), *w.machines[1:])),  # type: ignore[index]
        ["w1", "w2"],
    ),
    "its machine is to be taken away": (
        lambda w: w.but(machines=(replace(machine("w0"), notice="soon"), *w.machines[1:])),  # type: ignore[index]
        ["w1", "w2"],
    ),
    "its machine is not listed": (lambda w: w.but(machines=w.machines[1:]), ["w1", "w2"]),  # type: ignore[index]
    "a second machine": (
        lambda w: w.but(machines=(*w.machines, machine("w0", identity="twin"))),  # type: ignore[misc]
        ["w1", "w2"],
    ),
    "a second machine elsewhere": (
        lambda w: w.but(
            clouds={"burst": CloudView(fresh((machine("w0", identity="twin"),)), fresh(()))},
        ),
        ["w1", "w2"],
    ),
    "one is silent": (
        lambda w: w.but(
            now=NOW + 591,
            heartbeats={**w.heartbeats, "w1": Heartbeat(NOW + 590, 1, 1.0, draining=False)},
            nodes_reading=fresh(tuple(w.nodes), NOW + 590, NOW + 591),
        ),
        ["w1"],
    ),
    "the group is closed": (lambda w: w.but(wishes=Wishes(closing=True)), []),
    "the group is held": (lambda w: w.but(wishes=Wishes(hold=True)), ["w0", "w1", "w2"]),
    "a lower maximum": (lambda w: w.but(wishes=Wishes(maximum=1)), ["w2"]),
    "a pinned number": (lambda w: w.but(wishes=Wishes(desired=2)), ["w1", "w2"]),
    "nodes are stale": (lambda w: w.but(nodes_reading=stale(tuple(w.nodes))), ["w0", "w1", "w2"]),
    "nodes were never read": (lambda w: w.but(nodes_reading=Missing("refused", NOW)), []),
    "machines were never read": (lambda w: w.but(machines_reading=Missing("refused", NOW)), []),
    "the controller began anew": (lambda w: w.but(started=NOW - 1), ["w0", "w1", "w2"]),
    "another generation": (lambda w: w.but(rules=site(group(generation="g2"))), ["w1", "w2"]),
    "a group less": (lambda w: w.but(rules=site(group("other"))), []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_looked_at(change: str) -> None:
    make, still = CHANGES[change]
    planner, before = Planner(), pool()
    planner.plan(before.snapshot(), before.rules)
    after = make(before)
    snapshot = after.snapshot()
    assert planner.plan(snapshot, after.rules) == plan(snapshot, after.rules)
    assert kept(planner) == still
    again = replace(snapshot, now=snapshot.now + 1)
    assert planner.plan(again, after.rules) == plan(again, after.rules)


def test_steady_workers_count_against_a_quota() -> None:
    """And give way with those that have none, where a quota is contended."""
    rules = site(
        group("grid", shapes=("small",)), group("late", shapes=("small",)), quota=Quota(cores=6), clouds=("private",)
    )
    waiting = (row(4, runs_on=(("late", "small"),), label="late"),)
    world = pool(rules=rules, demand=waiting, workers=tuple(worker(name, since=NOW - 300) for name in NAMES))
    planner = Planner()
    for now in (NOW, NOW + 200, NOW + 301, NOW + 310):
        beats = {name: Heartbeat(now - 1, 1, 1.0, draining=False) for name in NAMES}
        snapshot = world.but(now=now, heartbeats=beats).snapshot()
        assert planner.plan(snapshot, rules) == plan(snapshot, rules)


def test_a_fault_in_planning_leaves_nothing_half_known() -> None:
    planner, world = Planner(), pool()
    planner.plan(world.snapshot(), world.rules)
    with pytest.raises(AttributeError):
        planner.plan(replace(world.snapshot(), clouds={CLOUD: None}), world.rules)  # type: ignore[dict-item]
    assert planner._past is None
    assert planner.plan(world.snapshot(), world.rules) == plan(world.snapshot(), world.rules)


class Sequel(Dice):
    """Draws snapshots that follow one another, of a site where most workers have jobs."""

    def worker(self) -> Worker:
        drawn = super().worker()
        if self.rarely():
            return drawn
        joined = replace(drawn, state=WorkerState.JOINED, drain_wanted=False, force_wanted=False, cloud=CLOUD)
        return replace(joined, machine=MachineId(f"m-{drawn.id}"), group=self.choice([GroupName("a"), GroupName("b")]))

    def node_of(self, entry: Worker) -> Node:
        drawn = super().node_of(entry)
        if entry.state is not WorkerState.JOINED or self.rarely():
            return drawn
        return replace(drawn, running=self.randint(1, 2), idle_since=None, state=NodeState.ACCEPTING)

    def next(self, before: Snapshot) -> Snapshot:
        """The same site a little later, with some of it changed."""
        drawn = self.snapshot()
        now = before.now + self.choice([0.0, 1.0, 1.0, 30.0, 30.0, 400.0])
        workers = before.workers  # the controller has the same mapping, too, for as long as no worker changes
        if self.rarely():
            workers = {**workers, **drawn.workers}
        if self.rarely() and workers:
            left = self.choice([*workers])
            workers = {name: entry for name, entry in workers.items() if name != left}
        self.held = dict(workers)
        beats = {name: Heartbeat(now, self.few(), 0.5, draining=False) for name in workers if self.few()}
        return replace(
            before,
            now=now,
            workers=workers,
            heartbeats={**before.heartbeats, **beats},
            queues={name: self.queue_after(name, view) for name, view in before.queues.items()},
            clouds={name: self.choice([view, view, view, self.cloud()]) for name, view in before.clouds.items()},
            wishes=drawn.wishes if self.rarely() else before.wishes,
            drain_acknowledged=drawn.drain_acknowledged,
        )

    def queue_after(self, name: QueueName, before: QueueView) -> QueueView:
        known = last_known(before.nodes)
        if known is None or self.rarely():
            return self.queue(name)
        some = tuple(self.node() if self.rarely() else each for each in known.value)
        nodes = fresh(tuple({each.name: each for each in some}.values()), known.started + 1, NOW)
        return replace(before, nodes=self.choice([before.nodes, nodes, replace(known, started=known.started + 1)]))


Variation = Callable[[Sequel, list[Snapshot], SiteRules], tuple[list[Snapshot], SiteRules]]


def with_tide(dice: Sequel, snapshots: list[Snapshot], rules: SiteRules) -> tuple[list[Snapshot], SiteRules]:
    """All groups follow the tide."""
    return snapshots, replace(
        rules, groups={name: replace(each, policy=dice.tide()) for name, each in rules.groups.items()}
    )


def with_budget(dice: Sequel, snapshots: list[Snapshot], rules: SiteRules) -> tuple[list[Snapshot], SiteRules]:
    """Machines cost something, and each cloud has a budget that is a little more than what they keep back at first."""
    priced: dict[int, Worker] = {}  # what was the same record stays the same one

    def price(entry: Worker) -> Worker:
        shape = replace(entry.shape, price=0.1 * entry.shape.resources.cores)
        return priced.setdefault(id(entry), replace(entry, shape=shape))

    sets: dict[int, dict[WorkerId, Worker]] = {}

    def of(workers: Mapping[WorkerId, Worker]) -> Mapping[WorkerId, Worker]:
        return sets.setdefault(id(workers), {name: price(entry) for name, entry in workers.items()})

    dear = [replace(each, workers=of(each.workers), ended_costs={}) for each in snapshots]
    clouds = {name: replace(each, budget=Budget(0.0, HOUR)) for name, each in rules.clouds.items()}
    accounts = accounts_of(Evidence(dear[0], replace(rules, clouds=clouds)))
    most = {name: max(account.totals(LOOK_AHEAD).values()) for name, account in accounts.items()}
    more = dice.choice([0.0, 0.01, 0.1, 0.1])
    clouds = {name: replace(each, budget=Budget(most[name] + more, HOUR)) for name, each in rules.clouds.items()}
    return dear, replace(rules, clouds=clouds)


VARIATIONS: dict[str, Variation] = {"tide": with_tide, "budget": with_budget}


def varied(variation: str, seed: int) -> tuple[list[Snapshot], SiteRules]:
    snapshots, rules = sequel(seed)
    return VARIATIONS[variation](Sequel(seed), snapshots, rules)


def in_turn(planner: Planner, snapshots: list[Snapshot], rules: SiteRules) -> Iterator[tuple[Snapshot, Plan]]:
    """Each planned with what the plan before it wanted remembered."""
    memory, queue_memory = snapshots[0].memory, snapshots[0].queue_memory
    for each in snapshots:
        snapshot = replace(each, memory=memory, queue_memory=queue_memory)
        decided = planner.plan(snapshot, rules)
        yield snapshot, decided
        memory, queue_memory = decided.memory, decided.queue_memory


def sequel(seed: int) -> tuple[list[Snapshot], SiteRules]:
    dice = Sequel(seed)
    dice.calm = True
    snapshots, rules = [dice.snapshot()], dice.rules()
    for _ in range(6):
        snapshots.append(dice.next(snapshots[-1]))
    return snapshots, rules


@many
@given(seeds)
def test_plans_are_those_of_a_planner_that_keeps_nothing(seed: int) -> None:
    snapshots, rules = sequel(seed)
    planner = Planner()
    for snapshot in snapshots:
        assert planner.plan(snapshot, rules) == plan(snapshot, rules)


def test_the_sequels_have_something_to_keep() -> None:
    """So that the property above does not hold for want of cases."""
    held = 0
    for seed in range(80):
        snapshots, rules = sequel(seed)
        planner = Planner()
        for snapshot in snapshots:
            before = set(kept(planner)) if planner._past is not None else set()
            planner.plan(snapshot, rules)
            held += len(before & set(kept(planner)))
    assert held > 40


class Unrest(Sequel):
    """Besides: sources that say the same anew, in other words or order, or all but one thing; workers in two queues and
    machines in two clouds; site files read again; new leaders; and faults in the middle of a cycle."""

    def next(self, before: Snapshot) -> Snapshot:
        after = super().next(before)
        queues = {
            name: replace(view, nodes=self.again(view.nodes, self.other_node)) for name, view in after.queues.items()
        }
        clouds = {
            name: replace(view, machines=self.again(view.machines, self.other_machine))
            for name, view in after.clouds.items()
        }
        if self.rarely():
            after = replace(after, started=after.now - self.choice([0.0, 1.0, 1000.0]))
        return replace(after, queues=self.spread(queues), clouds=clouds)

    def again(self, reading: Reading[tuple[T, ...]], other: Callable[[T], T]) -> Reading[tuple[T, ...]]:
        """What a source that is read once more may answer."""
        known = last_known(reading)
        if known is None or not known.value:
            return reading
        value, started = list(known.value), known.started + 1
        match self.randint(0, 5):
            case 0:
                value = copy.deepcopy(value)
            case 1:
                self.shuffle(value)
            case 2:
                place = self.randrange(len(value))
                value[place] = other(value[place])
            case 3:
                return Stale(known, "refused", started)
            case 4:
                return Unconfirmed((), known, started, started, "all are gone")
            case _:
                return reading
        return fresh(tuple(value), started, started)

    def other_node(self, before: Node) -> Node:
        """The same node, a little later."""
        drawn = self.node()
        state = drawn.state if self.rarely() else NodeState.ACCEPTING
        return replace(before, running=self.few(), free=Resources(self.few(), 1000), state=state)

    def other_machine(self, before: Machine) -> Machine:
        """The same machine, a little later."""
        return replace(before, state=self.choice([*MachineState]), notice=self.choice(["", "", "soon"]))

    def renewed(self, rules: SiteRules) -> SiteRules:
        """The same groups with another image, and another patience."""
        return replace(
            rules,
            groups={
                name: replace(
                    each, generation=Generation(self.choice(["g0", "g1", "g2"])), lease=self.choice([5.0, 600.0])
                )
                for name, each in rules.groups.items()
            },
        )

    def spread(self, queues: dict[QueueName, QueueView]) -> dict[QueueName, QueueView]:
        """Now and then a queue lists a node of another one as well."""
        known = [fresh_one for view in queues.values() if (fresh_one := last_known(view.nodes)) is not None]
        nodes = [each for reading in known for each in reading.value]
        if not nodes or not self.rarely():
            return queues
        name, more = self.choice([*queues]), self.choice(nodes)
        own = last_known(queues[name].nodes)
        if own is None:
            return queues
        value = tuple({each.name: each for each in (*own.value, more)}.values())
        return {**queues, name: replace(queues[name], nodes=fresh(value, own.started + 1, NOW))}


FAULTS = ((Steady, "look"), (planner_module, "_fleets"), (planner_module, "_scale"), (Past, "keep"))


def unrest(seed: int, planner: Planner) -> Iterator[tuple[Snapshot, SiteRules, Plan]]:
    """Each snapshot with the rules that it is planned under, and what the planner makes of it."""
    dice = Unrest(seed)
    dice.calm = True
    snapshot, rules = dice.snapshot(), dice.rules()
    for _ in range(6):
        if dice.rarely():
            rules = dice.choice([replace(rules), dice.rules(), dice.renewed(rules)])
        if dice.rarely():
            place, name = dice.choice(FAULTS)
            with patch.object(place, name, side_effect=ZeroDivisionError), suppress(ZeroDivisionError):
                planner.plan(dice.next(snapshot), rules)
        yield snapshot, rules, planner.plan(snapshot, rules)
        snapshot = dice.next(snapshot)


@many
@given(seeds)
def test_neither_reloads_nor_restarts_nor_faults_leave_anything_stale(seed: int) -> None:
    for snapshot, rules, decided in unrest(seed, Planner()):
        assert decided == plan(snapshot, rules)


def test_the_unrest_has_something_to_keep() -> None:
    """So that the property above does not hold for want of cases."""
    held = changed = 0
    for seed in range(100):
        planner, before = Planner(), set[str]()
        for _ in unrest(seed, planner):
            now = set(kept(planner))
            held, changed, before = held + len(before & now), changed + len(before - now), now
    assert held > 40
    assert changed > 40


@pytest.mark.parametrize("variation", VARIATIONS)
@many
@given(seed=seeds)
def test_policies_and_budgets_see_those_that_are_kept(variation: str, seed: int) -> None:
    """Whatever counts cores in use, or takes workers that are busy, has all of them before it."""
    snapshots, rules = varied(variation, seed)
    for snapshot, decided in in_turn(Planner(), snapshots, rules):
        assert decided == plan(snapshot, rules)


def of_those_kept(variation: str, before: set[WorkerId], snapshot: Snapshot, decided: Plan) -> bool:
    """Whether a level was learned from the work of some that were kept, or a budget drained one of them."""
    if variation == "budget":
        drains = [action for action in decided.actions if isinstance(action, Drain)]
        return any(drain.worker in before and drain.reason.cause is Cause.BUDGET for drain in drains)
    groups = {snapshot.workers[name].group for name in before & snapshot.workers.keys()}
    levels = [memory.level for name, memory in decided.memory.items() if name in groups]
    return any(level is not None and level.at == snapshot.now for level in levels)


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_variations_decide_by_those_that_are_kept(variation: str) -> None:
    """So that the property above does not hold for want of cases."""
    found = 0
    for seed in range(200):
        planner = Planner()
        before: set[WorkerId] = set()
        for snapshot, decided in in_turn(planner, *varied(variation, seed)):
            found += of_those_kept(variation, before, snapshot, decided)
            before = {WorkerId(name) for name in kept(planner)}
    assert found > 10


def test_a_budget_drains_those_that_are_kept() -> None:
    """When it has no room any more for all that take jobs."""
    dear = replace(SMALL, price=1.0)
    workers = tuple(worker(name, shape=dear, created=NOW - age) for age, name in enumerate(NAMES))
    world = pool(workers=workers)
    unbound = replace(world.rules.clouds[CLOUD], budget=Budget(0.0, HOUR))
    account = accounts_of(Evidence(world.snapshot(), replace(world.rules, clouds={CLOUD: unbound})))[CLOUD]
    most = max(account.totals(LOOK_AHEAD).values())
    rules = replace(world.rules, clouds={CLOUD: replace(unbound, budget=Budget(most + 0.01, HOUR))})
    planner = Planner()
    assert brief(planner.plan(world.snapshot(), rules).actions) == []
    assert kept(planner) == ["w0", "w1", "w2"]
    later = world.but(now=NOW + 60).snapshot()
    decided = planner.plan(later, rules)
    assert brief(decided.actions) == ["drain w0 budget"]
    assert decided == plan(later, rules)
    assert kept(planner) == ["w1", "w2"]


def test_the_tide_knows_the_work_of_those_that_are_kept() -> None:
    """The cores that they use make its level, those that they have free let idle ones go."""
    rules = site(group(policy=TidePolicy(idle_for=1800.0, ahead=0.0)))
    idle = (worker("w3"), node("w3", idle_since=NOW - 600), machine("w3"))
    world = pool(rules=rules)
    planner, memory = Planner(), GroupMemory()
    for now in (NOW, NOW + 5):
        decided = planner.plan(world.but(now=now, memory=memory).snapshot(), rules)
        memory = decided.memory[GRID]
        assert memory.level is not None
        assert memory.level.load == 3.0
    assert memory.level is not None
    assert kept(planner) == ["w0", "w1", "w2"]
    often = replace(memory.level.rises[0], counts=tuple(20.0 * (edge == 3) for edge in EDGES))  # w3 alone would be kept
    strays = GroupMemory(level=replace(memory.level, rises=(often, *memory.level.rises[1:])))
    more = world.but(
        now=NOW + 10,
        memory=strays,
        workers=(*world.workers, idle[0]),
        nodes=(*world.nodes, idle[1]),
        machines=(*(world.machines or ()), idle[2]),
    )
    decided = planner.plan(more.snapshot(), rules)
    assert brief(decided.actions) == ["drain w3 idle"]
    assert decided == plan(more.snapshot(), rules)


def test_those_that_are_kept_count_for_the_minimum() -> None:
    """So that an idle one beside them may go."""
    rules = site(group(minimum=3, policy=QueuePolicy(idle_for=60.0)))
    world, planner = pool(rules=rules), Planner()
    planner.plan(world.snapshot(), rules)
    more = world.but(
        workers=(*world.workers, worker("w3")),
        nodes=(*world.nodes, node("w3", idle_since=NOW - 600)),
        machines=(*(world.machines or ()), machine("w3")),
    )
    decided = planner.plan(more.snapshot(), rules)
    assert brief(decided.actions) == ["drain w3 idle"]
    assert kept(planner) == ["w0", "w1", "w2"]


def test_the_groups_of_the_site_file_are_those_that_are_kept() -> None:
    planner, world = Planner(), pool()
    planner.plan(world.snapshot(), world.rules)
    assert planner._past is not None
    assert planner._past.groups.keys() == {GroupName(GRID)}
