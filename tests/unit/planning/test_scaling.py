"""From demand to launches, recalls and drains: one small site after the other."""

from __future__ import annotations

import pytest

from gridtide.model.demand import NodeState
from gridtide.model.ids import QueueName
from gridtide.model.machines import MachineState, Quota
from gridtide.model.readings import Missing, Reading, Unconfirmed
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources
from gridtide.model.rules import FixedPolicy, PerJobPolicy, QueuePolicy, SiteRules, Wishes
from gridtide.model.snapshot import CloudView, GroupMemory, Heartbeat, OfferHealth
from gridtide.model.workers import Worker, WorkerState
from tests.unit.planning.worlds import (
    GRID,
    LARGE,
    NOW,
    ONE_CORE,
    POOL,
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

S = WorkerState
N = NodeState


def why_row(world: World, label: str = "") -> Reason:
    return world.plan().why_demand[("pool", label or str(ONE_CORE))]


def both() -> SiteRules:
    return site(group(shapes=("large", "small")))


def booting(name: str, **changes: float) -> Worker:
    return worker(name, S.BOOTING, since=NOW - 20, launched=changes.get("launched", NOW - 20))


# --- launching for demand


def test_nothing_waits() -> None:
    calm = World()
    assert calm.actions() == ()
    assert calm.plan().why_group[GRID].cause is Cause.SATISFIED


@pytest.mark.parametrize(("jobs", "machines"), [(1, 1), (2, 1), (3, 2), (19, 10), (20, 10)])
def test_as_many_machines_as_the_jobs_fill(jobs: int, machines: int) -> None:
    world = World(demand=[row(jobs)])
    assert brief(world.actions()) == [f"launch {machines} grid private small demand"]
    assert why_row(world).cause is Cause.STARTING
    launch = world.actions()[0]
    assert f"{jobs} job" in launch.reason.text


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        (10, ["1 large", "1 small"]),
        (8, ["1 large"]),
        (7, ["1 large"]),
        (16, ["2 large"]),
        (12, ["1 large", "2 small"]),
        (1, ["1 small"]),
        (23, ["3 large"]),
    ],
)
def test_the_choice_of_shapes_leaves_least_unused(jobs: int, expected: list[str]) -> None:
    lines = brief(World(rules=both(), demand=[row(jobs)]).actions())
    assert lines == [f"launch {part.split()[0]} grid private {part.split()[1]} demand" for part in expected]


def test_the_order_of_shapes_decides_among_equals() -> None:
    small_first = site(group(shapes=("small", "large")))
    assert brief(World(rules=small_first, demand=[row(16)]).actions()) == ["launch 8 grid private small demand"]


def test_no_shapes_named_means_all_of_the_cloud_cheapest_core_first() -> None:
    rules = site(group(shapes=()))
    assert brief(World(rules=rules, demand=[row(16)]).actions()) == ["launch 2 grid private large demand"]
    dear = LARGE.__class__(LARGE.name, LARGE.resources, price=9.0)
    assert brief(World(rules=rules, demand=[row(16)], shapes=[dear, SMALL]).actions()) == [
        "launch 8 grid private small demand"
    ]


def test_shapes_that_the_cloud_does_not_offer_are_passed_over() -> None:
    assert brief(World(rules=both(), demand=[row(16)], shapes=[SMALL]).actions()) == [
        "launch 8 grid private small demand"
    ]


def test_large_jobs_are_placed_first_and_small_ones_fill_what_is_left() -> None:
    demand = [row(2), row(1, Resources(6, 1024), label="wide")]
    assert brief(World(rules=both(), demand=demand).actions()) == ["launch 1 grid private large demand"]


def test_a_job_goes_only_where_its_requirements_allow() -> None:
    demand = [row(4, runs_on=[("grid", "large")])]
    assert brief(World(rules=both(), demand=demand).actions()) == ["launch 1 grid private large demand"]


def test_memory_limits_too() -> None:
    demand = [row(4, Resources(1, 4096))]
    assert brief(World(demand=demand).actions()) == ["launch 4 grid private small demand"]


def test_a_job_that_needs_nothing_is_given_a_core() -> None:
    assert brief(World(demand=[row(4, Resources())]).actions()) == ["launch 2 grid private small demand"]


def test_rows_that_look_alike_are_counted_together() -> None:
    demand = [row(1, label=f"row {number}") for number in range(8)]
    assert brief(World(rules=both(), demand=demand).actions()) == ["launch 1 grid private large demand"]


def test_no_shape_fits() -> None:
    world = World(demand=[row(3, Resources(64, 0), runs_on=[], label="64 cores")])
    assert world.actions() == ()
    why = why_row(world, "64 cores")
    assert why.cause is Cause.NO_SHAPE_FITS
    assert "64 cores" in why.text
    unknown = World(demand=[row(3, runs_on=[("grid", "huge")])])
    assert why_row(unknown).cause is Cause.NO_SHAPE_FITS


