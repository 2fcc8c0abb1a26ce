"""Whole runs: small workloads on the production controller, on virtual time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from gridtide.errors import SiteFileError
from gridtide.model.ids import CloudName, GroupName
from gridtide.model.machines import Quota
from gridtide.model.rules import CloudRules, LoadPolicy, Policy, QueuePolicy, SchedulePolicy, Window
from gridtide.sim.batch import Order
from gridtide.sim.cloud import BootTime, Outages, RateLimit, Reclaim
from gridtide.sim.curves import pieces
from gridtide.sim.document import digest
from gridtide.sim.reading import read_trace
from gridtide.sim.run import Run, simulate
from gridtide.sim.setting import Setting, coarse, fitted, standard_setting
from gridtide.sim.trace import Reading, Skip, Trace, TraceJob, make_trace
from gridtide.sim.yardsticks import paid_of, running_of, score, supply_of

CLOUD, GROUP = CloudName("cloud"), GroupName("grid")


def trace(*jobs: tuple[float, float] | tuple[float, float, int]) -> Trace:
    """(submit, run time[, cores])."""
    made = (TraceJob(number, one[0], one[1], *one[2:]) for number, one in enumerate(jobs))
    return make_trace("by hand", made, Reading())


def setting(*, maximum: int = 1000, minimum: int = 0, quota: Quota | None = None, **model: object) -> Setting:
    base = standard_setting()
    group = replace(base.rules.groups[GROUP], maximum=maximum, minimum=minimum, policy=QueuePolicy(idle_for=60.0))
    limit = quota or Quota()
    rules = replace(base.rules, groups={GROUP: group}, clouds={CLOUD: CloudRules(CLOUD, limit, 0.0)})
    habits = replace(base.clouds[CLOUD], quota=limit, boot=BootTime(100.0, 0.0))
    return replace(base, rules=rules, clouds={CLOUD: replace(habits, **model)})  # type: ignore[arg-type]


def run(workload: Trace, on: Setting, seed: int = 0) -> Run:
    return simulate(fitted(workload, on), on, seed=seed)


def check(done: Run) -> None:
    """What holds of every run."""
    assert done.violations == ()
    assert done.killed == 0
    for supply, running, _ in pieces(supply_of(done), running_of(done), done.length):
        assert running <= supply + 1e-9
    for machine in done.machines:
        assert machine.made <= (machine.joined or machine.made) <= machine.ended
        assert machine.charged >= machine.ended - machine.made - 1e-6
    jobs = done.jobs
    assert all(a <= b <= c for a, b, c in zip(jobs.submitted, jobs.started, jobs.ended, strict=True))


def test_one_job_waits_for_one_boot_and_the_machine_goes_when_it_is_idle() -> None:
    done = run(trace((0.0, 1000.0)), setting())
    check(done)
    (machine,) = done.machines
    assert machine.shape.name == "1core"
    assert done.jobs.started[0] == pytest.approx(100.0, abs=15.0)
    assert done.jobs.ended[0] == done.jobs.started[0] + 1000.0
    assert 1060.0 <= machine.ended - (machine.joined or 0.0) <= 1180.0
    assert score(done).launches_per_1000 == 1000.0


def test_work_is_conserved() -> None:
    workload = read_trace("grid", seed=3, jobs=400)
    done = run(workload, setting())
    check(done)
    assert len(done.jobs) == 400
    judged = score(done)
    assert judged.work == pytest.approx(workload.work / 3600.0)
    assert judged.core_hours >= judged.foresight.core_hours * 0.99 >= judged.bound.core_hours * 0.99
    assert judged.peak_cores == paid_of(done).peak
    assert judged.never_started == 0


def test_a_maximum_and_a_quota_are_kept_and_the_work_is_done_all_the_same() -> None:
    workload = trace(*((float(number), 600.0) for number in range(60)))
    for on in (setting(maximum=2), setting(quota=Quota(cores=10)), setting(quota=Quota(machines=1))):
        done = run(workload, on)
        check(done)
        assert len(done.jobs) == 60
    assert paid_of(done).peak <= 8


def test_a_minimum_is_there_without_jobs_and_stays() -> None:
    done = run(trace((4000.0, 60.0), (8000.0, 60.0)), setting(minimum=1))
    check(done)
    assert max(start - submit for submit, start in zip(done.jobs.submitted, done.jobs.started, strict=True)) < 160.0
    assert len(done.machines) == 1
    assert done.machines[0].ended == done.length


def test_reclaimed_machines_lose_runs_but_no_job() -> None:
    workload = trace(*((float(60 * number), 3000.0) for number in range(40)))
    done = run(workload, setting(reclaim=Reclaim(0.5, 2000.0)))
    check(done)
    assert len(done.jobs) == 40
    assert done.lost > 0
    assert done.killed == 0


def test_outages_rate_limits_and_dead_machines_delay_and_break_nothing() -> None:
    workload = trace(*((float(30 * number), 900.0) for number in range(100)))
    bad = setting(outages=Outages(1800.0, 300.0), launches=RateLimit(0.05, 1), dead_on_arrival=0.1, list_lag=20.0)
    done = run(workload, bad)
    check(done)
    assert len(done.jobs) == 100
    assert score(done).waits.mean > score(run(workload, setting())).waits.mean


def test_jobs_that_cannot_start_end_the_run_and_are_counted() -> None:
    done = run(trace((0.0, 10.0)), setting(maximum=0))
    assert (done.never_started, len(done.jobs), done.machines) == (1, 0, ())
    assert score(done).waits.mean == 0.0


def test_in_order_waits_longer_than_first_fit() -> None:
    workload = trace(*((float(number), 500.0, 8 if number % 3 == 0 else 1) for number in range(60)))
    on = setting(maximum=3)
    first_fit, in_order = run(workload, on), run(workload, replace(on, order=Order.IN_ORDER))
    check(in_order)
    assert score(in_order).waits.mean > score(first_fit).waits.mean


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    workload = read_trace("grid", seed=1, jobs=150)
    on = replace(setting(), clouds={CLOUD: replace(setting().clouds[CLOUD], boot=BootTime(120.0, 0.25))})
    assert digest(run(workload, on, 1)) == digest(run(workload, on, 1)) != digest(run(workload, on, 2))


def test_another_order_of_sets_changes_nothing() -> None:
    code = (
        "from gridtide.sim.reading import read_trace; from gridtide.sim.run import simulate;"
        "from gridtide.sim.setting import *; from gridtide.sim.document import digest;"
        "s = standard_setting(); print(digest(simulate(fitted(read_trace('grid', seed=1, jobs=120), s), s, seed=4)))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


def test_a_finer_step_gives_shorter_waits() -> None:
    workload = read_trace("grid", seed=2, jobs=300)
    coarse_run, fine_run = (run(workload, replace(setting(), step=step)) for step in (120.0, 5.0))
    check(fine_run)
    assert score(fine_run).waits.mean < score(coarse_run).waits.mean


def test_what_fits_on_no_machine_is_left_out_and_counted() -> None:
    workload = trace((0.0, 10.0, 9), (1.0, 10.0, 8), (2.0, 10.0, 1))
    kept = fitted(workload, setting())
    assert [job.cores for job in kept.jobs] == [8, 1]
    assert kept.skipped == {Skip.TOO_LARGE: 1}
    with pytest.raises(SiteFileError, match="no job of by hand fits"):
        fitted(trace((0.0, 10.0, 9)), setting())
    with pytest.raises(SiteFileError, match="no job"):
        fitted(make_trace("other", [TraceJob(1, 0.0, 1.0, group="other")], Reading()), setting())


@pytest.mark.parametrize(
    ("memory", "rounded"), [(0, 0), (1, 1), (15, 15), (17, 18), (1000, 1024), (1025, 1152), (4096, 4096)]
)
def test_memory_is_rounded_up_by_an_eighth_at_most(memory: int, rounded: int) -> None:
    assert coarse(TraceJob(1, 0.0, 1.0, memory=memory)).memory == rounded
    assert memory <= rounded <= memory * 1.125 + 1


def with_policy(policy: Policy, **figures: int) -> Setting:
    base = setting(**figures)  # type: ignore[arg-type]
    group = replace(base.rules.groups[GROUP], policy=policy)
    return replace(base, rules=replace(base.rules, groups={GROUP: group}))


def test_the_load_policy_hears_of_loads() -> None:
    workload = trace(*((float(number), 1200.0, 8) for number in range(12)))
    done = run(workload, with_policy(LoadPolicy(), minimum=1, maximum=4))
    check(done)
    assert len(done.jobs) == 12
    assert len(done.machines) == 4
    made = [machine.made for machine in done.machines]
    assert all(later - sooner >= 60.0 for sooner, later in pairwise(made))
    assert sum(machine.ended < done.length for machine in done.machines) == 3, "all but the minimum were given back"


def test_a_schedule_goes_by_the_clock_of_the_log() -> None:
    eight = datetime(2026, 3, 2, 8, tzinfo=UTC).timestamp()
    window = Window("0 10 * * *", 3600.0, minimum=2)
    workload = replace(trace((0.0, 60.0), (6 * 3600.0, 60.0)), epoch=eight)
    done = run(workload, with_policy(SchedulePolicy((window,))))
    check(done)
    made = sorted(machine.made for machine in done.machines)
    assert made[1:3] == pytest.approx([7200.0, 7200.0], abs=30.0)
    told = [machine.ended for machine in done.machines if machine.made == made[1]]
    assert told[0] >= 3 * 3600.0


def test_progress_grows_to_the_end() -> None:
    heard: list[float] = []
    on = setting()
    simulate(fitted(read_trace("grid", seed=1, jobs=200), on), on, progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] > 0.9


def test_a_fault_of_the_controller_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planned wrongly")

    monkeypatch.setattr("gridtide.control.controller.Planner.plan", broken)
    with pytest.raises(RuntimeError, match="planned wrongly"):
        run(trace((0.0, 10.0)), setting())
