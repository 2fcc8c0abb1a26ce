"""Pictures of runs, as SVG text: equal runs give equal pictures.

matplotlib is loaded here and nowhere else, and only when a picture is wanted.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gridtide.errors import InvalidRequest
from gridtide.sim.curves import Curve
from gridtide.sim.run import Run
from gridtide.sim.yardsticks import Score, demand_of, paid_of, running_of, supply_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS: Final = 1500
"""Of a curve over time: as many as a picture has columns."""
_COLOURS: Final = (
    *("#0b6e4f", "#c8553d", "#3d5a80", "#b8860b", "#6a4c93", "#2e2e2e"),
    *("#d77fa1", "#7fb069", "#56a3a6", "#a47148", "#8d99ae", "#e0a458"),
)
_HOUR: Final = 3600.0
_DAY: Final = 86_400.0


def supply_picture(run: Run) -> str:
    """Demand against supply over time."""
    figure, axes = _figure(run.setting.name)
    for curve, label, colour in (
        (paid_of(run), "machines, booting ones included", "#d9cbb6"),
        (supply_of(run), "machines that have joined", "#9db4c0"),
        (running_of(run), "running jobs", "#0b6e4f"),
    ):
        times, values = _drawn(curve, run.length)
        axes.fill_between(times, values, step="post", color=colour, label=label, linewidth=0)
    times, values = _drawn(demand_of(run), run.length)
    axes.step(times, values, where="post", color="#c8553d", linewidth=0.8, label="jobs that wait or run")
    axes.set_xlabel("days" if run.length > 3 * _DAY else "hours")
    axes.set_ylabel("cores")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", frameon=False, fontsize="small")
    return _svg(figure)


def wait_picture(runs: Sequence[Run]) -> str:
    """Part of the jobs that waited no longer than so many seconds."""
    figure, axes = _figure("Waiting times")
    for number, run in enumerate(runs):
        jobs = run.jobs
        waits = sorted(start - submit for submit, start in zip(jobs.submitted, jobs.started, strict=True))
        if not waits:
            continue
        step = max(1, len(waits) // _POINTS)
        places = [*range(0, len(waits), step), len(waits) - 1]
        axes.step(
            [max(waits[place], 0.1) for place in places],
            [(place + 1) / len(waits) for place in places],
            where="post",
            color=_COLOURS[number % len(_COLOURS)],
            label=run.setting.name,
        )
    axes.set_xscale("log")
    axes.set_xlabel("seconds from submission to start (0.1: at once)")
    axes.set_ylabel("part of the jobs")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower right", frameon=False, fontsize="small")
    return _svg(figure)


def frontier_picture(runs: Sequence[Run], scores: Sequence[Score]) -> str:
    """Cost against waiting: each run, and what foresight achieves. Lower and more to the left is better."""
    figure, axes = _figure("Cost and waiting")
    for number, (run, score) in enumerate(zip(runs, scores, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot([score.waits.p95], [100 * score.over_work], "o", color=colour, label=run.setting.name)
    first = scores[0]
    for bound, name, mark in (
        (first.foresight_largest, "clairvoyant packing, largest shape", "s"),
        (first.foresight, "clairvoyant packing, all shapes", "^"),
        (first.bound, "zero-wait bound", "*"),
    ):
        over = bound.core_hours / first.bound.core_hours - 1.0
        axes.plot([0.0], [100 * over], mark, color="#777777", label=name, clip_on=False)
    axes.set_xlabel("95th percentile of the waiting time, seconds")
    axes.set_ylabel("charged core-hours over the work, %")
    axes.margins(0.1)
    axes.legend(loc="best", frameon=False, fontsize="small")
    return _svg(figure)


def _drawn(curve: Curve, length: float) -> tuple[list[float], list[float]]:
    """The largest value of each column of the picture, so that no peak is lost."""
    unit = _DAY if length > 3 * _DAY else _HOUR
    width = max(length, 1.0) / _POINTS
    values = [0.0] * (_POINTS + 1)
    level, place = 0.0, 0
    for column in range(_POINTS + 1):
        highest = level
        while place < len(curve.times) and curve.times[place] < (column + 1) * width:
            level = curve.values[place]
            highest = max(highest, level)
            place += 1
        values[column] = highest
    return [column * width / unit for column in range(_POINTS + 1)], values


def _figure(title: str) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InvalidRequest(
            "pictures need matplotlib, which is not installed", remedy="pip install matplotlib"
        ) from None

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    import matplotlib

    sink = io.StringIO()
    # The salt makes the names inside the picture, and "Date" its header, the same each time.
    with matplotlib.rc_context({"svg.hashsalt": "gridtide", "svg.fonttype": "none"}):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]