def test_no_shape_is_known_yet() -> None:
    rules = site(group(clouds=("private", "burst")))
    unread = CloudView(Missing("refused", NOW - 900), Missing("refused", NOW - 900))
    world = World(rules=rules, demand=[row(3, runs_on=[])], clouds={"burst": unread})
    assert why_row(world).cause is Cause.NO_EVIDENCE


# --- what is there already


def test_free_nodes_take_jobs_first() -> None:
    world = World(workers=[worker()], nodes=[node()], demand=[row(2)])
    assert world.actions() == ()
    assert why_row(world).cause is Cause.SATISFIED
    assert "2 fit into what is free" in why_row(world).text
    more = world.but(demand=[row(5)])
    assert brief(more.actions()) == ["launch 2 grid private small demand"]
    assert "2 fit into what is free now and 3 wait for workers on the way" in why_row(more).text


def test_what_a_busy_node_has_free_counts() -> None:
    world = World(workers=[worker()], nodes=[node(running=1, free=Resources(1, 2048))], demand=[row(1)])
    assert world.actions() == ()


def test_foreign_nodes_take_jobs_by_their_resources_alone() -> None:
    world = World(nodes=[node(None)], demand=[row(2, runs_on=[("grid", "small")])])
    assert world.actions() == ()
    assert brief(world.but(nodes=[node(None, N.DRAINED)]).actions()) == ["launch 1 grid private small demand"]


def test_our_nodes_take_what_their_offer_runs() -> None:
    world = World(workers=[worker()], nodes=[node()], rules=both(), demand=[row(8, runs_on=[("grid", "large")])])
    assert brief(world.actions()) == ["launch 1 grid private large demand"]


def test_a_shape_that_is_not_offered_any_more_takes_jobs_by_its_resources() -> None:
    retired = Worker(**{name: getattr(worker(), name) for name in Worker.__slots__} | {"shape": LARGE})
    world = World(workers=[retired], nodes=[node()], demand=[row(2)])
    assert world.actions() == ()


@pytest.mark.parametrize("state", [N.DRAINING, N.DRAINED, N.UNAVAILABLE])
def test_only_accepting_nodes_are_supply(state: NodeState) -> None:
    world = World(workers=[worker(drain_wanted=True)], nodes=[node(state=state)], demand=[row(2)])
    assert "launch 1 grid private small demand" in brief(world.actions())


@pytest.mark.parametrize("state", [S.INTENDED, S.LAUNCHING, S.BOOTING])
def test_workers_on_the_way_count_once(state: WorkerState) -> None:
    world = World(workers=[worker("w1", state, since=NOW - 20)], demand=[row(2)])
    assert world.actions() == ()
    assert why_row(world).cause is Cause.STARTING
    assert brief(world.but(demand=[row(3)]).actions()) == ["launch 1 grid private small demand"]


@pytest.mark.parametrize(("age", "counts"), [(60.0, True), (60.1, False)])
def test_a_worker_that_has_just_joined_counts_though_the_queue_does_not_list_it(age: float, counts: bool) -> None:
    world = World(workers=[worker(since=NOW - age)], demand=[row(2)])
    assert (world.actions() == ()) is counts
    if counts and age < 60:
        assert world.plan().look_again == NOW


def test_a_worker_that_the_queue_lost_counts_against_the_maximum_only() -> None:
    world = World(rules=site(group(maximum=1)), workers=[worker()], demand=[row(2)])
    assert world.actions() == ()
    assert why_row(world).cause is Cause.AT_MAXIMUM
    assert "1 of at most 1" in why_row(world).text


def test_a_worker_undrained_after_the_reading_counts() -> None:
    world = World(workers=[worker(since=NOW - 0.05, joined=NOW - 900)], nodes=[node(state=N.DRAINED)], demand=[row(2)])
    assert world.actions() == ()


def test_several_groups_share_the_jobs_of_a_queue() -> None:
    rules = site(group("a"), group("b"))
    both_run = row(4, runs_on=[("a", "small"), ("b", "small")])
    assert brief(World(rules=rules, demand=[both_run]).actions()) == ["launch 2 a private small demand"]
    split = [row(4, runs_on=[("a", "small")]), row(2, runs_on=[("b", "small")], label="b")]
    assert brief(World(rules=rules, demand=split).actions()) == [
        "launch 2 a private small demand",
        "launch 1 b private small demand",
    ]


