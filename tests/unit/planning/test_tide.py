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
from gridtide.model.snapshot import GroupMemory, Heartbeat, Level, OfferHealth, Rise
from gridtide.model.workers import WorkerState
from gridtide.planning import plan
from gridtide.planning.policies import Ahead, Aim, Early, Outlook, Work, policy_of
from gridtide.planning.policies.learning import EDGES, KEEPINGS, SPANS, UNKNOWN_KEEPING
from gridtide.planning.policies.tide import LAUNCH_WORTH, UNKNOWN_BOOT
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
    busy = 0 if done is None else done.jobs
    outlook = Outlook(now, None, memory or GroupMemory(), busy=busy, work=lambda: done, boot=boot)
    return policy_of(parameters).aim(outlook)


def level(
    near: int = 0,
    far: int = 0,
    *,
    rose: float = NOW,
    at: float = NOW,
    load: float = 100.0,
    lulls: tuple[float, ...] = (0.0,) * (len(KEEPINGS) + 1),
) -> GroupMemory:
    """One whose load rose by ``near`` cores within each boot, and by ``far`` within two."""
    rises = tuple(Rise(at, load, load, _always(near if span == 1.0 else max(near, far))) for span in SPANS[:2])
    never = tuple(Rise(at, load, load, _always(0)) for _ in SPANS[2:])
    return GroupMemory(level=Level(at, rose, load, (*rises, *never), (), lulls))


def _always(rise: int) -> tuple[float, ...]:
    return tuple(20.0 if edge == rise else 0.0 for edge in EDGES)


# --- what it learns


def test_it_begins_with_what_it_sees() -> None:
    begun = aim(work(7, 3))
    assert begun.memory.level is not None
    assert (begun.memory.level.load, begun.memory.level.at, begun.memory.level.rose) == (10.0, NOW, NOW)
    assert begun.ahead is None
    assert begun.early == Early(UNKNOWN_KEEPING, 3)


@pytest.mark.parametrize(("load", "rises"), [(100, False), (101, True), (90, False)])
def test_it_rises_when_more_cores_are_wanted_than_before(load: int, rises: bool) -> None:
    after = aim(work(load), level(rose=NOW - 99), now=NOW + 1).memory.level
    assert after is not None
    assert after.rose == (NOW + 1 if rises else NOW - 99)


