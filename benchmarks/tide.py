"""The policy ``tide`` on a real grid's log: what it pays over the work, how long jobs wait, and launches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from benchmarks.figures import Compare, Figure
from gridtide.model.rules import TidePolicy
from gridtide.sim.reading import read_trace
from gridtide.sim.run import simulate
from gridtide.sim.setting import fitted, standard_setting
from gridtide.sim.trace import Trace
from gridtide.sim.yardsticks import Score, score

LOG = Path(__file__).parents[2] / "shared" / "traces" / "LCG-2005-1.swf.gz"
"""188 041 one-core jobs in 11 days. Where it is missing, as many jobs of the model ``grid`` stand in for it."""
JOBS = 188_041
SEEDS = range(5)
DAY = 86_400.0
JUDGED_FROM = 6
"""Days that the policy's constants were tuned on; it is judged on the others, and on all."""


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """The worst of five seeds on days 7 to 11 and on the whole; in small, that no rule is broken."""
    if quick:
        yield from _kept([_outcome(read_trace("grid", seed=1, jobs=300), 0)], "300 jobs of the grid model")
        return
    whole = read_trace(str(LOG)) if LOG.exists() else read_trace("grid", jobs=JOBS)
    later = whole.between(JUDGED_FROM * DAY, whole.span + 1.0)
    with ProcessPoolExecutor() as pool:
        for part, workload in (("days 7-11", later), ("whole", whole)):
            yield from _judged(part, workload, list(pool.map(_outcome, repeat(workload), SEEDS)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run."""

    score: Score
    launches: int
    broken: int
    """Rules, jobs killed and jobs that never started."""


def _judged(part: str, workload: Trace, outcomes: list[Outcome]) -> Iterable[Figure]:
    scores = [each.score for each in outcomes]
    allowed = 15_000 * len(workload.jobs) / JOBS
    name = f"tide, {part}"
    yield _worst(f"{name}: paid over the work", scores, lambda each: 100.0 * each.over_work, "%", 15.0, workload)
    yield _worst(f"{name}: p95 of the waits", scores, lambda each: each.waits.p95, "s", 90.0, workload)
    launched = [float(each.launches) for each in outcomes]
    yield _of(f"{name}: launches", launched, "machines", round(allowed), workload)
    yield from _kept(outcomes, f"{name}, {len(outcomes)} seeds")


def _outcome(workload: Trace, seed: int) -> Outcome:
    setting = standard_setting(policy=TidePolicy())
    run = simulate(fitted(workload, setting), setting, seed=seed)
    return Outcome(score(run), len(run.machines), run.violation_count + run.killed + run.never_started)


def _worst(
    name: str, scores: list[Score], figure: Callable[[Score], float], unit: str, limit: float, workload: Trace
) -> Figure:
    return _of(name, [figure(each) for each in scores], unit, limit, workload)


def _of(name: str, values: list[float], unit: str, limit: float, workload: Trace) -> Figure:
    compare: Compare = "<="
    spread = f"{min(values):.5g} to {max(values):.5g} with {len(values)} seeds"
    return Figure(name, max(values), unit, compare, limit, f"{spread}; {len(workload.jobs)} jobs of {workload.name}")


def _kept(outcomes: list[Outcome], note: str) -> Iterable[Figure]:
    yield Figure(f"{note}: rules broken", sum(each.broken for each in outcomes), "times", "==", 0, note)