def test_the_next_group_takes_what_the_first_cannot() -> None:
    rules = site(group("a", maximum=1), group("b"))
    both_run = row(6, runs_on=[("a", "small"), ("b", "small")])
    assert brief(World(rules=rules, demand=[both_run]).actions()) == [
        "launch 1 a private small demand",
        "launch 2 b private small demand",
    ]


# --- evidence


DOUBTFUL = Unconfirmed((), fresh(()), NOW - 1, NOW, "3 of 3 are suddenly not listed")


@pytest.mark.parametrize("source", ["demand_reading", "nodes_reading", "machines_reading", "shapes_reading"])
@pytest.mark.parametrize(("reading", "cause"), [(stale(()), Cause.NO_EVIDENCE), (DOUBTFUL, Cause.IMPLAUSIBLE)])
def test_nothing_is_launched_on_anything_but_fresh_readings(
    source: str, reading: Reading[tuple[object, ...]], cause: Cause
) -> None:
    known: Reading[tuple[object, ...]] = reading
    if source == "demand_reading":
        known = stale((row(3),)) if cause is Cause.NO_EVIDENCE else Unconfirmed((), fresh((row(3),)), NOW - 1, NOW, "x")
    if source == "shapes_reading":
        known = stale((SMALL,)) if cause is Cause.NO_EVIDENCE else Unconfirmed((), fresh((SMALL,)), NOW - 1, NOW, "x")
    world = World(demand=[row(3)]).but(**{source: known})
    assert world.actions() == ()
    assert why_row(world).cause is cause
    assert world.plan().why_group[GRID].cause is cause
    if cause is Cause.IMPLAUSIBLE:
        assert world.plan().look_again == NOW + 1


def test_after_the_warm_up_a_cloud_that_never_answered_blocks_only_itself() -> None:
    rules = site(group(clouds=("burst", "private")))
    unread = CloudView(Missing("refused", NOW - 900), Missing("refused", NOW - 900))
    world = World(rules=rules, demand=[row(2)], clouds={"burst": unread})
    assert brief(world.actions()) == ["launch 1 grid private small demand"]
    young = world.but(started=NOW - 59)
    assert young.actions() == ()
    assert young.plan().look_again == NOW + 1
    assert brief(world.but(started=NOW - 60).actions()) == ["launch 1 grid private small demand"]


def test_a_cloud_or_queue_that_is_not_in_the_snapshot_gives_no_evidence() -> None:
    assert World(rules=site(group(clouds=("nowhere",))), demand=[row(2)]).actions() == ()
    elsewhere = World(rules=site(group(queue="elsewhere")), workers=[worker()], demand=[row(2)])
    assert elsewhere.actions() == ()
    assert elsewhere.plan().why_group[GRID].cause is Cause.NO_EVIDENCE


# --- limits


@pytest.mark.parametrize("state", [state for state in S if state is not S.GONE])
def test_every_state_counts_against_the_maximum(state: WorkerState) -> None:
    held = worker("w1", state, since=NOW - 20, drain_wanted=state in (S.DRAINING, S.DRAINED))
    world = World(rules=site(group(maximum=2)), workers=[held], demand=[row(20)])
    assert sum(int(line.split()[1]) for line in brief(world.actions()) if line.startswith("launch")) == 1
    why = why_row(world)
    assert why.cause is Cause.AT_MAXIMUM


def test_a_worker_that_is_confirmed_gone_frees_its_place_in_the_next_cycle() -> None:
    going = worker(state=S.TERMINATING)
    world = World(rules=site(group(maximum=1)), workers=[going], machines=[], demand=[row(2)])
    assert brief(world.actions()) == ["w1 terminating->gone confirmed-gone"]
    assert world.plan().look_again == NOW + 1


def test_operators_change_the_maximum() -> None:
    world = World(demand=[row(20)], wishes=Wishes(maximum=3))
    assert brief(world.actions()) == ["launch 3 grid private small demand"]
    assert brief(world.but(wishes=Wishes(maximum=12), demand=[row(40)]).actions()) == [
        "launch 12 grid private small demand"
    ]
    assert world.but(wishes=Wishes(maximum=0)).actions() == ()


@pytest.mark.parametrize(
    ("quota", "launched"),
    [
        (Quota(), 10),
        (Quota(machines=5), 3),
        (Quota(cores=9), 2),
        (Quota(cores=4), 0),
        (Quota(memory=8192 + 3 * 4096), 3),
        (Quota(machines=5, cores=7), 1),
    ],
)
def test_the_quota_counts_foreign_machines_too(quota: Quota, launched: int) -> None:
    foreign = [machine(None, identity="a"), machine(None, MachineState.STOPPED, identity="b")]
    gone = machine(None, MachineState.GONE, identity="c")
    world = World(rules=site(quota=quota), machines=[*foreign, gone], demand=[row(20)])
    expected = [f"launch {launched} grid private small demand"] if launched else []
    assert brief(world.actions()) == expected
    if launched < 10:
        assert why_row(world).cause is Cause.AT_QUOTA


