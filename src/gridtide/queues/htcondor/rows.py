"""Groups of idle jobs made into rows of demand: what they need, where they fit, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridtide.model.demand import Demand, DemandRow, Offer
from gridtide.model.resources import Resources
from gridtide.queues.htcondor.asking import Json
from gridtide.queues.htcondor.counting import Group
from gridtide.queues.htcondor.fit import split

# Universes that need more than an execution point that is just there (HTCondor manual, "JobUniverse").
_PARALLEL: Final = "11"
# What condor_submit adds to every job's requirements: of no interest to a reader.
_USUAL: Final = (
    "TARGET.Arch ==", "TARGET.OpSys ==", "TARGET.Disk >=", "TARGET.Memory >=", "TARGET.Cpus >=",
    "TARGET.HasFileTransfer",
    "TARGET.FileSystemDomain ==", "versionGE(split(TARGET.CondorVersion)", "TARGET.GPUs >=", "countMatches(",
)  # fmt: skip
_LONGEST_LABEL: Final = 300


@dataclass(frozen=True, slots=True)
class Fit:
    """What one machine makes of jobs of one kind."""

    fits: str
    """``yes``, ``no`` or ``maybe``."""
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of jobs of one kind after HTCondor's evaluator has seen them."""

    need: Resources
    walltime: float | None
    offers: tuple[Fit, ...]
    """In the order of the offers."""
    others: Mapping[str, Fit] | None
    """By kind of nodes that are not ours; None when the kinds are not known well enough for these jobs."""


def rows(groups: Sequence[tuple[Group, Judged]], offers: Sequence[Offer]) -> Demand:
    """Jobs that look alike from outside are one row."""
    merged: dict[DemandRow, tuple[int, float]] = {}
    for group, judged in groups:
        row = _row(group, judged, offers)
        count, since = merged.get(row, (0, group.since))
        merged[row] = (count + group.count, min(since, group.since))
    return tuple(
        DemandRow(row.need, count, since, row.runs_on, row.label, row.walltime, row.node_kinds)
        for row, (count, since) in sorted(merged.items(), key=lambda item: (item[0].need, item[0].label, item[1]))
    )


def _row(group: Group, judged: Judged, offers: Sequence[Offer]) -> DemandRow:
    """With no count yet."""
    parallel = group.job.get("JobUniverse") == _PARALLEL
    runs_on = frozenset(
        offer.key
        for offer, fit in zip(offers, judged.offers, strict=True)
        if not parallel and fit.fits != "no" and offer.shape.resources.covers(judged.need)
    )
    why = "" if runs_on else _why(group, judged, offers, parallel)
    requirements = shown_requirements(group.job.get("Requirements", "true"))
    label = str(judged.need) + (f"; Requirements: {requirements}" if requirements else "") + why
    others = None
    if judged.others is not None:
        others = frozenset(kind for kind, fit in judged.others.items() if fit.fits == "yes" and not parallel)
    return DemandRow(judged.need, 0, 0.0, runs_on, _short(label), judged.walltime, others)


def shown_requirements(requirements: str) -> str:
    """What a user wrote, without what condor_submit adds."""
    own = [part for part in split(requirements) if part != "true" and not part.lstrip("( ").startswith(_USUAL)]
    return " && ".join(" ".join(part.split()) for part in own)


def _why(group: Group, judged: Judged, offers: Sequence[Offer], parallel: bool) -> str:
    if not offers:
        return ""
    if parallel:
        return "; no worker can run it: the parallel universe needs a dedicated scheduler"
    sizes = [offer.shape.resources for offer in offers]
    for name in ("cores", "memory", "disk", "gpus"):
        most = max(getattr(size, name) for size in sizes)
        if getattr(judged.need, name) > most:
            return f"; no shape has that: {name}, at most {most}{'' if name in ('cores', 'gpus') else ' MiB'}"
    best = min((fit for fit in judged.offers if fit.fits == "no"), key=lambda fit: len(fit.why), default=None)
    if best is None:
        return "; no shape has all of that together"
    return f"; no worker would have {' && '.join(best.why)}"


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 3] + "..."


def judged(told: Sequence[Json], kinds: Sequence[str] | None) -> Judged:
    """From the asking process: numbers first, then a verdict for each offer, then for each kind of other nodes."""
    first, verdicts = told[0], [_fit(each) for each in told[1:]]
    numbers = first["numbers"] if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(numbers, list):
        raise ValueError("verdicts without numbers")
    cores, memory, disk, gpus = (float(each) if isinstance(each, int | float) else None for each in numbers)
    walltime = first.get("walltime")
    offers = verdicts if kinds is None else verdicts[: len(verdicts) - len(kinds)]
    return Judged(
        Resources(max(1, _up(cores or 0.0)), _up(memory or 0.0), _up((disk or 0.0) / 1024), _up(gpus or 0.0)),
        float(walltime) if isinstance(walltime, int | float) else None,
        tuple(offers),
        None if kinds is None else dict(zip(kinds, verdicts[len(offers) :], strict=True)),
    )


def _fit(told: Json) -> Fit:
    if not isinstance(told, dict) or not isinstance(told["why"], list):
        raise ValueError("no verdict")
    return Fit(str(told["fits"]), tuple(str(each) for each in told["why"]))


def _up(amount: float) -> int:
    """Rounded up: half a core needs a core."""
    return max(0, int(-(-amount // 1)))
