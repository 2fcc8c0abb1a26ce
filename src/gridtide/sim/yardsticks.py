"""The figures by which a run is judged. Definitions and sources: docs/explanation/yardsticks.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gridtide.model.boots import quantile
from gridtide.model.costs import Billing
from gridtide.model.resources import Shape
from gridtide.sim.bounds import Bound, clairvoyant, zero_wait
from gridtide.sim.curves import Curve, Elasticity, elasticity
from gridtide.sim.run import Run
from gridtide.sim.setting import Setting
from gridtide.sim.spending import passed
from gridtide.sim.trace import Trace, TraceJob

TAU: Final = 10.0
"""Seconds: run times below it count as this long in the slowdown (Feitelson and others), so that a job of one second
does not outweigh all others."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long jobs waited, in seconds."""

    mean: float
    median: float
    p95: float
    p99: float
    longest: float
    slowdown: float
    """Mean bounded slowdown."""
    beyond_boot: float
    """Mean of what is longer than one boot."""
    beyond_boot_share: float
    """Part of the jobs that waited longer than one boot."""


@dataclass(frozen=True, slots=True)
class Score:
    """All yardsticks of a run."""

    jobs: int
    never_started: int
    killed: int
    """Jobs that we ended."""
    lost: int
    """Runs lost with machines that the cloud took back or broke."""
    waits: Waits
    launches: int
    launches_per_1000: float
    machine_hours: float
    core_hours: float
    """Charged."""
    work: float
    """Core-hours of the jobs that ended, of their last runs."""
    cost: float
    dearest_day: float
    """The most that one cloud charged on one day (UTC)."""
    days_over_budget: int
    """Days on which a cloud charged more than its budget."""
    over_work: float
    """Charged core-hours over those of the work, minus 1."""
    over_bound: float | None
    """Cost over that of the zero-wait bound, minus 1; None when machines cost nothing."""
    hours_over_bound: float
    """Machine-hours over those of the zero-wait bound, minus 1."""
    bound: Bound
    foresight: Bound
    """Clairvoyant packing onto all shapes."""
    foresight_largest: Bound
    """Clairvoyant packing onto the largest shape alone."""
    peak_cores: float
    elasticity: Elasticity