def test_quota_words_have_the_figures() -> None:
    foreign = machine(None, identity="a", resources=Resources(7, 1024))
    why = why_row(World(rules=site(quota=Quota(cores=8, machines=9)), machines=[foreign], demand=[row(20)]))
    assert "7 of 8 cores are used (7 by others), small needs 2" in why.text
    assert "machines" not in why.text
    full = why_row(World(rules=site(quota=Quota(machines=1)), machines=[foreign], demand=[row(20)]))
    assert "1 of 1 machines are used (1 by others), small needs 1" in full.text


def test_our_workers_are_counted_once_whether_listed_or_not() -> None:
    listed = worker("w1", S.BOOTING, since=NOW - 20)
    unlisted = worker("w2", S.LAUNCHING, since=NOW - 20)
    untagged = worker("w3", S.BOOTING, since=NOW - 20)
    elsewhere = worker("w4", S.BOOTING, since=NOW - 20, cloud="burst")
    world = World(
        rules=site(quota=Quota(machines=5)),
        workers=[listed, unlisted, untagged, elsewhere],
        machines=[machine("w1"), machine(None, identity="m-w3")],
        demand=[row(20)],
    )
    assert brief(world.actions()) == ["launch 2 grid private small demand"]
    by_tag = world.but(workers=[worker("w1", S.LAUNCHING, since=NOW - 20)], machines=[machine("w1")])
    assert brief(by_tag.actions())[1:] == ["launch 4 grid private small demand"]


def test_intents_of_this_plan_count_for_the_next_group() -> None:
    rules = site(group("a"), group("b"), quota=Quota(cores=6))
    demand = [row(4, runs_on=[("a", "small")]), row(4, runs_on=[("b", "small")], label="b")]
    assert brief(World(rules=rules, demand=demand).actions()) == [
        "launch 2 a private small demand",
        "launch 1 b private small demand",
    ]


def closed(allowed: int = 0, until: float = NOW + 30) -> OfferHealth:
    return OfferHealth(allowed, until, "no capacity")


def test_the_breaker_closes_a_shape() -> None:
    world = World(rules=both(), demand=[row(16)], health={(None, "large"): closed()})
    assert brief(world.actions()) == ["launch 8 grid private small demand"]
    alone = World(demand=[row(16)], health={(None, "small"): closed()})
    assert alone.actions() == ()
    why = why_row(alone)
    assert why.cause is Cause.CLOUD_REFUSING
    assert "no capacity (tried again in 30 s)" in why.text
    assert alone.plan().look_again == NOW + 30


def test_a_probe_is_one_launch() -> None:
    world = World(demand=[row(16)], health={(None, "small"): closed(allowed=1, until=NOW - 1)})
    assert brief(world.actions()) == ["launch 1 grid private small demand"]
    assert why_row(world).cause is Cause.CLOUD_REFUSING


def test_the_next_zone_and_the_next_cloud() -> None:
    zoned = World(demand=[row(6)], zones=["z1", "z2"], health={("z1", "small"): closed(allowed=1)})
    assert brief(zoned.actions()) == [
        "launch 1 grid private small z1 demand",
        "launch 2 grid private small z2 demand",
    ]
    other = CloudView(fresh(()), fresh((SMALL,)))
    rules = site(group(clouds=("private", "burst")))
    world = World(rules=rules, demand=[row(6)], clouds={"burst": other})
    assert brief(world.actions()) == ["launch 3 grid private small demand"]
    refused = world.but(health={(None, "small"): closed()})
    assert brief(refused.actions()) == ["launch 3 grid burst small demand"]
    silent = world.but(machines_reading=stale(()))
    assert brief(silent.actions()) == ["launch 3 grid burst small demand"]
    full = world.but(rules=site(group(clouds=("private", "burst")), quota=Quota(machines=2)))
    assert brief(full.actions()) == ["launch 2 grid private small demand", "launch 1 grid burst small demand"]


def test_health_of_other_shapes_is_no_news() -> None:
    world = World(rules=both(), demand=[row(1)], health={(None, "large"): closed()})
    assert world.plan().look_again is None


# --- operators


def test_hold_launches_and_drains_nothing() -> None:
    held = World(
        rules=site(group(minimum=5)),
        workers=[worker(), worker("w2", S.DRAINING, cause=Cause.IDLE)],
        nodes=[node(idle_since=NOW - 900), node("w2", N.DRAINING)],
        demand=[row(9)],
        wishes=Wishes(hold=True, maximum=1),
    )
    assert held.actions() == ()
    assert why_row(held).cause is Cause.HELD
    assert held.plan().why_group[GRID].cause is Cause.HELD
    assert held.why().cause is Cause.SILENT


