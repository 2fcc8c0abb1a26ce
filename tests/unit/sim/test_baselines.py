"""Models of other autoscalers: their steps, and that whole runs of them keep every rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.errors import GridtideError
from gridtide.model.ids import GroupName, ShapeName, WorkerId
from gridtide.model.machines import Quota
from gridtide.model.resources import Resources, Shape
from gridtide.sim.baselines.base import Baseline, Decision, Idle, InUse, Sight, lacking, smallest, towards
from gridtide.sim.baselines.catalogue import MODELS, NAMES, baseline_setting, peak, run_model
from gridtide.sim.baselines.cobald import linear
from gridtide.sim.baselines.kubernetes import cluster_autoscaler, karpenter
from gridtide.sim.baselines.papers import adapt, hist, parabola, percentile, react, reg
from gridtide.sim.baselines.run import run_baseline
from gridtide.sim.batch import Amount
from gridtide.sim.cloud import Outages, RateLimit, Reclaim
from gridtide.sim.document import digest, run_document
from gridtide.sim.faults import chaos
from gridtide.sim.reading import read_trace
from gridtide.sim.run import Run
from gridtide.sim.setting import Setting, fitted, standard_setting
from gridtide.sim.trace import Reading, TraceJob, make_trace
from gridtide.sim.yardsticks import paid_of, score

BIG = Shape(ShapeName("big"), Resources(8, 8000), 0.8)
SMALL = Shape(ShapeName("small"), Resources(2, 2000), 0.2)
NOW = 100_000.0
PAGE = Path(__file__).parents[3] / "docs/reference/baselines.md"


def sight(
    *waiting: tuple[Amount, int], joined: int = 0, running: int = 0, idle: tuple[float, ...] = (), starting: int = 0
) -> Sight:
    """``idle``: for how long each idle machine has been so."""
    return Sight(
        now=NOW,
        shapes=(BIG, SMALL),
        waiting=waiting,
        running=running,
        joined=joined,
        starting=(BIG,) * starting,
        idle=tuple(Idle(WorkerId(f"w{number}"), NOW - ago) for number, ago in enumerate(idle)),
        in_use=lambda: tuple(InUse(WorkerId(f"u{number}"), number) for number in range(joined)),
    )


ONE: Amount = (1, 0, 0, 0)

# --- what all of them use


def test_new_machines_are_counted_after_those_that_start() -> None:
    assert lacking(sight((ONE, 17))) == [((8, 0, 0, 0), 2), ((1, 0, 0, 0), 1)]
    assert lacking(sight((ONE, 17), starting=2)) == [((1, 0, 0, 0), 1)]
    two = [((8, 7000, 0, 0), 1), ((1, 0, 0, 0), 1)]
    assert lacking(sight((ONE, 3), ((6, 7000, 0, 0), 1), ((9, 0, 0, 0), 1))) == two


kinds = st.lists(
    st.tuples(st.tuples(st.integers(1, 9), st.integers(0, 9000), st.just(0), st.just(0)), st.integers(1, 40)),
    max_size=6,
    unique_by=lambda kind: kind[0],
)


@given(kinds, st.integers(0, 3))
def test_first_fit_by_rows_is_first_fit_job_by_job(waiting: list[tuple[Amount, int]], starting: int) -> None:
    rooms = [[8, 8000]] * starting
    for (cores, memory, _, _), count in sorted(waiting, reverse=True):
        for _ in range(count if cores <= 8 and memory <= 8000 else 0):
            fits = (place for place, room in enumerate(rooms) if room[0] >= cores and room[1] >= memory)
            place = next(fits, len(rooms))
            rooms[place:] = rooms[place:] or [[8, 8000]]
            rooms[place] = [rooms[place][0] - cores, rooms[place][1] - memory]
    assert list(chain(*([need] * number for need, number in lacking(sight(*waiting, starting=starting))))) == [
        (8 - cores, 8000 - memory, 0, 0) for cores, memory in rooms[starting:]
    ]


def test_thousands_of_jobs_cost_no_more_than_their_kinds() -> None:
    many = sight(*(((1 + number % 8, 100 * number, 0, 0), 5000) for number in range(60)))
    assert len(lacking(many)) < 4 * 60
    assert sum(number for _, number in lacking(many)) > 60_000


def test_the_cheapest_shape_that_holds_it() -> None:
    assert smallest((BIG, SMALL), (2, 100, 0, 0)) == SMALL
    assert smallest((BIG, SMALL), (2, 2001, 0, 0)) == BIG
    assert smallest((BIG, SMALL), (9, 0, 0, 0)) is None


def test_towards_a_number() -> None:
    assert towards(sight(joined=1, starting=1), 4) == Decision(launch=(BIG, BIG))
    assert towards(sight(joined=4, idle=(50.0, 20.0, 10.0)), 2) == Decision(end=(WorkerId("w0"), WorkerId("w1")))
    assert towards(sight(joined=4, idle=(50.0,)), 1) == Decision(end=(WorkerId("w0"),)), "busy ones stay"


# --- each of them


def test_cluster_autoscaler() -> None:
    assert cluster_autoscaler(sight((ONE, 9)), 0.0) == (Decision(launch=(BIG, BIG)), NOW)
    old = sight(joined=12, idle=(*(600.0 for _ in range(11)), 599.0))
    assert len(cluster_autoscaler(old, NOW - 600.0)[0].end) == 10
    assert cluster_autoscaler(old, NOW - 599.0) == (Decision(), NOW - 599.0)
    assert cluster_autoscaler(sight(joined=1, idle=(599.0,)), 0.0)[0] == Decision()


def test_karpenter() -> None:
    assert karpenter(sight((ONE, 9))).launch == (BIG, SMALL)
    assert len(karpenter(sight(joined=20, idle=(60.0,) * 20)).end) == 2
    assert len(karpenter(sight(joined=1, idle=(15.0,))).end) == 1
    assert karpenter(sight(joined=1, idle=(14.0,))).end == ()


def test_cobald() -> None:
    assert linear(sight(), 0.0) == (Decision(launch=(BIG, BIG)), 10.0)
    assert linear(sight(joined=2, running=9), 16.0) == (Decision(launch=(BIG, BIG)), 26.0)
    assert linear(sight(joined=2, running=7), 16.0) == (Decision(drain=(WorkerId("u0"),)), 6.0)
    assert linear(sight(joined=2, running=8), 16.0) == (Decision(), 16.0)
    assert linear(sight(joined=2, running=16), 9000.0)[1] == 26.0


def test_react() -> None:
    assert react(sight((ONE, 8), joined=1, running=8)).launch == (BIG,) * 3
    assert react(sight(joined=1, running=7)) == Decision()
    assert react(sight(joined=6, running=7, idle=(9.0,) * 5)).end == tuple(WorkerId(f"w{n}") for n in range(3))
    assert react(sight(joined=2, idle=(9.0, 5.0))).end == (WorkerId("w0"), WorkerId("w1"))
    assert react(sight()) == Decision()


def test_adapt() -> None:
    assert adapt(sight((ONE, 8), joined=1, running=8), 0.5) == (Decision(launch=(BIG,) * 3), 0.0)
    ten = sight(joined=11, running=8, idle=(9.0,) * 10)
    decision, repair = adapt(ten, 0.0)
    assert decision == Decision()
    assert repair == pytest.approx(10 / 15)
    decision, repair = adapt(ten, repair)
    assert len(decision.end) == 1
    assert repair == pytest.approx(5 / 15)
    assert adapt(sight(joined=3, running=8, idle=(9.0, 9.0)), 5.0)[0] == Decision(), "its margin stays"


def test_hist() -> None:
    empty = (((),) * 24, ())
    decision, (hours, short) = hist(sight((ONE, 16)), empty)
    assert (decision.launch, short) == ((BIG, BIG), (True,))
    assert hours[int(NOW % 86_400 // 3600)] == (0, 0, 1)
    late = (empty[0], (True,) * 5)
    assert len(hist(sight((ONE, 16)), late)[0].launch) == 4
    assert hist(sight((ONE, 16)), late)[1][1] == ()


@pytest.mark.parametrize(("part", "value"), [(0.5, 1), (0.95, 3), (1.0, 3), (0.75, 1), (0.76, 3)])
def test_a_percentile_of_counts(part: float, value: int) -> None:
    assert percentile((1, 2, 0, 1), part) == value
    assert percentile((), part) == 0


def test_reg() -> None:
    up, samples = reg(sight((ONE, 16), joined=1, running=8), ())
    assert (up.launch, samples) == ((BIG, BIG), ((NOW, 3.0),))
    falling = tuple((NOW - 30.0 * ago, 1.0 + ago) for ago in range(5, 0, -1))
    down, samples = reg(sight(joined=6, running=8, idle=(9.0,) * 5), falling)
    assert (len(down.end), len(samples)) == (5, 6)
    long = tuple((NOW - 30.0 * ago, 1.0) for ago in range(100, 0, -1))
    assert len(reg(sight(), long)[1]) == 72


@given(
    st.floats(-1.0, 1.0), st.floats(-10.0, 10.0), st.floats(-100.0, 100.0), st.integers(3, 20), st.integers(0, 10**9)
)
def test_a_parabola_is_found_again(a: float, b: float, c: float, number: int, start: int) -> None:
    def value(time: float) -> float:
        return a * time * time + b * time + c

    samples = [(start + 10.0 * place, value(place)) for place in range(number)]
    assert parabola(samples, start + 10.0 * number) == pytest.approx(value(number), abs=1e-4)


def test_fewer_samples_give_a_line_or_a_level() -> None:
    assert parabola([(0.0, 5.0)], 90.0) == pytest.approx(5.0)
    assert parabola([(0.0, 5.0), (10.0, 6.0)], 20.0) == pytest.approx(7.0)


# --- whole runs


def run(name: str, setting: Setting, *, jobs: int = 300, seed: int = 0) -> Run:
    marked = baseline_setting(setting, name)
    return run_model(fitted(read_trace("grid", seed=2, jobs=jobs), marked), marked, seed=seed)


@pytest.mark.parametrize("name", NAMES)
def test_every_one_does_the_work_and_keeps_the_rules(name: str) -> None:
    done = run(name, standard_setting())
    assert (done.violations, done.killed, done.never_started, len(done.jobs)) == ((), 0, 0, 300)
    judged = score(done)
    assert judged.over_work > 0
    assert run_document(done, judged)["baseline"] == name
    assert name in done.setting.name


@pytest.mark.parametrize("name", ["static", "cobald", "react", "karpenter"])
def test_limits_and_faults(name: str) -> None:
    base = standard_setting()
    habits = replace(
        base.clouds[next(iter(base.clouds))],
        outages=Outages(3600.0, 600.0),
        launches=RateLimit(0.02, 2),
        reclaim=Reclaim(0.2, 3000.0),
        dead_on_arrival=0.1,
        list_lag=30.0,
        end_time=30.0,
    )
    group = replace(base.rules.groups[GroupName("grid")], maximum=5, minimum=1)
    setting = replace(
        base,
        clouds=dict.fromkeys(base.clouds, habits),
        rules=replace(base.rules, groups={group.name: group}),
    )
    done = run(name, setting, jobs=120)
    assert (done.violations, done.killed, len(done.jobs)) == ((), 0, 120)
    assert score(done).peak_cores <= 40


@pytest.mark.parametrize("drains", [False, True])
def test_a_model_that_would_end_everything_ends_no_job_and_keeps_the_minimum(drains: bool) -> None:
    def rogue(seen: Sight) -> Decision:
        every = tuple(each.worker for each in seen.in_use())
        new = (seen.machine,) * sum(number for _, number in lacking(seen))
        return Decision(launch=new, drain=every if drains else (), end=every)

    base = standard_setting()
    group = replace(base.rules.groups[GroupName("grid")], minimum=2)
    setting = replace(base, rules=replace(base.rules, groups={group.name: group}))
    jobs = [TraceJob(number, 1000.0 + 100.0 * number, 3000.0, 8) for number in range(5)]
    done = run_baseline(make_trace("by hand", jobs, Reading()), setting, Baseline("rogue", 10.0, lambda: rogue))
    assert (done.violations, done.killed, done.lost, len(done.jobs)) == ((), 0, 0, 5)
    there = paid_of(done).sampled(10.0, max(done.jobs.ended) - 1.0, 10.0)
    assert min(there) == 16.0
    assert drains or len(done.machines) == 5, "the minimum is not ended and made anew"


def test_equal_seeds_give_equal_bits() -> None:
    one, two, other = (digest(run("adapt", standard_setting(), seed=seed)) for seed in (1, 1, 2))
    assert one == two != other


def test_static_is_the_peak() -> None:
    jobs = [TraceJob(1, 0.0, 100.0, 4), TraceJob(2, 50.0, 100.0, 6), TraceJob(3, 100.0, 1000.0, 8)]
    trace = make_trace("by hand", jobs, Reading())
    assert peak(trace) == 14
    marked = baseline_setting(standard_setting(), "static")
    done = run_model(trace, marked)
    assert [machine.shape.resources.cores for machine in done.machines] == [8, 8]
    assert {machine.ended for machine in done.machines} == {done.length}


def test_jobs_that_cannot_run_end_the_run() -> None:
    base = standard_setting()
    none = replace(base.rules.groups[GroupName("grid")], maximum=0)
    done = run("react", replace(base, rules=replace(base.rules, groups={none.name: none})), jobs=3)
    assert (done.never_started, done.machines) == (3, ())


def test_several_groups_are_refused() -> None:
    base = standard_setting()
    group = base.rules.groups[GroupName("grid")]
    two = {group.name: group, GroupName("b"): replace(group, name=GroupName("b"))}
    with pytest.raises(GridtideError, match="one group on one cloud"):
        run("react", replace(base, rules=replace(base.rules, groups=two)), jobs=3)


@pytest.mark.parametrize("name", NAMES)
def test_faults_are_refused_where_they_would_not_strike(name: str) -> None:
    broken = replace(standard_setting(), faults=chaos(1.0))
    if name == "elastiq":
        done = run(name, broken, jobs=30)
        assert (done.violations, sum(done.strikes.values()) > 0) == ((), True)
        return
    with pytest.raises(GridtideError, match=f"faults strike .* model of {name}"):
        baseline_setting(broken, name)


def test_a_model_that_keeps_asking_a_cloud_without_room_breaks_no_rule_of_ours() -> None:
    base = standard_setting()
    full = {name: replace(model, quota=Quota(machines=1)) for name, model in base.clouds.items()}
    rules = replace(
        base.rules, clouds={name: replace(each, quota=Quota(machines=1)) for name, each in base.rules.clouds.items()}
    )
    done = run("karpenter", replace(base, clouds=full, rules=rules), jobs=60)
    assert (done.violations, len(done.jobs)) == ((), 60)


def test_the_page_tells_of_every_model_and_its_rhythm() -> None:
    rows = re.findall(r"^\| (`.*?`) \|.*?\| (.*?) \|$", PAGE.read_text(encoding="utf-8").split("\n## ")[0], re.M)
    told = {name: every for names, every in rows for name in re.findall(r"`([a-z-]+)`", names)}
    assert set(told) == set(NAMES)
    assert all(told[name] == f"{model.every:.0f} s" for name, model in MODELS.items())


def test_steps_are_pure() -> None:
    steps: list[Callable[[Sight], Decision]] = [karpenter, react]
    for step in steps:
        seen = sight((ONE, 9), joined=3, running=10, idle=(700.0,))
        assert step(seen) == step(seen)
