"""The figures of runs side by side, for a terminal and for a page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template
from typing import Final

from gridtide.sim.plots import frontier_picture, supply_picture, wait_picture
from gridtide.sim.run import Run
from gridtide.sim.trace import Trace
from gridtide.sim.yardsticks import Score

Row = tuple[str, tuple[str, ...]]
"""A yardstick and its value in each run."""


def rows(runs: Sequence[Run], scores: Sequence[Score]) -> list[Row]:
    """Every yardstick, as people read it."""

    def row(name: str, values: Sequence[str]) -> Row:
        return name, tuple(values)

    return [
        row("jobs that ended", [_count(score.jobs) for score in scores]),
        row("jobs that never started", [_count(score.never_started) for score in scores]),
        row("jobs killed by us", [_count(score.killed) for score in scores]),
        row("runs lost with machines", [_count(score.lost) for score in scores]),
        row("wait, mean", [_seconds(score.waits.mean) for score in scores]),
        row("wait, median", [_seconds(score.waits.median) for score in scores]),
        row("wait, p95", [_seconds(score.waits.p95) for score in scores]),
        row("wait, p99", [_seconds(score.waits.p99) for score in scores]),
        row("wait, longest", [_seconds(score.waits.longest) for score in scores]),
        row("wait beyond one boot, mean", [_seconds(score.waits.beyond_boot) for score in scores]),
        row("jobs that waited longer than a boot", [_part(score.waits.beyond_boot_share) for score in scores]),
        row("bounded slowdown", [f"{score.waits.slowdown:.2f}" for score in scores]),
        row("work, core-hours", [_amount(score.work) for score in scores]),
        row("charged core-hours", [_amount(score.core_hours) for score in scores]),
        row("  over the work", [_over(score.over_work) for score in scores]),
        row(
            "  over clairvoyant packing", [_over(score.core_hours / score.foresight.core_hours - 1) for score in scores]
        ),
        row("machine-hours", [_amount(score.machine_hours) for score in scores]),
        row("  over the zero-wait bound", [_over(score.hours_over_bound) for score in scores]),
        row("cost", [_amount(score.cost, 2) for score in scores]),
        row("  over the zero-wait bound", [_over(score.over_bound) for score in scores]),
        row("  of the dearest day of a cloud", [_amount(score.dearest_day, 2) for score in scores]),
        row("  days over a budget", [_count(score.days_over_budget) for score in scores]),
        row("launches", [_count(score.launches) for score in scores]),
        row("  per 1 000 jobs", [f"{score.launches_per_1000:.1f}" for score in scores]),
        row("most cores at once", [_amount(score.peak_cores) for score in scores]),
        row("under-provisioning, accuracy", [_part(score.elasticity.under_accuracy) for score in scores]),
        row("over-provisioning, accuracy", [_part(score.elasticity.over_accuracy) for score in scores]),
        row("under-provisioning, timeshare", [_part(score.elasticity.under_timeshare) for score in scores]),
        row("over-provisioning, timeshare", [_part(score.elasticity.over_timeshare) for score in scores]),
        row("instability", [_part(score.elasticity.instability) for score in scores]),
        row("faults", [_count(sum(run.strikes.values())) for run in runs]),
        row("rules broken", [_count(run.violation_count) for run in runs]),
    ]


def told_of(trace: Trace) -> list[str]:
    """What was replayed and what was left out, a sentence each."""
    lines = [f"{trace.name}: {_count(len(trace.jobs))} jobs in {trace.span / 86_400:.1f} days"]
    lines += [f"{_count(number)} jobs left out: {why.value}" for why, number in trace.skipped.items()]
    if trace.bad_count:
        lines.append(f"{_count(trace.bad_count)} bad lines; the first: line {trace.bad[0].number} {trace.bad[0].why}")
    return [*lines, *trace.notes]


def page(trace: Trace, runs: Sequence[Run], scores: Sequence[Score]) -> str:
    """The whole report as one HTML page."""
    names = "".join(f"<th>{escape(run.setting.name)}</th>" for run in runs)
    body = "".join(
        f"<tr><td>{escape(name.strip())}</td>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"
        for name, values in rows(runs, scores)
    )
    pictures = [frontier_picture(runs, scores), wait_picture(runs), *(supply_picture(run) for run in runs)]
    breaches = [f"{run.setting.name}: {each}" for run in runs for each in run.violations]
    return _PAGE.substitute(
        title=escape(trace.name),
        told="".join(f"<p>{escape(line)}</p>" for line in told_of(trace)),
        breaches="".join(f"<p class=bad>{escape(line)}</p>" for line in breaches),
        names=names,
        rows=body,
        pictures="".join(f"<figure>{picture}</figure>" for picture in pictures),
        seed=runs[0].seed,
        models=_MODELS if any(run.setting.baseline for run in runs) else "",
    )


_MODELS: Final = (
    " What is called a model is our model of that autoscaler's rules, not its code: docs/reference/baselines.md."
)

_PAGE: Final = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Gridtide: $title</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem .15rem 0; text-align: right; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 2rem 0; }
svg { width: 100%; height: auto; }
.bad { color: #a00; }
</style>
</head>
<body>
<h1>$title</h1>
$told
$breaches
<table><thead><tr><th>yardstick</th>$names</tr></thead><tbody>$rows</tbody></table>
$pictures
<p>Seed $seed. The production controller and planner on virtual time; definitions: docs/explanation/yardsticks.md.
$models</p>
</body>
</html>
""")


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _amount(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}".replace(",", " ")


def _seconds(value: float) -> str:
    return f"{value:,.1f} s".replace(",", " ")


def _part(value: float) -> str:
    return f"{100 * value:.2f} %"


def _over(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %"