def test_closing_launches_nothing() -> None:
    closing = World(demand=[row(9)], wishes=Wishes(closing=True))
    assert closing.actions() == ()
    assert why_row(closing).cause is Cause.HELD


def test_desired_pins_the_number() -> None:
    world = World(demand=[row(20)], wishes=Wishes(desired=3))
    assert brief(world.actions()) == ["launch 3 grid private small below-desired"]
    assert why_row(world).cause in (Cause.AT_MAXIMUM, Cause.STARTING)
    assert brief(world.but(wishes=Wishes(desired=99)).actions()) == ["launch 10 grid private small below-desired"]
    low = world.but(rules=site(group(minimum=2)), wishes=Wishes(desired=0))
    assert brief(low.actions()) == ["launch 2 grid private small below-desired"]
    none = world.but(wishes=Wishes(desired=0))
    assert none.actions() == ()
    assert why_row(none).cause is Cause.AT_MAXIMUM
    assert "pinned at 0" in why_row(none).text


def test_desired_needs_no_demand_and_no_nodes() -> None:
    blind = World(wishes=Wishes(desired=1), demand_reading=stale(()), nodes_reading=stale(()))
    assert brief(blind.actions()) == ["launch 1 grid private small below-desired"]


def test_a_pinned_group_says_so() -> None:
    pinned = World(workers=[worker(since=NOW - 90)], nodes=[node()], wishes=Wishes(desired=1))
    assert pinned.actions() == ()
    assert pinned.plan().why_group[GRID].cause is Cause.SATISFIED
    assert "pinned at 1" in pinned.plan().why_group[GRID].text
    assert pinned.why().cause is Cause.KEPT_IDLE
    assert "kept at 1 worker" in pinned.why().text


def test_the_minimum_is_kept_whatever_waits() -> None:
    world = World(rules=site(group(minimum=2)))
    assert brief(world.actions()) == ["launch 2 grid private small below-minimum"]
    assert brief(world.but(demand_reading=stale(()), nodes_reading=stale(())).actions()) == [
        "launch 2 grid private small below-minimum"
    ]
    started = world.but(workers=[booting("w1")])
    assert brief(started.actions()) == ["launch 1 grid private small below-minimum"]
    assert brief(world.but(wishes=Wishes(minimum=3)).actions()) == ["launch 3 grid private small below-minimum"]
    assert world.but(wishes=Wishes(minimum=0)).actions() == ()
    assert brief(world.but(wishes=Wishes(maximum=1)).actions()) == ["launch 1 grid private small below-minimum"]


def test_the_minimum_serves_demand_too() -> None:
    world = World(rules=site(group(minimum=2)), demand=[row(6)])
    assert brief(world.actions()) == [
        "launch 2 grid private small below-minimum",
        "launch 1 grid private small demand",
    ]


def test_restart_while_launches_are_pending_at_minimum_and_maximum() -> None:
    pending = [worker(f"w{number}", S.LAUNCHING, since=NOW - 5) for number in range(3)]
    assert World(rules=site(group(minimum=3, maximum=3)), workers=pending).actions() == ()


def test_a_minimum_that_no_cloud_can_serve_waits_for_the_breaker() -> None:
    world = World(rules=site(group(minimum=2)), health={(None, "small"): closed()})
    assert world.actions() == ()
    assert world.plan().look_again == NOW + 30


def test_a_lost_worker_does_not_make_up_the_minimum() -> None:
    world = World(rules=site(group(minimum=1)), workers=[worker()])
    assert brief(world.actions()) == ["launch 1 grid private small below-minimum"]
    assert world.but(nodes_reading=stale(())).actions() == ()
    unavailable = world.but(nodes=[node(state=N.UNAVAILABLE)])
    assert brief(unavailable.actions()) == ["launch 1 grid private small below-minimum"]
    assert world.but(nodes_reading=stale((node(state=N.UNAVAILABLE),))).actions() == ()


# --- policy queue


def test_the_threshold_and_the_waiting_time() -> None:
    rules = site(group(policy=QueuePolicy(threshold=10, waiting_time=100.0)))
    below = World(rules=rules, demand=[row(10)])
    assert below.actions() == ()
    assert why_row(below).cause is Cause.BELOW_THRESHOLD
    first = World(rules=rules, demand=[row(11)])
    assert first.actions() == ()
    assert why_row(first).cause is Cause.DEBOUNCE
    assert first.plan().memory[GRID] == GroupMemory(NOW)
    assert first.plan().look_again == NOW + 100
    assert first.plan().why_group[GRID].cause is Cause.DEBOUNCE
    ripe = first.but(memory=GroupMemory(NOW - 100))
    assert brief(ripe.actions()) == ["launch 6 grid private small demand"]
    assert first.but(demand_reading=stale((row(11),)), memory=GroupMemory(NOW - 100)).actions() == ()


