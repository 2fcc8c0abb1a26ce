"""The policy ``tide``: what it learns, what it keeps free, what it lets go, and how large its machines are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.boots import BootKey, BootTimes
from gridtide.model.demand import NodeState
from gridtide.model.ids import CloudName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.readings import Fresh
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import TidePolicy, Wishes
from gridtide.model.snapshot import GroupMemory, Heartbeat, Level, OfferHealth, Swing
from gridtide.model.workers import WorkerState
from gridtide.planning import plan
from gridtide.planning.policies import Ahead, Aim, Outlook, Work, policy_of
from gridtide.planning.policies.tide import REMEMBERED, UNKNOWN_BOOT, WORTH_KEEPING
from tests.unit.planning.worlds import (
    CLOUD,
    GRID,
    LARGE,
    NOW,
    SMALL,
    World,
    brief,
    group,
    node,
    row,
    site,
    stale,
    worker,
)

ONE = Shape(ShapeName("one"), Resources(1, 2048))
HUGE = Shape(ShapeName("huge"), Resources(100, 204800))
EVERY = (("grid", "one"), ("grid", "small"), ("grid", "large"))
TIDE = TidePolicy(idle_for=1800.0, ahead=0.05, spread=4)


def work(used: int = 0, waiting: int = 0, jobs: int | None = None) -> Work:
    return Work(used if jobs is None else jobs, Resources(used, used * 1024), waiting)


def aim(
    done: Work | None,
    memory: GroupMemory | None = None,
    *,
    now: float = NOW,
    boot: float | None = None,
    parameters: TidePolicy = TIDE,
) -> Aim:
    return policy_of(parameters).aim(Outlook(now, None, memory or GroupMemory(), work=lambda: done, boot=boot))


def level(
    near: float = 0.0, far: float = 0.0, *, rose: float = NOW, at: float = NOW, mean: float = 100.0
) -> GroupMemory:
    """One whose load strays by so many cores, in standard deviations."""
    return GroupMemory(level=Level(at, rose, Swing(mean, near * near), Swing(mean, far * far)))


# --- what it learns


def test_it_begins_with_what_it_sees() -> None:
    assert aim(work(7, 3)).memory.level == Level(NOW, NOW, Swing(10.0), Swing(10.0))
    assert aim(work(7, 3)).ahead is None


def test_a_look_counts_by_the_time_that_has_passed() -> None:
    before = level(mean=100.0)
    after = aim(work(130, 10), before, now=NOW + 30.0, boot=60.0).memory.level
    assert after is not None
    assert after.at == after.rose == NOW + 30.0
    assert after.near == Swing(100.0 + 40.0 * 30.0 / 90.0, 1600.0 * 30.0 / (REMEMBERED + 30.0))
    assert after.far == Swing(100.0 + 40.0 * 30.0 / 1830.0, 1600.0 * 30.0 / (REMEMBERED + 30.0))
    unknown = aim(work(140), before, now=NOW + 30.0).memory.level
    assert unknown is not None
    assert unknown.near.mean == 100.0 + 40.0 * 30.0 / (UNKNOWN_BOOT + 30.0)


def test_the_same_moment_teaches_nothing_twice() -> None:
    before = level(3.0, 4.0)
    assert aim(work(500), before).memory.level == before.level
    assert aim(work(500), before, now=NOW - 5.0).memory.level == replace(before.level, at=NOW - 5.0, rose=NOW - 5.0)  # type: ignore[type-var]


@pytest.mark.parametrize(("load", "rises"), [(100, False), (101, True), (90, False)])
def test_it_rises_when_it_is_above_its_average_by_a_core(load: int, rises: bool) -> None:
    after = aim(work(load), level(rose=NOW - 99), now=NOW + 1).memory.level
    assert after is not None
    assert after.rose == (NOW + 1 if rises else NOW - 99)


def test_what_is_not_fresh_teaches_nothing_and_moves_nothing() -> None:
    before = level(10.0, 10.0)
    assert aim(None, before) == Aim(memory=before, idle_for=1800.0, spread=4)


@given(
    looks=st.lists(st.tuples(st.floats(0.0, 4000.0), st.integers(0, 5000), st.integers(0, 500)), max_size=30),
    boot=st.none() | st.floats(1.0, 2000.0),
)
def test_whatever_it_sees_it_stays_within_its_bounds(looks: list[tuple[float, int, int]], boot: float | None) -> None:
    memory, now, highest = GroupMemory(), NOW, 0
    for passed, used, waiting in looks:
        now += passed
        highest = max(highest, used + waiting)
        seen = aim(work(used, waiting), memory, now=now, boot=boot)
        assert seen == aim(work(used, waiting), memory, now=now, boot=boot)
        free = 0 if seen.ahead is None else seen.ahead.jobs * seen.ahead.each.cores
        assert free <= 0.05 * used
        assert seen.early is not None
        assert waiting + free <= seen.early.beyond <= waiting + 0.05 * used + 2 * highest + 1
        assert seen.memory.level is not None
        assert 0.0 <= seen.memory.level.near.mean <= highest
        memory = seen.memory


def test_a_load_that_stays_the_same_needs_nothing_ahead() -> None:
    memory = GroupMemory()
    for minute in range(600):
        given = aim(work(1000), memory, now=NOW + 60.0 * minute)
        memory = given.memory
        assert given.ahead is None
        assert given.early is not None
        assert given.early.beyond == 0


def test_how_often_it_looks_makes_little_difference() -> None:
    def learned(step: int) -> Level:
        memory = GroupMemory()
        for second in range(0, 14_400, step):
            memory = aim(work(1000 + 50 * (second // 300 % 2)), memory, now=NOW + second).memory
        assert memory.level is not None
        return memory.level

    often, seldom = learned(5), learned(30)
    assert often.near.variance == pytest.approx(seldom.near.variance, rel=0.3)
    assert often.far.variance == pytest.approx(seldom.far.variance, rel=0.3)
    assert often.near.variance > 100.0


# --- what it keeps free


def test_two_deviations_within_a_boot_are_kept_free() -> None:
    assert aim(work(1000), level(near=10.0)).ahead == Ahead(20, Resources(1, 1024))


def test_never_more_than_the_given_part_of_what_works() -> None:
    assert aim(work(300), level(near=10.0)).ahead == Ahead(15, Resources(1, 1024))
    assert aim(work(19), level(near=10.0)).ahead is None
    assert aim(work(300), level(near=10.0), parameters=replace(TIDE, ahead=0.0)).ahead is None


def test_none_once_the_load_has_not_risen_for_as_long_as_idle_workers_are_kept() -> None:
    def ahead(ago: float) -> Ahead | None:
        return aim(work(90), level(near=10.0, rose=NOW - ago)).ahead

    assert ahead(1799.0) is not None
    assert ahead(1800.0) is None


def test_for_jobs_like_those_that_run() -> None:
    def each(jobs: int, used: Resources) -> Ahead | None:
        return aim(Work(jobs, used, 0), level(near=50.0)).ahead

    assert each(100, Resources(800, 1_600_000, 0, 100)) == Ahead(5, Resources(8, 16_000, 0, 1))
    assert each(300, Resources(400, 0, 0, 100)) == Ahead(20, Resources(1, 0, 0, 0))
    assert each(10, Resources(80)) is None  # 4 cores, and each takes 8


# --- a group of one-core workers: 40 busy, some idle


def fleet(idle: int, *, busy: int = 40, since: float = NOW - 400, **changes: object) -> World:
    names = [f"b{number:02}" for number in range(busy)]
    free = [f"i{number:02}" for number in range(idle)]
    rules = site(group(shapes=("one", "small", "large"), maximum=1000, policy=TIDE))
    return World(
        rules=rules,
        shapes=(LARGE, SMALL, ONE),
        workers=[worker(name, shape=ONE, since=NOW - 5000) for name in (*names, *free)],
        heartbeats={name: Heartbeat(NOW - 500, 0, 0.0, False) for name in free},
        nodes=[
            *(node(name, running=1, total=ONE.resources) for name in names),
            *(node(name, idle_since=since, total=ONE.resources) for name in free),
        ],
        memory=level(mean=float(busy)),
    ).but(**changes)


def test_room_is_launched_before_jobs_wait() -> None:
    world = fleet(0, memory=level(near=5.0, mean=40.0))
    assert brief(world.actions()) == ["launch 2 grid private one ahead"]
    assert world.plan().actions[0].reason.text == (
        "room for 2 jobs (1 core, 2 GiB memory each) is kept free: "
        "so far may the load of group grid rise while a machine boots"
    )
    assert world.plan().why_group[GRID].cause is Cause.AHEAD


def test_room_that_is_there_or_on_the_way_is_not_launched_again() -> None:
    memory = level(near=5.0, mean=40.0)
    assert fleet(2, memory=memory).actions() == ()
    booting = [worker(f"n{number}", WorkerState.BOOTING, shape=ONE, since=NOW - 60) for number in range(2)]
    world = fleet(0, memory=memory)
    assert world.but(workers=[*world.workers, *booting]).actions() == ()


def test_jobs_that_wait_come_first() -> None:
    world = fleet(1, demand=[row(3, runs_on=EVERY)], memory=level(near=5.0, mean=44.0))
    assert brief(world.actions()) == ["launch 2 grid private one demand", "launch 2 grid private one ahead"]


def test_a_drain_is_taken_back_for_it() -> None:
    world = fleet(0, memory=level(near=5.0, mean=40.0))
    leaving = worker("d1", WorkerState.DRAINING, shape=ONE, cause=Cause.IDLE, since=NOW - 5)
    world = world.but(
        workers=[*world.workers, leaving],
        nodes=[*world.nodes, node("d1", NodeState.DRAINED, total=ONE.resources)],
        acknowledged={},
    )
    assert brief(world.actions()) == ["undrain d1 load-returned", "launch 1 grid private one ahead"]


@pytest.mark.parametrize("wishes", [Wishes(hold=True), Wishes(desired=40), Wishes(maximum=40)])
def test_operators_have_the_last_word(wishes: Wishes) -> None:
    assert fleet(0, memory=level(near=5.0, mean=40.0), wishes=wishes).actions() == ()


def test_nothing_is_launched_ahead_where_a_quota_must_be_shared() -> None:
    rules = site(group(shapes=("one",), maximum=1000, policy=TIDE), quota=Quota(cores=42))
    world = fleet(0, rules=rules, memory=level(near=5.0, mean=50.0), demand=[row(9, runs_on=EVERY)])
    assert brief(world.actions()) == ["launch 2 grid private one demand"]


def test_the_room_that_is_kept_for_another_group_is_not_taken() -> None:
    mine = group(shapes=("one",), maximum=1000, policy=TIDE)
    rules = site(mine, group("other", shapes=("large",), maximum=1000), quota=Quota(cores=44))
    eight = row(1, Resources(8, 8192), runs_on=(("other", "large"),))
    memory = level(near=5.0, mean=40.0)
    assert brief(fleet(0, rules=rules, memory=memory).actions()) == ["launch 2 grid private one ahead"]
    assert not [
        line for line in brief(fleet(0, rules=rules, memory=memory, demand=[eight]).actions()) if "launch" in line
    ]


def test_nothing_is_launched_or_let_go_on_stale_readings() -> None:
    listed = tuple(fleet(9).nodes)
    assert fleet(9, nodes_reading=stale(listed)).actions() == ()
    assert fleet(9, demand_reading=stale(())).actions() == ()
    assert fleet(0, memory=level(near=5.0, mean=40.0), demand_reading=stale(())).actions() == ()


# --- what it lets go


def test_idle_workers_beyond_what_may_come_go_early_the_longest_idle_first() -> None:
    assert len(fleet(5).actions()) == 5
    world = fleet(5, memory=level(far=1.5, mean=40.0))
    assert brief(world.actions()) == ["drain i00 idle", "drain i01 idle"]
    text = world.plan().actions[0].reason.text
    assert text == "idle for 400 s; 3 free cores are enough for what may come"
    assert world.why("i02").text == "idle for 400 s of 1800 s"


def test_no_worker_goes_before_it_was_worth_keeping() -> None:
    assert fleet(5, since=NOW - WORTH_KEEPING + 1).actions() == ()
    assert len(fleet(5, since=NOW - WORTH_KEEPING).actions()) == 5
    short = site(group(shapes=("one",), maximum=1000, policy=replace(TIDE, idle_for=60.0)))
    assert len(fleet(5, since=NOW - 60, rules=short).actions()) == 5
    assert fleet(5, since=NOW - 59, rules=short).actions() == ()


def test_idle_for_is_the_longest() -> None:
    world = fleet(5, memory=level(far=99.0, mean=40.0))
    assert world.actions() == ()
    assert len(world.but(nodes=fleet(5, since=NOW - 1800).nodes).actions()) == 5


def test_what_is_kept_for_jobs_to_come_stays_longer() -> None:
    world = fleet(5, since=NOW - 1800, memory=level(near=5.0, mean=40.0))
    assert len(world.actions()) == 3
    kept = [name for name in ("i00", "i01", "i02", "i03", "i04") if "jobs to come" in world.why(name).text]
    assert len(kept) == 2
    calm = world.but(memory=level(near=5.0, mean=40.0, rose=NOW - 1800))
    assert len(calm.actions()) == 5


def test_what_waits_and_what_is_on_the_way_count() -> None:
    elsewhere = row(2, Resources(1, 4096), runs_on=EVERY)  # more memory than the idle ones have
    world = fleet(3, demand=[elsewhere])
    assert [line for line in brief(world.actions()) if line.startswith("drain")] == [
        "drain i00 idle",
        "drain i01 idle",
        "drain i02 idle",
    ]
    boots = [worker(f"n{number}", WorkerState.BOOTING, shape=ONE, since=NOW - 60) for number in range(3)]
    world = fleet(3, memory=level(far=1.5, mean=40.0))
    assert len(world.but(workers=[*world.workers, *boots]).actions()) == 3


def test_a_large_worker_stays_when_part_of_it_may_be_wanted() -> None:
    idle = node("large", idle_since=NOW - 400, total=LARGE.resources)
    world = fleet(0)
    world = world.but(
        workers=[*world.workers, worker("large", shape=LARGE, since=NOW - 5000)], nodes=[*world.nodes, idle]
    )
    assert brief(world.actions()) == ["drain large idle"]
    assert world.but(memory=level(far=0.5, mean=40.0)).actions() == ()


def test_the_minimum_stays() -> None:
    rules = site(group(shapes=("one",), minimum=43, maximum=1000, policy=TIDE))
    assert brief(fleet(5, rules=rules).actions()) == ["drain i00 idle", "drain i01 idle"]


def test_it_looks_again_while_something_is_idle() -> None:
    world = fleet(1, memory=level(far=9.0, mean=40.0))
    assert world.plan().look_again == NOW + 60.0
    assert fleet(1, since=NOW - 10, memory=level(far=9.0, mean=40.0)).plan().look_again == NOW + WORTH_KEEPING - 10


# --- how large its machines are


def tide_site(**changes: object) -> World:
    rules = site(group(shapes=("large", "small", "one"), maximum=1000, policy=TIDE))
    return World(rules=rules, shapes=(LARGE, SMALL, ONE)).but(**changes)


@pytest.mark.parametrize(
    ("jobs", "launched"),
    [
        (1, ["launch 1 grid private one demand"]),
        (7, ["launch 7 grid private one demand"]),
        (8, ["launch 4 grid private small demand"]),
        (9, ["launch 4 grid private small demand", "launch 1 grid private one demand"]),
        (31, ["launch 15 grid private small demand", "launch 1 grid private one demand"]),
        (32, ["launch 4 grid private large demand"]),
    ],
)
def test_no_machine_is_more_than_a_part_of_what_is_launched(jobs: int, launched: list[str]) -> None:
    assert brief(tide_site(demand=[row(jobs, runs_on=EVERY)]).actions()) == launched


def test_what_boots_counts_as_being_launched() -> None:
    boots = [worker(f"n{number}", WorkerState.BOOTING, shape=LARGE, since=NOW - 60) for number in range(3)]
    taken = row(24, Resources(1, 2048), runs_on=EVERY)
    world = tide_site(workers=boots, demand=[taken, row(8, Resources(1, 1024), runs_on=EVERY)])
    assert brief(world.actions()) == ["launch 1 grid private large demand"]


def test_what_a_minimum_launches_counts_too() -> None:
    rules = site(group(shapes=("large", "small", "one"), minimum=3, maximum=1000, policy=TIDE))
    world = tide_site(rules=rules, demand=[row(32, runs_on=EVERY)])
    assert brief(world.actions()) == [
        "launch 3 grid private large below-minimum",
        "launch 1 grid private large demand",
    ]


def test_groups_of_other_policies_are_not_touched() -> None:
    rules = site(
        group(shapes=("one",), maximum=1000, policy=TIDE), group("other", shapes=("small", "large"), maximum=1000)
    )
    shapes = (replace(LARGE, price=0.8), replace(SMALL, price=0.5), ONE)
    world = tide_site(rules=rules, shapes=shapes, demand=[row(2, runs_on=(("other", "small"), ("other", "large")))])
    assert brief(world.actions()) == ["launch 1 other private small demand"]


def test_a_job_that_needs_a_large_machine_gets_one() -> None:
    world = tide_site(demand=[row(1, Resources(4, 4096), runs_on=(("grid", "large"),))])
    assert brief(world.actions()) == ["launch 1 grid private large demand"]


def test_one_part_is_as_large_as_jobs_fill() -> None:
    rules = site(group(shapes=("large", "small", "one"), maximum=1000, policy=replace(TIDE, spread=1)))
    assert brief(tide_site(rules=rules, demand=[row(8, runs_on=EVERY)]).actions()) == [
        "launch 1 grid private large demand"
    ]


def test_small_machines_whose_cores_are_too_dear_are_left_alone() -> None:
    def launched(price: float) -> list[str]:
        shapes = (replace(LARGE, price=0.8), replace(SMALL, price=0.2), replace(ONE, price=price))
        return brief(tide_site(shapes=shapes, demand=[row(2, runs_on=EVERY)]).actions())

    assert launched(0.125) == ["launch 2 grid private one demand"]
    assert launched(0.126) == ["launch 1 grid private small demand"]


def test_a_small_maximum_is_not_used_up_by_small_machines() -> None:
    def launched(have: int, maximum: int, quota: Quota | None = None) -> list[str]:
        rules = site(group(shapes=("large", "small", "one"), maximum=maximum, policy=TIDE), quota=quota)
        workers = [worker(f"w{number}", shape=ONE) for number in range(have)]
        nodes = [node(f"w{number}", running=1, total=ONE.resources) for number in range(have)]
        world = tide_site(rules=rules, workers=workers, nodes=nodes, demand=[row(2, runs_on=EVERY)])
        return brief(world.actions())

    assert launched(2, 9) == ["launch 2 grid private one demand"]
    assert launched(2, 8) == ["launch 1 grid private small demand"]
    assert launched(2, 100, Quota(machines=9)) == ["launch 2 grid private one demand"]
    assert launched(2, 100, Quota(machines=8)) == ["launch 1 grid private small demand"]
    assert launched(2, 100, Quota(cores=8)) == ["launch 2 grid private one demand"]


def test_small_machines_take_a_quarter_of_the_maximum_at_once_and_no_more() -> None:
    """Else those jobs would keep all machines that there may be, and the others wait for as long."""

    def launched(jobs: int, quota: Quota | None = None, maximum: int = 4) -> list[str]:
        rules = site(group(shapes=("large", "small", "one"), maximum=maximum, policy=TIDE), quota=quota)
        return brief(tide_site(rules=rules, demand=[row(jobs, runs_on=EVERY)]).actions())

    few = ["launch 2 grid private one demand", "launch 2 grid private small demand"]
    many = ["launch 2 grid private small demand", "launch 2 grid private large demand"]
    assert sorted(launched(6)) == sorted(few)
    assert sorted(launched(20)) == sorted(many)
    assert sorted(launched(20, Quota(machines=4), maximum=100)) == sorted(many)
    assert launched(20, maximum=100) == ["launch 10 grid private small demand"]


def test_what_runs_one_job_and_leaves_has_no_room_that_may_be_wanted() -> None:
    """A worker of a policy that the group had before."""
    once = replace(worker("once", shape=LARGE), single_use=True)
    idle = [worker(f"w{number}", shape=ONE) for number in range(2)]
    nodes = [
        node("once", running=1, total=LARGE.resources, free=Resources(7, 7168)),
        *(node(f"w{number}", idle_since=NOW - WORTH_KEEPING, total=ONE.resources) for number in range(2)),
    ]
    for wanted, drained in ((1.0, []), (0.5, ["drain w0 idle"])):
        world = tide_site(workers=[once, *idle], nodes=nodes, memory=level(far=wanted, mean=1.0))
        assert brief(world.actions()) == drained


def test_larger_machines_serve_where_the_small_ones_are_refused() -> None:
    closed = OfferHealth(0, NOW + 60, "no capacity")
    world = tide_site(health={(None, "one"): closed}, demand=[row(2, runs_on=EVERY)])
    assert brief(world.actions()) == ["launch 1 grid private small demand"]
    probe = tide_site(health={(None, "one"): OfferHealth(1, NOW, "no capacity")}, demand=[row(3, runs_on=EVERY)])
    assert brief(probe.actions()) == ["launch 1 grid private one demand", "launch 1 grid private small demand"]


def test_the_boot_time_is_the_one_that_was_learned() -> None:
    snapshot = fleet(0, memory=level(mean=40.0, at=NOW - 60)).snapshot()
    times = BootTimes(5, 600.0, 700.0, NOW, 650.0)

    def mean(key: BootKey | None) -> float:
        known = {} if key is None else {key: times}
        learned = plan(replace(snapshot, boot_times=known), fleet(0).rules).memory[GRID].level
        assert learned is not None
        return learned.near.mean

    busier = fleet(0, busy=50, memory=level(mean=40.0, at=NOW - 60))
    snapshot = busier.snapshot()
    assert mean(None) == 40.0 + 10.0 * 60.0 / (UNKNOWN_BOOT + 60.0)
    assert mean(BootKey(CLOUD, None, None)) == 40.0 + 10.0 * 60.0 / 660.0
    assert mean(BootKey(CloudName("burst"), None, None)) == mean(None)


def test_cores_that_are_waited_for_are_its_load() -> None:
    learned = tide_site(demand=[row(2, Resources(4, 4096), runs_on=EVERY), row(3, Resources(), runs_on=EVERY)]).plan()
    assert learned.memory[GRID].level == Level(NOW, NOW, Swing(11.0), Swing(11.0))


def test_what_is_not_ours_is_not_its_load() -> None:
    world = fleet(0, memory=GroupMemory())
    others = node(None, running=50, host="other", total=HUGE.resources, free=Resources(50, 102400))
    learned = world.but(nodes=[*world.nodes, others]).plan().memory[GRID].level
    assert learned is not None
    assert learned.near.mean == 40.0
    assert isinstance(world.snapshot().queues[next(iter(world.snapshot().queues))].nodes, Fresh)