def waits_of(
    submitted: Sequence[float], started: Sequence[float], ended: Sequence[float], *, boot: float, tau: float = TAU
) -> Waits:
    """Of jobs, column by column. All zero without jobs."""
    if not submitted:
        return Waits(0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    waits = [start - submit for submit, start in zip(submitted, started, strict=True)]
    slowdowns = (
        max((end - submit) / max(end - start, tau), 1.0)
        for submit, start, end in zip(submitted, started, ended, strict=True)
    )
    ordered = sorted(waits)
    number = len(waits)
    return Waits(
        mean=sum(waits) / number,
        median=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
        longest=ordered[-1],
        slowdown=sum(slowdowns) / number,
        beyond_boot=sum(max(wait - boot, 0.0) for wait in waits) / number,
        beyond_boot_share=sum(wait > boot for wait in waits) / number,
    )


def demand_of(run: Run) -> Curve:
    """Cores of jobs that wait or run."""
    jobs = run.jobs
    begun = zip(jobs.submitted, jobs.cores, strict=True)
    over = zip(jobs.ended, jobs.cores, strict=True)
    return Curve.of([*((at, float(cores)) for at, cores in begun), *((at, -float(cores)) for at, cores in over)])


def running_of(run: Run) -> Curve:
    """Cores of jobs that run."""
    jobs = run.jobs
    begun = zip(jobs.started, jobs.cores, strict=True)
    over = zip(jobs.ended, jobs.cores, strict=True)
    return Curve.of([*((at, float(cores)) for at, cores in begun), *((at, -float(cores)) for at, cores in over)])


def supply_of(run: Run) -> Curve:
    """Cores of machines that have joined and not ended."""
    changes: list[tuple[float, float]] = []
    for machine in run.machines:
        if machine.joined is not None:
            cores = float(machine.shape.resources.cores)
            changes += [(machine.joined, cores), (machine.ended, -cores)]
    return Curve.of(changes)


def paid_of(run: Run) -> Curve:
    """Cores of machines that exist, booting ones included."""
    changes: list[tuple[float, float]] = []
    for machine in run.machines:
        cores = float(machine.shape.resources.cores)
        changes += [(machine.made, cores), (machine.ended, -cores)]
    return Curve.of(changes)


def shapes_of(setting: Setting) -> tuple[Shape, ...]:
    """Everything that a group may launch, once."""
    return tuple(dict.fromkeys(shape for group in setting.groups for shape in setting.shapes_of(group)))


def boot_of(setting: Setting) -> float:
    """One boot: the shortest median of the clouds that serve the queue."""
    used = {cloud for group in setting.groups for cloud in group.clouds}
    return min(setting.clouds[cloud].boot.median for cloud in used)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a run is measured against. It depends on the workload and the setting alone."""

    zero_wait: Bound
    foresight: Bound
    """Clairvoyant packing onto all shapes."""
    foresight_largest: Bound
    """The same onto the largest shape alone."""


def bounds(jobs: Sequence[TraceJob], shapes: Sequence[Shape], boot: float, billing: Billing) -> Bounds:
    """Work them out: a second for each 50 000 jobs. ``boot``: seconds."""
    least = zero_wait(jobs, shapes)
    largest = max(shape.resources for shape in shapes)
    only_largest = [shape for shape in shapes if shape.resources == largest]
    return Bounds(least, *(clairvoyant(jobs, onto, boot=boot, billing=billing) for onto in (shapes, only_largest)))


def bounds_input(trace: Trace, setting: Setting) -> tuple[Sequence[TraceJob], Sequence[Shape], float, Billing]:
    """The arguments of :func:`bounds`, for a workload that was made to fit the setting."""
    model = next(setting.clouds[cloud] for group in setting.groups for cloud in group.clouds)
    return trace.jobs, shapes_of(setting), boot_of(setting), model.billing


def score(run: Run, known: Bounds | None = None) -> Score:
    """Judge a run. ``known``: its bounds, where they have been worked out already."""
    jobs = run.jobs
    against = known or bounds(*bounds_input(run.trace, run.setting))
    bound = against.zero_wait
    core_hours = sum(each.charged * each.shape.resources.cores for each in run.machines) / 3600.0
    machine_hours = sum(each.charged for each in run.machines) / 3600.0
    cost = sum(each.cost for each in run.machines)
    durations = zip(jobs.started, jobs.ended, jobs.cores, strict=True)
    work = sum((end - start) * cores for start, end, cores in durations) / 3600.0
    return Score(
        jobs=len(jobs),
        never_started=run.never_started,
        killed=run.killed,
        lost=run.lost,
        waits=waits_of(jobs.submitted, jobs.started, jobs.ended, boot=boot_of(run.setting)),
        launches=len(run.machines),
        launches_per_1000=1000.0 * len(run.machines) / max(len(run.trace.jobs), 1),
        machine_hours=machine_hours,
        core_hours=core_hours,
        work=work,
        cost=cost,
        dearest_day=max((cost for days in run.days.values() for cost in days.values()), default=0.0),
        days_over_budget=sum(1 for _ in passed(run.days, run.setting.rules)),
        over_work=core_hours / work - 1.0 if work else 0.0,
        over_bound=cost / bound.cost - 1.0 if bound.cost else None,
        hours_over_bound=machine_hours / bound.machine_hours - 1.0 if bound.machine_hours else 0.0,
        bound=bound,
        foresight=against.foresight,
        foresight_largest=against.foresight_largest,
        peak_cores=paid_of(run).peak,
        elasticity=elasticity(demand_of(run), supply_of(run), max(run.length, 1.0)),
    )
