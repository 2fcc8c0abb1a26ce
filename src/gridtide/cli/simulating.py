"""``sim``: replay a workload on virtual time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gridtide.cli.command import Session, command
from gridtide.cli.human import number
from gridtide.cli.output import table
from gridtide.cli.problems import Failed, WrongUsage

if TYPE_CHECKING:
    from gridtide.model.rules import Policy
    from gridtide.sim.run import Run
    from gridtide.sim.setting import Setting
    from gridtide.sim.trace import Trace
    from gridtide.sim.yardsticks import Bounds, Score

_TOLD_EVERY: Final = 0.1
"""Where there is no terminal, a line for each tenth."""


_MANY_JOBS: Final = 20_000
"""From so many jobs another process is worth its start, half a second."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    command(app, "sim", connects=False, panel="The site")(sim)


_Trace = Annotated[
    str, typer.Argument(metavar="TRACE", help="A log (.swf, .csv, .gz of either), or a model: lublin, grid.")
]
_Sites = Annotated[
    list[Path] | None,
    typer.Option(
        "--site", metavar="FILE", help="A site file. More than once: side by side. Left out: a standard site."
    ),
]
_Policy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME[,NAME]",
        help="With these policies instead, as they are without settings. More than one: side by side.",
    ),
]
_Model = Annotated[Path | None, typer.Option("--model", metavar="FILE", help="How the clouds and the queue behave.")]
_Queue = Annotated[
    str | None, typer.Option("--queue", metavar="NAME", help="The site's queue that the jobs go to, if it has many.")
]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Another seed, other chances.")]
_Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, metavar="N", help="Only so many jobs (of a model: 10 000).")
]
_DaysRange = Annotated[
    str | None, typer.Option("--days", metavar="A-B", help="Only what was submitted on these days, from 1.")
]
_Spread = Annotated[
    float, typer.Option("--spread", min=0.001, metavar="X", help="Multiply the times between submissions.")
]
_Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        metavar="NAME[,NAME]",
        help="Models of other autoscalers beside it, on the first site. Or: all.",
    ),
]
_Fault = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="NAME[=...]",
        help='Let something go wrong, for example "partition=at 2 days, for 20 min". More than once.',
    ),
]
_Chaos = Annotated[
    float | None,
    typer.Option(
        "--chaos", min=0.001, max=1000.0, metavar="X", help="All faults at random, X times as often as usual."
    ),
]
_Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report as one page.")]


def sim(
    session: Session,
    trace: _Trace,
    site: _Sites = None,
    policy: _Policy = None,
    model: _Model = None,
    queue: _Queue = None,
    seed: _Seed = 0,
    jobs: _Jobs = None,
    days: _DaysRange = None,
    spread: _Spread = 1.0,
    baseline: _Baseline = None,
    fault: _Fault = None,
    chaos: _Chaos = None,
    html: _Html = None,
) -> None:
    """Replay a workload with a site's groups and policies: waits, costs, and whether every rule was kept."""
    from gridtide.sim.baselines.catalogue import baseline_setting
    from gridtide.sim.reading import read_trace

    models = _models(baseline)
    settings = [_broken(each, fault or (), chaos) for each in _settings(site or (), policy, model, queue)]
    settings += [baseline_setting(settings[0], name) for name in models]
    workload = _days(read_trace(trace, seed=seed, jobs=jobs, spread=spread), days)
    runs, scores = _simulate(session, workload, settings, seed)
    told = runs[0].trace if len(runs) == 1 else workload  # what one site replayed; of several, what all were given
    if html is not None:
        from gridtide.sim.report import page

        _write(html, page(told, runs, scores))
    _tell(session, told, runs, scores, seed)
    _fail_if_broken(runs)


def _settings(sites: Sequence[Path], policies: str | None, model: Path | None, queue: str | None) -> list[Setting]:
    """One for each site file, told apart by name; without any, the standard one. With ``policies`` each with each."""
    from gridtide.sim.model_file import ModelSettings, make_setting, read_model

    chosen = [(name, _plain_policy(name)) for name in _names(policies)]
    behaviour = ModelSettings() if model is None else read_model(model)
    files: list[Path | None] = [*sites] or [None]
    settings = [make_setting(path, behaviour, queue=queue) for path in files]
    if len({setting.name for setting in settings}) < len(settings):  # site.toml of several directories
        settings = [replace(each, name=str(path)) for each, path in zip(settings, files, strict=True)]
    if not chosen:
        return settings
    return [each.following(name, policy) for each in settings for name, policy in chosen]