def test_what_is_not_fresh_teaches_nothing_and_moves_nothing() -> None:
    before = level(10, 10)
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
        assert waiting + free <= seen.early.beyond <= waiting + max(2 * highest, 1)
        assert KEEPINGS[0] <= seen.early.after <= 1800.0
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
    def wanted(step: int) -> tuple[Ahead | None, Early | None]:
        memory, seen = GroupMemory(), aim(work(1000))
        for second in range(0, 28_800, step):
            seen = aim(work(1000 + 40 * (second // 400 % 2)), memory, now=NOW + second)
            memory = seen.memory
        return seen.ahead, seen.early

    assert wanted(5) == wanted(20)
    assert wanted(5)[0] == Ahead(48, Resources(1, 1024))


def test_bursts_that_come_too_seldom_are_not_waited_for() -> None:
    """Eight cores once in three hours: to keep them would cost five times what it saves."""

    def kept(every: int) -> Early | None:
        memory, seen = GroupMemory(), aim(work(2))
        for minute in range(6 * 24 * 60 // 6):
            seen = aim(work(10 if minute % every < 10 else 2), memory, now=NOW + 60.0 * minute)
            memory = seen.memory
        return seen.early

    seldom, often = kept(180), kept(16)
    assert seldom is not None
    assert seldom.beyond == 0
    assert seldom.after == KEEPINGS[0]
    assert often is not None
    assert often.beyond == 8


# --- what a core costs that is given back too early


def test_a_core_that_is_given_back_too_early_costs_a_boot_a_wait_and_a_launch() -> None:
    """So many seconds of a core: what is wanted once in so many seconds, or more often, is kept."""
    lost = UNKNOWN_BOOT * (1 + TIDE.wait_worth) + LAUNCH_WORTH / 2
    odds = 2 * UNKNOWN_BOOT / lost

    def kept(part: float) -> int:
        counts = tuple(100.0 * (1 - part) if edge == 0 else 100.0 * part if edge == 6 else 0.0 for edge in EDGES)
        before = level()
        assert before.level is not None
        within_two = replace(before.level.rises[1], counts=counts)
        known = replace(before.level, rises=(before.level.rises[0], within_two, *before.level.rises[2:]))
        outlook = Outlook(NOW, None, GroupMemory(level=known), busy=50, work=lambda: work(100))
        early = policy_of(TIDE).aim(outlook).early
        assert early is not None
        return early.beyond

    assert kept(odds + 0.001) == 6
    assert kept(odds - 0.001) == 0


def test_a_wait_that_is_worth_nothing_keeps_no_more_than_launches_cost() -> None:
    cheap = replace(TIDE, wait_worth=0.0)
    assert aim(work(1000), level(near=24, far=24), parameters=cheap).ahead is None
    early = aim(work(1000), level(far=24), parameters=cheap).early
    assert early is not None
    assert early.beyond == 24  # another launch would cost 15 minutes of a core, if nobody minds waiting
    assert aim(work(1000), level(near=24), parameters=replace(cheap, wait_worth=0.1)).ahead is not None


def test_the_idle_time_that_is_worth_while_is_learned() -> None:
    never = (0.0,) * len(KEEPINGS)
    within_ten_minutes = tuple(100.0 if end == 600.0 else 0.0 for end in KEEPINGS)

    def after(lulls: tuple[float, ...], idle_for: float = 1800.0) -> float:
        early = aim(work(100), level(lulls=lulls), parameters=replace(TIDE, idle_for=idle_for)).early
        assert early is not None
        return early.after

    assert after((*never, 100.0)) == KEEPINGS[0]
    assert after((*within_ten_minutes, 100.0)) == 600.0
    assert after((*within_ten_minutes, 100.0), 400.0) == 400.0
    assert after((*within_ten_minutes, 900.0)) == KEEPINGS[0]


# --- what it keeps free


def test_what_the_load_often_rises_by_within_a_boot_is_kept_free() -> None:
    assert aim(work(1000), level(near=24)).ahead == Ahead(24, Resources(1, 1024))
    assert aim(work(1000), level(far=24)).ahead is None


def test_never_more_than_the_given_part_of_what_works() -> None:
    assert aim(work(300), level(near=24)).ahead == Ahead(15, Resources(1, 1024))
    assert aim(work(19), level(near=24)).ahead is None
    assert aim(work(300), level(near=24), parameters=replace(TIDE, ahead=0.0)).ahead is None


def test_none_once_the_load_has_not_risen_for_as_long_as_idle_workers_are_kept() -> None:
    def ahead(ago: float) -> Ahead | None:
        return aim(work(90), level(near=24, rose=NOW - ago)).ahead

    assert ahead(1799.0) is not None
    assert ahead(1800.0) is None


def test_for_jobs_like_those_that_run() -> None:
    def each(jobs: int, used: Resources) -> Ahead | None:
        return aim(Work(jobs, used, 0), level(near=96)).ahead

    assert each(100, Resources(800, 1_600_000, 500_000, 70)) == Ahead(5, Resources(8, 16_000, 5_000, 1))
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
        memory=level(load=float(busy)),
    ).but(**changes)


def test_room_is_launched_before_jobs_wait() -> None:
    world = fleet(0, memory=level(near=8, load=40.0))
    assert brief(world.actions()) == ["launch 2 grid private one ahead"]
    assert world.plan().actions[0].reason.text == (
        "room for 2 jobs (1 core, 2 GiB memory each) is kept free: "
        "so far may the load of group grid rise while a machine boots"
    )
    assert world.plan().why_group[GRID].cause is Cause.AHEAD


def test_room_that_is_there_or_on_the_way_is_not_launched_again() -> None:
    memory = level(near=8, load=40.0)
    assert fleet(2, memory=memory).actions() == ()
    booting = [worker(f"n{number}", WorkerState.BOOTING, shape=ONE, since=NOW - 60) for number in range(2)]
    world = fleet(0, memory=memory)
    assert world.but(workers=[*world.workers, *booting]).actions() == ()


def test_jobs_that_wait_come_first() -> None:
    world = fleet(1, demand=[row(3, runs_on=EVERY)], memory=level(near=8, load=44.0))
    assert brief(world.actions()) == ["launch 2 grid private one demand", "launch 2 grid private one ahead"]


def test_a_drain_is_taken_back_for_it() -> None:
    world = fleet(0, memory=level(near=8, load=40.0))
    leaving = worker("d1", WorkerState.DRAINING, shape=ONE, cause=Cause.IDLE, since=NOW - 5)
    world = world.but(
        workers=[*world.workers, leaving],
        nodes=[*world.nodes, node("d1", NodeState.DRAINED, total=ONE.resources)],
        acknowledged={},
    )
    assert brief(world.actions()) == ["undrain d1 load-returned", "launch 1 grid private one ahead"]


@pytest.mark.parametrize("wishes", [Wishes(hold=True), Wishes(desired=40), Wishes(maximum=40)])
def test_operators_have_the_last_word(wishes: Wishes) -> None:
    assert fleet(0, memory=level(near=8, load=40.0), wishes=wishes).actions() == ()


def test_nothing_is_launched_ahead_where_a_quota_must_be_shared() -> None:
    rules = site(group(shapes=("one",), maximum=1000, policy=TIDE), quota=Quota(cores=42))
    world = fleet(0, rules=rules, memory=level(near=8, load=50.0), demand=[row(9, runs_on=EVERY)])
    assert brief(world.actions()) == ["launch 2 grid private one demand"]


def test_the_room_that_is_kept_for_another_group_is_not_taken() -> None:
    mine = group(shapes=("one",), maximum=1000, policy=TIDE)
    rules = site(mine, group("other", shapes=("large",), maximum=1000), quota=Quota(cores=44))
    eight = row(1, Resources(8, 8192), runs_on=(("other", "large"),))
    memory = level(near=8, load=40.0)
    assert brief(fleet(0, rules=rules, memory=memory).actions()) == ["launch 2 grid private one ahead"]
    assert not [
        line for line in brief(fleet(0, rules=rules, memory=memory, demand=[eight]).actions()) if "launch" in line
    ]


def test_nothing_is_launched_or_let_go_on_stale_readings() -> None:
    listed = tuple(fleet(9).nodes)
    assert fleet(9, nodes_reading=stale(listed)).actions() == ()
    assert fleet(9, demand_reading=stale(())).actions() == ()
    assert fleet(0, memory=level(near=8, load=40.0), demand_reading=stale(())).actions() == ()


# --- what it lets go


def test_idle_workers_beyond_what_may_come_go_early_the_longest_idle_first() -> None:
    assert len(fleet(5).actions()) == 5
    world = fleet(5, memory=level(far=3, load=40.0))
    assert brief(world.actions()) == ["drain i00 idle", "drain i01 idle"]
    text = world.plan().actions[0].reason.text
    assert text == "idle for 400 s; 3 free cores are enough for what may come"
    assert world.why("i02").text == "idle for 400 s of 1800 s"


def test_no_worker_goes_before_it_was_worth_keeping() -> None:
    assert fleet(5, since=NOW - UNKNOWN_KEEPING + 1).actions() == ()
    assert len(fleet(5, since=NOW - UNKNOWN_KEEPING).actions()) == 5
    short = site(group(shapes=("one",), maximum=1000, policy=replace(TIDE, idle_for=60.0)))
    assert len(fleet(5, since=NOW - 60, rules=short).actions()) == 5
    assert fleet(5, since=NOW - 59, rules=short).actions() == ()


def test_idle_for_is_the_longest() -> None:
    world = fleet(5, memory=level(far=96, load=40.0))
    assert world.actions() == ()
    assert len(world.but(nodes=fleet(5, since=NOW - 1800).nodes).actions()) == 5


def test_what_is_kept_for_jobs_to_come_stays_longer() -> None:
    world = fleet(5, since=NOW - 1800, memory=level(near=8, load=40.0))
    assert len(world.actions()) == 3
    kept = [name for name in ("i00", "i01", "i02", "i03", "i04") if "jobs to come" in world.why(name).text]
    assert len(kept) == 2
    calm = world.but(memory=level(near=8, load=40.0, rose=NOW - 1800))
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
    world = fleet(3, memory=level(far=3, load=40.0))
    assert len(world.but(workers=[*world.workers, *boots]).actions()) == 3


def test_a_large_worker_stays_when_part_of_it_may_be_wanted() -> None:
    idle = node("large", idle_since=NOW - 400, total=LARGE.resources)
    world = fleet(0)
    world = world.but(
        workers=[*world.workers, worker("large", shape=LARGE, since=NOW - 5000)], nodes=[*world.nodes, idle]
    )
    assert brief(world.actions()) == ["drain large idle"]
    assert world.but(memory=level(far=1, load=40.0)).actions() == ()


def test_the_minimum_stays() -> None:
    rules = site(group(shapes=("one",), minimum=43, maximum=1000, policy=TIDE))
    assert brief(fleet(5, rules=rules).actions()) == ["drain i00 idle", "drain i01 idle"]


def test_it_looks_again_while_something_is_idle() -> None:
    world = fleet(1, memory=level(far=8, load=40.0))
    assert world.plan().look_again == NOW + 60.0
    assert fleet(1, since=NOW - 10, memory=level(far=8, load=40.0)).plan().look_again == NOW + UNKNOWN_KEEPING - 10


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
        *(node(f"w{number}", idle_since=NOW - UNKNOWN_KEEPING, total=ONE.resources) for number in range(2)),
    ]
    for wanted, drained in ((2, []), (1, ["drain w0 idle"])):
        world = tide_site(workers=[once, *idle], nodes=nodes, memory=level(far=wanted, load=1.0))
        assert brief(world.actions()) == drained


def test_larger_machines_serve_where_the_small_ones_are_refused() -> None:
    closed = OfferHealth(0, NOW + 60, "no capacity")
    world = tide_site(health={(None, "one"): closed}, demand=[row(2, runs_on=EVERY)])
    assert brief(world.actions()) == ["launch 1 grid private small demand"]
    probe = tide_site(health={(None, "one"): OfferHealth(1, NOW, "no capacity")}, demand=[row(3, runs_on=EVERY)])
    assert brief(probe.actions()) == ["launch 1 grid private one demand", "launch 1 grid private small demand"]


def test_the_boot_time_is_the_one_that_was_learned() -> None:
    """A rise is counted when a boot has passed since the one before it."""
    times = BootTimes(5, 600.0, 700.0, NOW, 650.0)

    def begun(key: BootKey | None, ago: float) -> float:
        world = fleet(0, memory=level(load=40.0, at=NOW - ago))
        known = {} if key is None else {key: times}
        level_ = plan(replace(world.snapshot(), boot_times=known), world.rules).memory[GRID].level
        assert level_ is not None
        return level_.rises[0].since

    mine, other = BootKey(CLOUD, None, None), BootKey(CloudName("burst"), None, None)
    for key, boot in ((None, UNKNOWN_BOOT), (mine, 600.0), (other, UNKNOWN_BOOT)):
        assert begun(key, boot - 1.0) == NOW - boot + 1.0
        assert begun(key, boot) == NOW


def test_cores_that_are_waited_for_are_its_load() -> None:
    learned = tide_site(demand=[row(2, Resources(4, 4096), runs_on=EVERY), row(3, Resources(), runs_on=EVERY)]).plan()
    level_ = learned.memory[GRID].level
    assert level_ is not None
    assert level_.load == 11.0


def test_what_is_not_ours_is_not_its_load() -> None:
    world = fleet(0, memory=GroupMemory())
    others = node(None, running=50, host="other", total=HUGE.resources, free=Resources(50, 102400))
    learned = world.but(nodes=[*world.nodes, others]).plan().memory[GRID].level
    assert learned is not None
    assert learned.load == 40.0
    assert isinstance(world.snapshot().queues[next(iter(world.snapshot().queues))].nodes, Fresh)
