"""What the policy ``tide`` costs on a workload, beside ``queue``: the production controller on virtual time."""

from __future__ import annotations

from gridtide.model.rules import Policy, QueuePolicy, TidePolicy
from gridtide.sim.reading import read_trace
from gridtide.sim.run import simulate
from gridtide.sim.setting import fitted, standard_setting
from gridtide.sim.yardsticks import Score, score


def judged(policy: Policy) -> Score:
    """600 jobs of the grid model in short order."""
    setting = standard_setting(policy=policy)
    workload = fitted(read_trace("grid", seed=1, jobs=600, spread=0.5), setting)
    done = simulate(workload, setting)
    assert (done.violation_count, done.killed, done.never_started) == (0, 0, 0)
    return score(done)


def test_it_wastes_less_than_large_machines_and_lets_no_job_wait_longer() -> None:
    tide, queue = judged(TidePolicy()), judged(QueuePolicy())
    assert tide.over_work < 0.75 * queue.over_work
    assert tide.waits.p95 <= queue.waits.p95 + 30.0
    assert tide.launches_per_1000 > queue.launches_per_1000  # that is its price