def test_only_jobs_that_the_group_can_run_count() -> None:
    rules = site(group(policy=QueuePolicy(threshold=10)))
    demand = [row(8), row(8, runs_on=[("other", "small")], label="other")]
    assert World(rules=rules, demand=demand).actions() == ()


@pytest.mark.parametrize(("jobs", "starting", "launched"), [(10, 0, 3), (10, 1, 2), (12, 0, 3), (13, 0, 4), (4, 1, 0)])
def test_jobs_per_worker(jobs: int, starting: int, launched: int) -> None:
    rules = site(group(policy=QueuePolicy(jobs_per_worker=4)))
    world = World(rules=rules, demand=[row(jobs)], workers=[booting(f"w{number}") for number in range(starting)])
    assert brief(world.actions()) == ([f"launch {launched} grid private small demand"] if launched else [])


@pytest.mark.parametrize(("age", "counts"), [(100.0, True), (100.1, False)])
def test_a_worker_that_takes_too_long_to_start_does_not_count_any_more(age: float, counts: bool) -> None:
    rules = site(group(policy=QueuePolicy(deploy_time=100.0)))
    world = World(rules=rules, workers=[booting("w1", launched=NOW - age)], demand=[row(2)])
    assert (world.actions() == ()) is counts
    young = world.but(workers=[booting("w1", launched=NOW - 40)])
    assert young.plan().look_again == NOW + 60


# --- policy per_job


PER_JOB = site(group(policy=PerJobPolicy(idle_for=50.0), maximum=5))


def test_one_single_use_worker_for_each_job() -> None:
    world = World(rules=PER_JOB, demand=[row(3)])
    assert brief(world.actions()) == ["launch 3 grid private small demand"]
    launch = world.actions()[0]
    assert getattr(launch, "single_use", False)
    assert brief(world.but(demand=[row(30)]).actions()) == ["launch 5 grid private small demand"]
    assert not getattr(World(demand=[row(3)]).actions()[0], "single_use", True)


def test_workers_that_wait_for_their_job_are_counted() -> None:
    starting = worker("w1", S.BOOTING, since=NOW - 20, single_use=True)
    waiting = worker("w2", single_use=True)
    fresh_one = worker("w3", since=NOW - 5, single_use=True)
    busy = worker("w4", single_use=True)
    nodes = [node("w2"), node("w4", running=1, free=Resources(1, 1024))]
    world = World(rules=PER_JOB, workers=[starting, waiting, fresh_one, busy], nodes=nodes, demand=[row(3)])
    assert world.actions() == ()
    assert brief(world.but(demand=[row(4)]).actions()) == ["launch 1 grid private small demand"]


def test_a_single_use_worker_without_a_job_is_drained() -> None:
    world = World(rules=PER_JOB, workers=[worker(single_use=True)], nodes=[node(idle_since=NOW - 50)])
    assert brief(world.actions()) == ["drain w1 idle"]
    assert world.but(demand=[row(1)]).actions() == ()


def test_the_smallest_machine_that_runs_the_job() -> None:
    rules = site(group(policy=PerJobPolicy(), shapes=("large", "small")))
    assert brief(World(rules=rules, demand=[row(2)]).actions()) == ["launch 2 grid private small demand"]


# --- policy fixed


def test_a_fixed_number() -> None:
    rules = site(group(policy=FixedPolicy(2)))
    world = World(rules=rules, demand=[row(50)])
    assert brief(world.actions()) == ["launch 2 grid private small below-desired"]
    full = world.but(workers=[worker("w1"), worker("w2")], nodes=[node("w1", idle_since=NOW - 9000), node("w2")])
    assert full.actions() == ()
    assert brief(world.but(rules=site(group(policy=FixedPolicy(2), minimum=3))).actions()) == [
        "launch 3 grid private small below-desired"
    ]


# --- recalling drains


def drained(name: str = "w1", cause: Cause = Cause.IDLE, **wishes: bool) -> Worker:
    state = S.DRAINED if cause is Cause.DRAINED_EMPTY else S.DRAINING
    return worker(name, state, since=NOW - 50, cause=cause, drain_wanted=wishes.get("drain_wanted", False))


def test_load_that_returns_takes_a_drain_back() -> None:
    for listed in (N.DRAINING, N.DRAINED, N.ACCEPTING):
        world = World(workers=[drained()], nodes=[node(state=listed)], demand=[row(2)])
        assert brief(world.actions()) == ["undrain w1 load-returned"]
        assert world.why().cause is Cause.LOAD_RETURNED
        assert world.plan().why_group[GRID].cause is Cause.LOAD_RETURNED
        assert why_row(world).cause is Cause.STARTING


