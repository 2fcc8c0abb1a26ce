"""A budget of a day in one plan: what is launched, drained, taken back, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.costs import DAY, HOUR, Billing, Budget, Stay, by_day, day_of, price_per_core, stay_of
from gridtide.model.demand import NodeState
from gridtide.model.ids import CloudName, ShapeName
from gridtide.model.machines import Quota
from gridtide.model.readings import Missing
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources, Shape
from gridtide.model.rules import GroupRules, SiteRules, Wishes
from gridtide.model.snapshot import CloudView
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning import plan
from gridtide.planning.budgets import (
    DRAIN_ALLOWANCE,
    END_ALLOWANCE,
    HOPE,
    LOOK_AHEAD,
    WORTHWHILE,
    Account,
    accounts_of,
)
from gridtide.planning.eta import eta_of
from gridtide.planning.evidence import Evidence
from gridtide.planning.spawning import plan_spawn
from gridtide.planning.spending import Spending, spending_of
from tests.unit.planning.worlds import (
    BURST,
    CLOUD,
    GRID,
    NOW,
    SMALL,
    World,
    brief,
    fresh,
    group,
    node,
    row,
    site,
    worker,
)

PRICED = replace(SMALL, price=1.0)
TODAY = day_of(NOW)
LEASE = 600.0
AHEAD = LEASE + END_ALLOWANCE + 1.0
"""Seconds that a machine that takes jobs keeps back for beside the longest job: lease, end, billing unit."""
NEW = LOOK_AHEAD + WORTHWHILE + AHEAD
"""The same of one that is to be launched."""


def costing(
    per_day: float,
    longest: float = HOUR,
    *groups: GroupRules,
    clouds: Sequence[str] = ("private",),
    billing: Billing | None = None,
) -> SiteRules:
    """A site whose first cloud has this budget."""
    rules = site(*groups, clouds=clouds)
    mine = replace(rules.clouds[CLOUD], budget=Budget(per_day, longest), billing=billing or Billing())
    return replace(rules, clouds={**rules.clouds, CLOUD: mine})


def account(rules: SiteRules, *workers: Worker, gone: Mapping[int, float] | None = None, now: float = NOW) -> Account:
    snapshot = World(rules=rules, workers=workers, now=now).snapshot()
    return accounts_of(Evidence(replace(snapshot, ended_costs={CLOUD: gone or {}}), rules))[CLOUD]


def priced(name: str = "w1", state: WorkerState = WorkerState.JOINED, age: float = HOUR, price: float = 1.0) -> Worker:
    """Launched so long ago, and in its state since."""
    shape = replace(SMALL, price=price)
    return worker(name, state, since=NOW - age, launched=NOW - age, shape=shape, created=NOW - age)


# --- how charges fall onto days


def test_a_stay_over_midnight_is_charged_on_both_days() -> None:
    stay = Stay(CLOUD, 2.0, 3 * DAY - HOUR, 3 * DAY + HOUR / 2)
    assert dict(stay.by_day(Billing(HOUR, HOUR))) == {2: 2.0, 3: 2.0}, "the unit that was begun is charged in full"
    assert dict(stay.by_day(Billing())) == {2: 2.0, 3: 1.0}


@given(st.floats(0, 1e9), st.floats(0, 40 * DAY))
def test_days_add_up_to_the_whole(start: float, length: float) -> None:
    parts = list(by_day(start, start + length))
    assert sum(seconds for _, seconds in parts) == pytest.approx(length, abs=1e-3)
    assert all(0.0 < seconds <= DAY for _, seconds in parts)
    assert [day for day, _ in parts] == sorted({day for day, _ in parts})


def test_only_a_launch_that_was_refused_costs_nothing() -> None:
    gone = priced(state=WorkerState.GONE)
    assert stay_of(gone) == Stay(CLOUD, 1.0, NOW - HOUR, NOW - HOUR)
    refused = replace(gone, reason=replace(gone.reason, cause=Cause.LAUNCH_REFUSED), machine=None)
    assert stay_of(refused) is None
    assert stay_of(replace(refused, machine=gone.machine)) is not None, "one was made all the same"
    assert stay_of(replace(gone, launched=None)) is None
    lost = replace(gone, reason=replace(gone.reason, cause=Cause.LAUNCH_LOST), machine=None)
    assert stay_of(lost) is not None, "its machine may have been made"


def test_a_machine_without_cores_has_the_price_of_the_whole() -> None:
    assert price_per_core(replace(SMALL, price=3.0)) == 1.5
    assert price_per_core(Shape(ShapeName("disk"), Resources(0, 1024), 3.0)) == 3.0


# --- what is kept back


def test_a_machine_that_takes_jobs_keeps_back_a_longest_job_from_now() -> None:
    known = account(costing(100.0), priced(age=HOUR))
    assert known.totals(0.0) == {TODAY: pytest.approx(1.0 + 1.0 + AHEAD / HOUR)}


def test_what_it_keeps_back_falls_onto_the_days_on_which_it_would_be_charged() -> None:
    known = account(costing(100.0, 30 * HOUR), priced(age=HOUR))
    left = (TODAY + 1) * DAY - NOW
    days = known.totals(0.0)
    assert days[TODAY] == pytest.approx(1.0 + left / HOUR)
    assert days[TODAY + 1] == pytest.approx((30 * HOUR + AHEAD - left) / HOUR)


def test_yesterday_is_paid() -> None:
    young = account(costing(100.0), priced(age=0.0)).totals(0.0)[TODAY]
    assert account(costing(100.0), priced(age=30 * HOUR)).totals(0.0)[TODAY] == pytest.approx(young + NOW % DAY / HOUR)


@pytest.mark.parametrize("state", [WorkerState.INTENDED, WorkerState.LAUNCHING, WorkerState.BOOTING])
def test_one_that_is_on_its_way_counts_like_one_that_takes_jobs(state: WorkerState) -> None:
    start = 0.0 if state is WorkerState.INTENDED else HOUR
    known = account(costing(100.0), priced(state=state))
    assert known.totals(0.0)[TODAY] == pytest.approx((start + HOUR + AHEAD) / HOUR)


def test_one_that_drains_keeps_back_what_it_did_when_its_drain_began() -> None:
    leaving = priced(state=WorkerState.DRAINING, age=HOUR / 2)
    for later in (0.0, 600.0, 2400.0):
        known = account(costing(100.0), leaving, now=NOW + later)
        assert known.totals(0.0)[TODAY] == pytest.approx((HOUR + AHEAD) / HOUR), later


@pytest.mark.parametrize("state", [WorkerState.DRAINED, WorkerState.TERMINATING, WorkerState.FAILED])
def test_one_that_runs_nothing_any_more_keeps_back_its_end(state: WorkerState) -> None:
    known = account(costing(100.0), priced(state=state, age=60.0))
    assert known.totals(0.0)[TODAY] == pytest.approx((END_ALLOWANCE + 1.0) / HOUR)


def test_a_machine_whose_end_is_unknown_is_charged_until_it_is_known() -> None:
    known = account(costing(100.0), priced(state=WorkerState.TERMINATING, age=2 * HOUR))
    assert known.totals(0.0)[TODAY] == pytest.approx(2.0 + 1.0 / HOUR)


def test_machines_that_are_gone_count_and_those_of_yesterday_do_not() -> None:
    known = account(costing(100.0), gone={TODAY - 1: 5.0, TODAY: 3.0, TODAY + 1: 0.5})
    assert known.totals(0.0) == {TODAY: 3.0, TODAY + 1: 0.5}


def test_a_launch_that_was_refused_keeps_nothing_back() -> None:
    failed = priced(state=WorkerState.FAILED)
    refused = replace(failed, reason=replace(failed.reason, cause=Cause.LAUNCH_REFUSED), machine=None)
    assert account(costing(100.0), refused).totals(0.0) == {TODAY: 0.0}


def test_the_minimum_of_a_bill_is_kept_back_too() -> None:
    rules = costing(100.0, 60.0, billing=Billing(HOUR, 6 * HOUR))
    assert account(rules, priced(age=0.0)).totals(0.0)[TODAY] == pytest.approx(7.0)
    assert account(rules, priced(state=WorkerState.TERMINATING, age=60.0)).totals(0.0)[TODAY] == pytest.approx(7.0)


def test_the_longest_lease_counts_and_a_drain_takes_time_even_so() -> None:
    short = replace(group(), lease=30.0)
    long = replace(group("other"), lease=2 * HOUR)
    one = account(costing(100.0, HOUR, short), priced(age=0.0)).totals(0.0)[TODAY]
    both = account(costing(100.0, HOUR, short, long), priced(age=0.0)).totals(0.0)[TODAY]
    assert one == pytest.approx((HOUR + DRAIN_ALLOWANCE + END_ALLOWANCE + 1.0) / HOUR)
    assert both == pytest.approx(one + (2 * HOUR - DRAIN_ALLOWANCE) / HOUR)


def test_a_drain_that_the_queue_has_not_taken_counts_from_now() -> None:
    leaving = priced(state=WorkerState.DRAINING, age=2 * HOUR)
    accepting = World(rules=costing(100.0), workers=[leaving], nodes=[node(running=1)], acknowledged={})
    known = accounts_of(Evidence(accepting.snapshot(), accepting.rules))[CLOUD]
    assert known.totals(0.0)[TODAY] == pytest.approx((3 * HOUR + END_ALLOWANCE + 1.0) / HOUR)
    taken = accepting.but(acknowledged=None)
    known = accounts_of(Evidence(taken.snapshot(), taken.rules))[CLOUD]
    assert known.totals(0.0)[TODAY] == pytest.approx((2 * HOUR + 1.0) / HOUR)


# --- launching


@pytest.mark.parametrize(("per_day", "number"), [(0.5, 0), (2.0, 1), (4.0, 2), (100.0, 5)])
def test_as_many_are_launched_as_the_budget_bears(per_day: float, number: int) -> None:
    one = (HOUR + NEW) / HOUR
    assert number in (5, int(per_day // one))
    world = World(rules=costing(per_day), demand=[row(10)], shapes=[PRICED])
    lines = brief(world.actions())
    assert lines == ([f"launch {number} grid private small demand"] if number else [])


def test_why_none_is_launched_is_said_with_figures() -> None:
    world = World(rules=costing(10.0), demand=[row(2)], shapes=[PRICED])
    snapshot = replace(world.snapshot(), ended_costs={CLOUD: {TODAY: 9.0}})
    decided = plan(snapshot, world.rules)
    why = decided.why_group[GRID]
    assert why.cause is Cause.AT_BUDGET
    one = (HOUR + NEW) / HOUR
    words = f"cloud private: 9.00 of 10.00 of today's budget are spent or kept back, one more takes up to {one:.2f}"
    assert why.text.endswith(words)
    assert decided.why_demand[("pool", str(row(1).need))].cause is Cause.AT_BUDGET
    assert eta_of(snapshot, world.rules, GRID).obstacle == replace(why, text=words)
    refused = plan_spawn(snapshot, world.rules, GRID)
    assert refused == replace(why, text=words)


@pytest.mark.parametrize(("per_day", "name"), [(30.0, "tomorrow's"), (20.0, "today's")])
def test_the_day_that_has_least_room_is_named(per_day: float, name: str) -> None:
    world = World(rules=costing(per_day, 60 * HOUR), demand=[row(2)], shapes=[PRICED])
    gone = {TODAY: 5.0, TODAY + 1: 7.0} if name == "tomorrow's" else {TODAY: 9.0}
    snapshot = replace(world.snapshot(), ended_costs={CLOUD: gone})
    assert name in plan(snapshot, world.rules).why_group[GRID].text


def test_later_days_are_named_by_their_date() -> None:
    known = account(costing(30.0, 60 * HOUR), gone={TODAY + 2: 29.0})
    assert "29.00 of 30.00 of 1970-01-03's budget are spent or kept back" in known.words()


def test_the_next_cloud_is_taken_and_the_reason_tells_why() -> None:
    rules = costing(1.0, HOUR, group(clouds=("private", "burst")), clouds=("private", "burst"))
    burst = CloudView(fresh(()), fresh((PRICED,)))
    world = World(rules=rules, demand=[row(2)], shapes=[PRICED], clouds={"burst": burst})
    (launch,) = world.actions()
    assert brief([launch]) == ["launch 1 grid burst small demand"]
    assert "; cloud private: 0.00 of 1.00 of today's budget are spent or kept back" in launch.reason.text
    assert eta_of(world.snapshot(), rules, GRID).cloud == BURST


def test_minimum_and_pinned_number_do_not_pass_it() -> None:
    rules = costing(2.0, HOUR, group(minimum=4))
    assert brief(World(rules=rules, shapes=[PRICED]).actions()) == ["launch 1 grid private small below-minimum"]
    pinned = World(rules=costing(2.0), shapes=[PRICED], wishes=Wishes(desired=3))
    assert brief(pinned.actions()) == ["launch 1 grid private small below-desired"]


def test_machines_that_cost_nothing_are_not_counted() -> None:
    world = World(rules=costing(0.01), demand=[row(4)])
    assert brief(world.actions()) == ["launch 2 grid private small demand"]


# --- draining


def busy(*workers: Worker) -> World:
    """All of them run a job."""
    nodes = [node(each.id, running=1, free=Resources(1, 2048)) for each in workers]
    return World(workers=workers, nodes=nodes, demand=[row(50)], shapes=[PRICED])


def rolled(number: int) -> float:
    """What so many, launched an hour ago, keep back when the first must be drained."""
    return number * (2 * HOUR + LOOK_AHEAD + AHEAD) / HOUR


def test_before_the_budget_is_passed_one_is_drained() -> None:
    several = [priced(f"w{number}") for number in range(4)]
    assert brief(busy(*several).but(rules=costing(rolled(4) + 0.01)).actions()) == []
    world = busy(*several).but(rules=costing(rolled(4) - 0.01))
    (drain,) = world.actions()
    assert brief([drain]) == ["drain w0 budget"]
    kept = 4 * (2 * HOUR + AHEAD) / HOUR
    assert f"cloud private: {kept:.2f} of {rolled(4) - 0.01:.2f} of today's budget are spent" in drain.reason.text
    assert world.plan().why_group[GRID].cause is Cause.BUDGET
    assert world.why("w0").cause is Cause.BUDGET


def test_as_few_as_will_do() -> None:
    several = [priced(f"w{number}") for number in range(4)]
    each = LOOK_AHEAD / HOUR
    for number in range(1, 4):
        world = busy(*several).but(rules=costing(rolled(4) - number * each + 0.01))
        assert len(world.actions()) == number


def test_a_drain_keeps_back_no_billing_unit_more() -> None:
    several = [priced(f"w{number}") for number in range(4)]
    whole = rolled(4) + 4 * (HOUR - 1.0) / HOUR
    for number in range(1, 4):
        rules = costing(whole - number * LOOK_AHEAD / HOUR + 0.01, billing=Billing(HOUR, 0.0))
        assert len(busy(*several).but(rules=rules).actions()) == number


def test_what_costs_nothing_is_not_drained() -> None:
    world = busy(priced("w1"))
    world = world.but(workers=[*world.workers, priced("w2", price=0.0)], nodes=[*world.nodes, node("w2")])
    assert brief(world.but(rules=costing(0.1)).actions()) == ["drain w1 budget"]


def test_one_whose_drain_was_forgotten_is_taken_back_before_it_is_drained_again() -> None:
    forgotten = priced(state=WorkerState.DRAINED, age=60.0)
    world = busy(priced("w2")).but(workers=[forgotten, priced("w2")], rules=costing(0.1))
    nodes = [node("w1"), *world.nodes]
    assert brief(world.but(nodes=nodes).actions()) == ["undrain w1 load-returned", "drain w2 budget"]


def test_the_dearest_goes_first_and_an_idle_one_before_it() -> None:
    dear, cheap, idle = priced("w1", price=2.0), priced("w2"), priced("w3")
    rules = costing(0.1)
    world = busy(cheap, dear)
    order = [line.split()[1] for line in brief(world.but(rules=rules).actions())]
    assert sorted(order) == ["w1", "w2"]
    rules = costing(rolled(3) - 0.01)
    assert brief(world.but(rules=rules).actions()) == ["drain w1 budget"]
    third = replace(world, workers=[dear, cheap, idle], nodes=[*world.nodes, node("w3")])
    assert brief(third.but(rules=costing(rolled(4) - 0.01)).actions()) == ["drain w3 budget"]


def test_an_idle_one_makes_room_for_the_others_and_one_that_boots_too() -> None:
    several = [priced(f"w{number}") for number in range(4)]
    world = busy(*several)
    nodes = [*world.nodes[:3], node("w3")]
    idle = world.but(rules=costing(rolled(4) - 1.0), nodes=nodes)
    assert brief(idle.actions()) == ["drain w3 budget"], "what it kept back is free as soon as it is gone"
    booting = [*several[:3], priced("w9", WorkerState.BOOTING, 60.0)]
    starting = busy(*several[:3]).but(workers=booting, rules=costing(rolled(4) - 1.5))
    assert brief(starting.actions()) == ["terminate w9 booting budget"]
    intended = [*several[:3], priced("w9", WorkerState.INTENDED)]
    starting = busy(*several[:3]).but(workers=intended, rules=costing(rolled(4) - 1.5))
    assert brief(starting.actions()) == ["w9 intended->gone budget"]


def test_hope_in_an_idle_one_that_drains_ends() -> None:
    several = [priced(f"w{number}") for number in range(3)]
    for age, drains in ((HOPE - 1.0, 0), (HOPE + 1.0, 1)):
        leaving = replace(priced("w9", WorkerState.DRAINING, age), launched=NOW - HOUR)
        world = busy(*several).but(workers=[*several, leaving], rules=costing(rolled(3) + 2.1))
        idle = node("w9", NodeState.DRAINING, idle_since=NOW - 500)
        decided = world.but(nodes=[*world.nodes, idle]).actions()
        assert len(decided) == drains, age


def test_hold_minimum_and_stale_readings_do_not_stand_against_it() -> None:
    one = priced()
    for world in (
        busy(one).but(rules=costing(0.1), wishes=Wishes(hold=True)),
        busy(one).but(rules=costing(0.1, HOUR, group(minimum=1))),
        busy(one).but(rules=costing(0.1), nodes=[]),
    ):
        assert brief(world.actions()) == ["drain w1 budget"]


def test_before_the_sources_have_answered_nothing_is_drained() -> None:
    world = busy(priced()).but(rules=costing(0.1), nodes_reading=Missing("not read yet", NOW))
    assert world.actions() == ()


def test_no_worker_yields_to_a_group_that_could_not_launch_anything() -> None:
    mine, other = group("grid", maximum=5), group("other", maximum=5)
    held = [priced(f"w{number}") for number in range(2)]
    world = busy(*held).but(demand=[row(4, runs_on=[("other", "small")])])

    def yielded(rules: SiteRules) -> list[str]:
        cloud = replace(rules.clouds[CLOUD], quota=Quota(machines=2))
        return brief(world.but(rules=replace(rules, clouds={CLOUD: cloud})).actions())

    assert yielded(costing(100.0, HOUR, mine, other)) == ["drain w0 yielded"]
    assert yielded(costing(rolled(2) + 0.5, HOUR, mine, other)) == [], "no budget for another one"
    assert yielded(costing(100.0, HOUR, mine, replace(other, price_limit=0.1))) == [], "too dear for it"


# --- taking back


def test_a_drain_is_taken_back_only_if_the_budget_bears_it() -> None:
    leaving = replace(priced(state=WorkerState.DRAINING, age=HOUR / 2), launched=NOW - HOUR)
    world = World(
        rules=costing(100.0),
        workers=[leaving],
        nodes=[node(state=NodeState.DRAINING, running=1, free=Resources(1, 2048))],
        demand=[row(1)],
        shapes=[PRICED],
    )
    assert brief(world.actions()) == ["undrain w1 load-returned"]
    needed = (2 * HOUR + NEW) / HOUR
    assert brief(world.but(rules=costing(needed + 0.01)).actions()) == ["undrain w1 load-returned"]
    assert brief(world.but(rules=costing(needed - 0.01)).actions()) == []
    minimum = group(minimum=1)
    assert brief(world.but(demand=[], rules=costing(needed - 0.01, HOUR, minimum)).actions()) == []
    assert brief(world.but(demand=[], rules=costing(needed + 0.01, HOUR, minimum)).actions()) == [
        "undrain w1 load-returned"
    ]


@pytest.mark.parametrize("minimum", [0, 2])
def test_what_was_taken_back_leaves_less_room_for_launches(minimum: int) -> None:
    leaving = replace(priced(state=WorkerState.DRAINING, age=HOUR / 2), launched=NOW - HOUR)
    one, back = (HOUR + NEW) / HOUR, (2 * HOUR + NEW) / HOUR
    world = World(
        rules=costing(back + one - 0.01, HOUR, group(minimum=minimum)),
        workers=[leaving],
        nodes=[node(state=NodeState.DRAINING, running=1, free=Resources(1, 2048))],
        demand=[] if minimum else [row(9)],
        shapes=[PRICED],
    )
    assert brief(world.actions()) == ["undrain w1 load-returned"]
    more = world.but(rules=costing(back + one + 0.01, HOUR, group(minimum=minimum)))
    assert [line.split()[0] for line in brief(more.actions())] == ["undrain", "launch"]


def test_two_are_not_taken_back_where_there_is_room_for_one() -> None:
    leaving = [replace(priced(name, WorkerState.DRAINING, HOUR / 2), launched=NOW - HOUR) for name in ("w1", "w2")]
    nodes = [node(each.id, NodeState.DRAINING, running=1, free=Resources(1, 2048)) for each in leaving]
    kept = (2 * HOUR - HOUR / 2 + AHEAD) / HOUR
    room = (2 * HOUR + NEW) / HOUR
    world = World(rules=costing(kept + room + 0.01), workers=leaving, nodes=nodes, demand=[row(2)], shapes=[PRICED])
    assert [line for line in brief(world.actions()) if "undrain" in line] == ["undrain w1 load-returned"]


# --- jobs that take longer


def test_a_job_that_takes_longer_is_not_ended_and_explained() -> None:
    leaving = priced(state=WorkerState.DRAINING, age=2 * HOUR)
    world = World(rules=costing(1.0), workers=[leaving], nodes=[node(state=NodeState.DRAINING, running=1)])
    assert world.actions() == ()
    why = world.why()
    assert why.cause is Cause.BUSY
    assert why.text == (
        "it was drained 2.0 h ago and still runs jobs, for longer than longest_job of cloud private (1 h): "
        "it is not ended, and charged all the same"
    )
    told = spending_of(world.snapshot(), world.rules)[CLOUD]
    assert (told.per_day, told.late) == (1.0, 1)
    assert told.spent == pytest.approx(2.0)
    assert told.kept == pytest.approx(1 / HOUR)


def test_one_that_still_may_run_a_job_is_not_late() -> None:
    leaving = priced(state=WorkerState.DRAINING, age=HOUR)
    world = World(rules=costing(100.0), workers=[leaving], nodes=[node(state=NodeState.DRAINING, running=1)])
    assert "longest_job" not in world.why().text
    assert spending_of(world.snapshot(), world.rules)[CLOUD].late == 0


# --- what is told


def test_spending_counts_units_that_were_begun_and_needs_no_budget() -> None:
    rules = site(clouds=("private",))
    rules = replace(rules, clouds={CLOUD: replace(rules.clouds[CLOUD], billing=Billing(HOUR, HOUR))})
    snapshot = World(rules=rules, workers=[priced(age=1.5 * HOUR)]).snapshot()
    snapshot = replace(snapshot, ended_costs={CLOUD: {TODAY: 0.25}, CloudName("left"): {TODAY: 9.0}})
    assert spending_of(snapshot, rules) == {CLOUD: Spending(None, 2.25, None, 0)}


def test_it_looks_again_when_some_may_have_to_be_drained_and_at_midnight() -> None:
    several = [priced(f"w{number}") for number in range(4)]
    soon = busy(*several).but(rules=costing(rolled(4) + 4 * 100.0 / HOUR))
    assert soon.plan().look_again == pytest.approx(NOW + 100.0)
    evening = TODAY * DAY + DAY - HOUR - LOOK_AHEAD - AHEAD - 200.0
    late = account(costing(100.0), priced(age=0.0), gone={TODAY + 1: 99.9}, now=evening)
    assert late.next_look() == pytest.approx(evening + 200.0), "what is kept back begins to fall onto tomorrow"
    idle = World(rules=costing(1.0))
    assert idle.plan().look_again == (TODAY + 1) * DAY


def test_accounts_do_not_depend_on_the_order_of_workers() -> None:
    some = [priced(f"w{number}", price=0.1 * number + 0.01) for number in range(9)]
    assert account(costing(9.0), *some).totals(0.0) == account(costing(9.0), *some[::-1]).totals(0.0)


@given(
    st.lists(st.tuples(st.sampled_from([0.05, 0.3, 1.0]), st.floats(0, 20 * HOUR)), max_size=8),
    st.floats(0.5, 60.0),
    st.floats(60.0, 30 * HOUR),
    st.integers(0, 40),
)
def test_no_plan_launches_beyond_the_budget(
    ages: list[tuple[float, float]], per_day: float, longest: float, jobs: int
) -> None:
    workers = [priced(f"w{n}", age=age, price=price) for n, (price, age) in enumerate(ages)]
    rules = costing(per_day, longest, group(maximum=100))
    world = busy(*workers).but(rules=rules, demand=[row(jobs)] if jobs else [])
    known = accounts_of(Evidence(world.snapshot(), rules))[CLOUD]
    new = sum(action.count for action in world.actions() if hasattr(action, "count"))
    if new:
        known.take(1.0, new)
        assert max(known.totals(0.0).values()) <= per_day + 1e-6


def test_what_is_kept_back_to_the_very_midnight_needs_nothing_of_the_next_day() -> None:
    now = (TODAY + 2) * DAY - LOOK_AHEAD - AHEAD - HOUR
    while account(costing(100.0), priced(), now=now).kept_until(LOOK_AHEAD) != (TODAY + 2) * DAY:
        now -= account(costing(100.0), priced(), now=now).kept_until(LOOK_AHEAD) - (TODAY + 2) * DAY
    looked = account(costing(100.0), priced(), now=now)
    assert now < looked.next_look() <= (looked.today + 1) * DAY
