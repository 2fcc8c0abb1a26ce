"""Who goes first when there are too many."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gridtide.model.demand import NodeState
from gridtide.model.ids import ShapeName
from gridtide.model.readings import Missing
from gridtide.model.reasons import Cause
from gridtide.model.resources import Shape
from gridtide.model.rules import FixedPolicy, Wishes
from gridtide.model.snapshot import CloudView, Heartbeat
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning.evidence import Evidence
from gridtide.planning.fleet import fleet_of
from gridtide.planning.lifecycle import follow
from gridtide.planning.victims import drain_idle
from tests.unit.planning.worlds import GRID, NOW, SMALL, World, brief, fresh, group, node, row, site, stale, worker

S = WorkerState


def pool(*busy: int, **changes: object) -> World:
    """Joined workers w0, w1 ... that run so many jobs each; the idle ones since one second each later."""
    workers = [worker(f"w{number}") for number in range(len(busy))]
    nodes = [node(f"w{number}", running=jobs, idle_since=NOW - 90 + number) for number, jobs in enumerate(busy)]
    return World(workers=workers, nodes=nodes).but(**changes)


# --- a lowered maximum


def test_a_lowered_maximum_drains_idle_workers_first_then_busy_ones_least_loss_first() -> None:
    world = pool(2, 0, 1, 0)
    assert brief(world.but(wishes=Wishes(maximum=3)).actions()) == ["drain w1 surplus"]
    assert brief(world.but(wishes=Wishes(maximum=2)).actions()) == ["drain w1 surplus", "drain w3 surplus"]
    assert brief(world.but(wishes=Wishes(maximum=1)).actions()) == [
        "drain w1 surplus",
        "drain w2 surplus",
        "drain w3 surplus",
    ]
    assert len(brief(world.but(wishes=Wishes(maximum=0)).actions())) == 4
    assert world.but(wishes=Wishes(maximum=4)).actions() == ()


def test_the_text_has_the_figures() -> None:
    plan = pool(1, 1, wishes=Wishes(maximum=1)).plan()
    assert plan.actions[0].reason.text == "group grid has 2 workers, at most 1 are wanted"
    assert plan.why_group[GRID].cause is Cause.SURPLUS
    assert plan.why_group[GRID].text.startswith("1 worker given back: ")
    desired = pool(1, 1, wishes=Wishes(desired=1)).plan()
    assert desired.actions[0].reason.text == "group grid has 2 workers, 1 are wanted"


def test_what_has_not_joined_goes_before_what_has() -> None:
    intent = worker("i1", S.INTENDED, created=NOW - 3)
    newer = worker("i2", S.INTENDED, created=NOW - 2)
    boots = worker("b1", S.BOOTING, since=NOW - 20)
    base = pool(0, 1)
    world = base.but(workers=[*base.workers, intent, newer, boots])
    assert brief(world.but(wishes=Wishes(maximum=4)).actions()) == ["i2 intended->gone withdrawn"]
    assert brief(world.but(wishes=Wishes(maximum=3)).actions()) == [
        "i1 intended->gone withdrawn",
        "i2 intended->gone withdrawn",
    ]
    assert brief(world.but(wishes=Wishes(maximum=2)).actions()) == [
        "terminate b1 booting withdrawn",
        "i1 intended->gone withdrawn",
        "i2 intended->gone withdrawn",
    ]
    assert "drain w0 surplus" in brief(world.but(wishes=Wishes(maximum=1)).actions())


def test_the_newest_of_those_that_boot_goes_first() -> None:
    boots = [worker(f"b{number}", S.BOOTING, since=NOW - 20, created=NOW - 30 + number) for number in range(3)]
    world = World(workers=boots, wishes=Wishes(maximum=2))
    assert brief(world.actions()) == ["terminate b2 booting withdrawn"]


def test_no_busy_worker_goes_for_one_that_cannot_be_ended_yet() -> None:
    launching = worker("l1", S.LAUNCHING, since=NOW - 5)
    just_joined = worker("j1", since=NOW - 5)
    for other in (launching, just_joined):
        base = pool(1)
        world = base.but(workers=[*base.workers, other], wishes=Wishes(maximum=1))
        assert world.actions() == ()
        idle = pool(0)
        assert brief(world.but(nodes=idle.nodes).actions()) == ["drain w0 surplus"]


def test_a_lost_worker_is_no_victim_and_no_reason_to_drain_below_what_is_wanted() -> None:
    base = pool(1, 1)
    lost = worker("lost")
    world = base.but(workers=[*base.workers, lost], wishes=Wishes(desired=2))
    assert world.actions() == (), "two are wanted, two work; the lost one only fills up the maximum"
    assert len(brief(world.but(wishes=Wishes(maximum=2)).actions())) == 1


@pytest.mark.parametrize("state", [NodeState.UNAVAILABLE, NodeState.DRAINING])
def test_only_nodes_that_a_fresh_reading_lists_as_accepting_are_drained(state: NodeState) -> None:
    world = World(workers=[worker()], nodes=[node(state=state)], wishes=Wishes(maximum=0))
    assert "drain w1 surplus" not in brief(world.actions())
    blind = World(workers=[worker()], nodes_reading=stale((node(),)), wishes=Wishes(maximum=0))
    assert blind.actions() == ()


def test_workers_of_a_cloud_that_never_answered_are_left_alone() -> None:
    unread = CloudView(Missing("refused", NOW - 900), Missing("refused", NOW - 900))
    rules = site(group(clouds=("private", "burst")))
    far = worker(cloud="burst")
    boots = worker("b1", S.BOOTING, since=NOW - 20, cloud="burst")
    world = World(rules=rules, workers=[far, boots], nodes=[node()], clouds={"burst": unread}, wishes=Wishes(maximum=0))
    assert world.actions() == ()


def test_a_fixed_number_comes_down_too() -> None:
    rules = site(group(policy=FixedPolicy(1)))
    assert brief(pool(1, 0, rules=rules).actions()) == ["drain w1 surplus"]


def test_an_over_old_worker_goes_first() -> None:
    base = pool(0, 0)
    workers = [base.workers[0], replace(base.workers[1], generation=worker(generation="g0").generation)]
    assert brief(base.but(workers=workers, wishes=Wishes(maximum=1)).actions()) == ["drain w1 surplus"]


def test_a_pinned_group_recalls_before_it_launches_and_stops_at_its_number() -> None:
    leaving = worker("w1", S.DRAINING, cause=Cause.SURPLUS)
    world = World(workers=[leaving], nodes=[node(state=NodeState.DRAINING)], wishes=Wishes(desired=1))
    assert brief(world.actions()) == ["undrain w1 load-returned"]
    assert brief(world.but(wishes=Wishes(desired=2)).actions()) == [
        "undrain w1 load-returned",
        "launch 1 grid private small below-desired",
    ]


def test_jobs_take_no_drain_back_in_a_group_that_is_held_or_pinned() -> None:
    leaving = worker("w1", S.DRAINING, cause=Cause.IDLE)
    world = World(workers=[leaving], nodes=[node(state=NodeState.DRAINING)], demand=[row(1)])
    assert brief(world.actions()) == ["undrain w1 load-returned"]
    assert brief(world.but(wishes=Wishes(hold=True)).actions()) == []
    assert brief(world.but(wishes=Wishes(desired=0)).actions()) == []


# --- the order among idle workers


def priced(price: float) -> Shape:
    return Shape(ShapeName("small"), SMALL.resources, price)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"generation": worker(generation="g0").generation}, {"created": NOW}),  # over-old before all else
        ({"shape": priced(2.0)}, {"shape": priced(1.0), "created": NOW}),  # then the dearest
        ({"created": NOW - 1}, {"created": NOW - 2}),  # then the newest
    ],
)
def test_the_least_missed_goes_first(first: dict[str, object], second: dict[str, object]) -> None:
    heard = {name: Heartbeat(NOW, 0, 0.0, draining=False) for name in ("w1", "w2")}
    for changes in ((first, second), (second, first)):
        workers = [
            replace(worker(f"w{number}"), **change)  # type: ignore[arg-type]
            for number, change in enumerate(changes, start=1)
        ]
        nodes = [node(f"w{number}", idle_since=NOW - 900) for number in (1, 2)]
        world = World(rules=site(group(minimum=1)), workers=workers, nodes=nodes, heartbeats=heard)
        expected = "w1" if changes[0] is first else "w2"
        assert brief(world.actions()) == [f"drain {expected} idle"]


def test_the_longest_idle_goes_before_the_dearest() -> None:
    workers: list[Worker] = [worker("w1"), replace(worker("w2"), shape=priced(9.0))]
    nodes = [node("w1", idle_since=NOW - 500), node("w2", idle_since=NOW - 400)]
    world = World(rules=site(group(minimum=1)), workers=workers, nodes=nodes)
    assert brief(world.actions()) == ["drain w1 idle"]


def test_jobs_keep_those_that_would_be_drained_last() -> None:
    old = replace(worker("w1"), generation=worker(generation="g0").generation)
    nodes = [node(name, idle_since=NOW - 900) for name in ("w1", "w2")]
    world = World(workers=[old, worker("w2")], nodes=nodes, demand=[row(2)])
    assert brief(world.actions()) == ["drain w1 idle"]


def test_jobs_fill_what_nobody_could_drain_first() -> None:
    """A foreign node has room: the idle worker is not needed for the job."""
    nodes = [node(None), node("w1", idle_since=NOW - 900)]
    world = World(workers=[worker()], nodes=nodes, demand=[row(2)])
    assert brief(world.actions()) == ["drain w1 idle"]


def test_a_contradicted_reading_drains_nobody() -> None:
    said = {"w0": Heartbeat(NOW, 1, 1.0, draining=False)}
    world = pool(0, 0, heartbeats=said, wishes=Wishes(maximum=1))
    assert brief(world.actions()) == ["drain w1 surplus"]
    assert brief(world.but(wishes=Wishes(maximum=0)).actions()) == ["drain w0 surplus", "drain w1 surplus"]


def test_surplus_and_a_new_worker_in_the_fresh_list() -> None:
    listed = fresh((node("w0"),))
    world = pool(0).but(nodes_reading=listed, wishes=Wishes(maximum=0))
    assert brief(world.actions()) == ["drain w0 surplus"]


def test_a_policy_without_idle_time_keeps_idle_workers() -> None:
    """No policy of today follows demand and keeps idle workers; one of tomorrow may."""
    world = pool(0)
    evidence = Evidence(world.snapshot(), world.rules)
    courses = [follow(each, evidence) for each in world.workers]
    for course in courses:
        course.settled = False
    fleet = fleet_of(world.rules.groups[GRID], courses, evidence)
    fleet.aim = replace(fleet.aim, idle_for=None)
    assert drain_idle(fleet, evidence, set(), None) == []
    assert fleet.drained == []
    assert courses[0].why.text == "idle for 90 s; its policy keeps idle workers"


def test_a_worker_that_is_gone_counts_for_nothing() -> None:
    """The snapshot should not hold any; one that does changes nothing."""
    gone = worker(state=S.GONE)
    world = World(rules=site(group(maximum=1)), workers=[gone], machines=[], demand=[row(2)])
    assert brief(world.actions()) == ["launch 1 grid private small demand"]