def _plain_policy(name: str) -> Policy:
    """The policy of this name as a site file has it that says no more than that."""
    from pydantic import ValidationError
    from pydantic_core import PydanticCustomError

    from gridtide.site.policies import POLICIES

    try:
        return POLICIES.model(name).model_validate({"type": name}).policy()
    except PydanticCustomError:
        known = f"there are: {', '.join(POLICIES.names())}"
        raise WrongUsage(f"no policy is called {name[:40]!r}", where="--policy", remedy=known) from None
    except ValidationError as error:
        # A package's policy may refuse the table as a whole: then there is no key to name.
        missing = ", ".join(str(each["loc"][0]) if each["loc"] else each["msg"] for each in error.errors())
        remedy = "write them in a site file, and name it with --site"
        raise WrongUsage(f"{name} needs settings: {missing}", where="--policy", remedy=remedy) from None


def _broken(setting: Setting, named: Sequence[str], chaos: float | None) -> Setting:
    """With these faults beside those of the model file."""
    from gridtide.sim import faults
    from gridtide.sim.fault_file import check_faults, parse_fault

    more = tuple(parse_fault(text) for text in named)
    check_faults(more, setting.clouds)
    return replace(setting, faults=(*setting.faults, *more, *(() if chaos is None else faults.chaos(chaos))))


def _simulate(
    session: Session, workload: Trace, settings: Sequence[Setting], seed: int
) -> tuple[list[Run], list[Score]]:
    from gridtide.sim.baselines.catalogue import run_model
    from gridtide.sim.setting import fitted
    from gridtide.sim.yardsticks import score

    runs: list[Run] = []
    scores: list[Score] = []
    for place, setting in enumerate(settings, 1):
        title = f"{setting.name} ({place} of {len(settings)})" if len(settings) > 1 else setting.name
        trace = fitted(workload, setting)
        with _bounds_beside(trace, setting) as bounds, _bar(session, title) as progress:
            runs.append(run_model(trace, setting, seed=seed, progress=progress))
            scores.append(score(runs[-1], bounds()))
    return runs, scores


@contextmanager
def _bounds_beside(trace: Trace, setting: Setting) -> Iterator[Callable[[], Bounds | None]]:
    """What a run of many jobs is measured against is worked out on another core, while it runs."""
    from gridtide.sim.yardsticks import bounds, bounds_input

    if len(trace.jobs) < _MANY_JOBS:
        yield lambda: None
        return
    # A fresh process: a fork of one with threads (the progress bar's) may hang.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        yield other.submit(bounds, *bounds_input(trace, setting)).result


def _tell(session: Session, trace: Trace, runs: Sequence[Run], scores: Sequence[Score], seed: int) -> None:
    from gridtide.sim.document import run_document, trace_document
    from gridtide.sim.report import rows, told_of

    documents = [run_document(run, figures) for run, figures in zip(runs, scores, strict=True)]
    session.output.document({"trace": trace_document(trace), "seed": seed, "runs": documents})
    for line in told_of(trace):
        session.output.note(line)
    names = tuple(run.setting.name for run in runs)
    cells = ((name, *values) for name, values in rows(runs, scores))
    session.output.show(table(("yardstick", *names), cells, right=names))


def _fail_if_broken(runs: Sequence[Run]) -> None:
    broken = sum(run.violation_count for run in runs)
    if broken:
        first = next(run.violations[0] for run in runs if run.violations)
        raise Failed(f"{number(broken, 'rule')} broken; the first: {first}")


def _days(trace: Trace, days: str | None) -> Trace:
    """``3-5``: from the start of the third day to the end of the fifth, counted from the first submission."""
    if days is None:
        return trace
    first, dash, last = days.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not dash)) or not 1 <= int(first) <= int(last or first):
        raise WrongUsage(f"{days!r} names no days", where="--days", remedy="for example 1-6, or 7")
    return trace.between((int(first) - 1) * 86_400.0, int(last or first) * 86_400.0)


def _models(names: str | None) -> list[str]:
    """``NAME[,NAME]`` or ``all``."""
    from gridtide.sim.baselines.catalogue import NAMES

    named = list(NAMES) if names == "all" else _names(names)
    for name in named:
        if name not in NAMES:
            known = f"there are: all, {', '.join(NAMES)}"
            raise WrongUsage(f"no model is called {name[:40]!r}", where="--baseline", remedy=known)
    return named


def _names(text: str | None) -> list[str]:
    """``NAME[,NAME]``, each once."""
    return [] if text is None else list(dict.fromkeys(name.strip() for name in text.split(",")))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WrongUsage(f"cannot be written: {error.strerror}", where=str(path)) from None


@contextmanager
def _bar(session: Session, title: str) -> Iterator[Callable[[float], None]]:
    """A bar with the remaining time on a terminal, a line per tenth elsewhere."""
    if session.output.as_json or not sys.stderr.isatty():
        told = [0.0]

        def note(part: float) -> None:
            if part >= told[-1] + _TOLD_EVERY:
                told.append(part)
                session.output.note(f"{title}: {100 * part:.0f} %")

        yield note
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=session.output.error_console, transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda part: bar.update(task, completed=part)