def test_a_drained_worker_is_taken_back_before_it_is_ended() -> None:
    world = World(workers=[drained(cause=Cause.DRAINED_EMPTY)], nodes=[node(state=N.DRAINED)], demand=[row(2)])
    assert brief(world.actions()) == ["undrain w1 load-returned"]
    assert brief(world.but(demand=()).actions()) == ["terminate w1 drained drained-empty"]


def test_only_as_many_drains_as_the_load_needs() -> None:
    workers = [drained(f"w{number}") for number in range(4)]
    nodes = [node(f"w{number}", N.DRAINING) for number in range(4)]
    world = World(workers=workers, nodes=nodes, demand=[row(3)])
    assert brief(world.actions()) == ["undrain w0 load-returned", "undrain w1 load-returned"]
    assert brief(world.but(demand=[row(9)]).actions())[-1] == "launch 1 grid private small demand"


def test_a_draining_worker_that_is_busy_offers_what_is_free() -> None:
    busy = node(state=N.DRAINING, running=1, free=Resources(1, 1024))
    assert brief(World(workers=[drained()], nodes=[busy], demand=[row(1)]).actions()) == ["undrain w1 load-returned"]
    full = node(state=N.DRAINING, running=2)
    assert "undrain" not in str(brief(World(workers=[drained()], nodes=[full], demand=[row(1)]).actions()))


def test_present_generation_first() -> None:
    workers = [worker("w1", S.DRAINING, cause=Cause.IDLE, generation="g0"), worker("w2", S.DRAINING, cause=Cause.IDLE)]
    nodes = [node("w1", N.DRAINING), node("w2", N.DRAINING)]
    assert brief(World(workers=workers, nodes=nodes, demand=[row(2)]).actions()) == ["undrain w2 load-returned"]


@pytest.mark.parametrize("cause", [Cause.SINGLE_USE, Cause.SELF_DRAINED, Cause.OVER_OLD])
def test_drains_that_load_does_not_take_back(cause: Cause) -> None:
    world = World(workers=[drained(cause=cause)], nodes=[node(state=N.DRAINING)], demand=[row(2)])
    assert brief(world.actions()) == ["launch 1 grid private small demand"]


def test_an_operators_drain_is_not_taken_back() -> None:
    world = World(workers=[drained(drain_wanted=True)], nodes=[node(state=N.DRAINING)], demand=[row(2)])
    assert brief(world.actions()) == ["launch 1 grid private small demand"]


def test_a_drain_is_taken_back_only_on_a_fresh_reading_since_it_began() -> None:
    late = worker(state=S.DRAINING, since=NOW - 0.05, cause=Cause.IDLE)
    for world in (
        World(workers=[late], nodes=[node(state=N.DRAINING)]),
        World(workers=[drained()], nodes=[node(state=N.UNAVAILABLE)]),
        World(workers=[drained()]),
        World(workers=[drained()], nodes_reading=stale((node(state=N.DRAINING),))),
    ):
        assert "undrain" not in str(brief(world.but(demand=[row(2)]).actions()))


def test_no_more_drains_are_taken_back_than_the_maximum_lets_stay() -> None:
    workers = [worker("w1"), drained("w2"), drained("w3")]
    nodes = [node("w1", running=1), node("w2", N.DRAINING), node("w3", N.DRAINING)]
    world = World(rules=site(group(maximum=2)), workers=workers, nodes=nodes, demand=[row(9)])
    assert brief(world.actions()) == ["undrain w2 load-returned"]


def test_the_minimum_takes_drains_back_before_it_launches() -> None:
    world = World(rules=site(group(minimum=2)), workers=[drained()], nodes=[node(state=N.DRAINING)])
    assert brief(world.actions()) == ["undrain w1 load-returned", "launch 1 grid private small below-minimum"]


# --- draining idle workers


def idle(since: float = NOW - 300, **changes: object) -> World:
    return World(workers=[worker()], nodes=[node(idle_since=since)]).but(**changes)


@pytest.mark.parametrize(("since", "drains"), [(NOW - 300, True), (NOW - 299, False)])
def test_idle_for_long_enough(since: float, drains: bool) -> None:
    heard = {"w1": Heartbeat(NOW, 0, 0.0, draining=False)}
    world = idle(since, heartbeats=heard)
    assert brief(world.actions()) == (["drain w1 idle"] if drains else [])
    if not drains:
        assert (world.why().cause, world.why().text) == (Cause.KEPT_IDLE, "idle for 299 s of 300 s")
        assert world.plan().look_again == NOW + 1


def test_idle_time_begins_anew_with_joining() -> None:
    undrained = worker(since=NOW - 100, joined=NOW - 900)
    world = World(workers=[undrained], nodes=[node(idle_since=NOW - 9000)])
    assert world.actions() == ()
    assert world.plan().look_again == NOW + 200


@pytest.mark.parametrize("source", ["demand_reading", "nodes_reading"])
def test_no_idle_worker_is_drained_on_readings_that_are_not_fresh(source: str) -> None:
    value = (node(idle_since=NOW - 900),) if source == "nodes_reading" else ()
    heard = {"w1": Heartbeat(NOW, 0, 0.0, draining=False)}
    for reading in (stale(value), Unconfirmed(value, fresh(value), NOW - 1, NOW, "doubt")):
        world = idle(heartbeats=heard).but(**{source: reading})
        assert world.actions() == ()
        assert world.why().cause in (Cause.NO_EVIDENCE, Cause.IMPLAUSIBLE, Cause.KEPT_IDLE)


def test_no_idle_worker_is_drained_while_jobs_wait_that_it_can_run() -> None:
    world = idle(demand=[row(1)])
    assert world.actions() == ()
    heard = world.but(heartbeats={"w1": Heartbeat(NOW, 0, 0.0, draining=False)})
    assert "jobs wait" in heard.why().text
    other = idle(rules=both(), demand=[row(1, runs_on=[("grid", "large")])], health={(None, "large"): closed()})
    assert brief(other.actions()) == ["drain w1 idle"]


def test_only_as_many_idle_workers_are_kept_as_the_jobs_need() -> None:
    workers = [worker(f"w{number}") for number in range(3)]
    nodes = [node(f"w{number}", idle_since=NOW - 300 - number) for number in range(3)]
    world = World(workers=workers, nodes=nodes, demand=[row(2)])
    assert brief(world.actions()) == ["drain w1 idle", "drain w2 idle"], "the longest idle go"


def test_a_heartbeat_that_says_busy_forbids_the_drain() -> None:
    busy = {"w1": Heartbeat(NOW, 1, 1.0, draining=False)}
    world = idle(heartbeats=busy)
    assert world.actions() == ()
    assert world.why().cause is Cause.BUSY
    older = {"w1": Heartbeat(NOW - 0.1, 1, 1.0, draining=False)}
    assert brief(idle(heartbeats=older).actions()) == ["drain w1 idle"]


def test_a_busy_worker_is_never_drained_for_want_of_work() -> None:
    assert World(workers=[worker()], nodes=[node(running=1)]).actions() == ()
    two = World(workers=[worker()], nodes=[node(host="a", idle_since=NOW - 900), node(host="b", running=1)])
    assert two.actions() == ()


def test_idle_since_when_is_not_known() -> None:
    world = World(workers=[worker()], nodes=[node(idle_since=None)])
    assert world.actions() == ()
    heard = world.but(heartbeats={"w1": Heartbeat(NOW, 0, 0.0, draining=False)})
    assert heard.why().text == "it runs nothing; its queue does not say since when"


def test_never_below_the_minimum() -> None:
    workers = [worker(f"w{number}") for number in range(3)]
    nodes = [node(f"w{number}", idle_since=NOW - 400) for number in range(3)]
    heard = {f"w{number}": Heartbeat(NOW, 0, 0.0, draining=False) for number in range(3)}
    world = World(rules=site(group(minimum=2)), workers=workers, nodes=nodes, heartbeats=heard)
    assert brief(world.actions()) == ["drain w0 idle"]
    assert world.why("w1").cause is Cause.AT_MINIMUM
    assert "keeps at least 2 workers" in world.why("w1").text
    calm = world.but(workers=workers[:2], nodes=nodes[:2])
    assert calm.actions() == ()
    assert calm.plan().why_group[GRID].cause is Cause.AT_MINIMUM
    one_boots = world.but(workers=[*workers[:2], booting("w9")], nodes=nodes[:2])
    assert one_boots.actions() == (), "a worker that boots does not stand in for one that is there"


def test_unavailable_nodes_are_not_idle() -> None:
    assert World(workers=[worker()], nodes=[node(state=N.UNAVAILABLE, idle_since=NOW - 900)]).actions() == ()


# --- other queues


def test_each_queue_has_its_own_demand() -> None:
    rules = site(group("a"), group("b", queue="second"))
    world = World(rules=rules, demand=[row(2, runs_on=[("a", "small")])])
    other = world.snapshot().queues[POOL]
    two = world.but(queues={"second": other})
    assert brief(two.actions()) == ["launch 1 a private small demand"]
    assert ("second", str(ONE_CORE)) in two.plan().why_demand
    assert two.plan().why_demand[(QueueName("second"), str(ONE_CORE))].cause is Cause.NO_SHAPE_FITS
