"""Add up what the jobs of the demo found, look for the J/psi and the Z, check both, and draw the spectrum.

Checked: every event of every file was looked at exactly once; the histogram holds every pair; the J/psi lies within
0.02 GeV of 3.0969 GeV and the Z within 1 GeV of 91.19 GeV (the values of the Particle Data Group; real detectors are a
little off); and with ``--truth`` the number of pairs is the generator's own.

A peak's position is the mean of a Gaussian on a straight line, fitted by weighted least squares.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

HISTOGRAMS = ("spectrum", "jpsi", "z")
COUNTS = ("two_muons", "pairs", "below", "above")

Numbers = NDArray[np.float64]


class NotRight(Exception):
    """A result that does not pass its check; the text says which."""


@dataclass(frozen=True)
class Peak:
    """What is looked for, and where it must be found. GeV."""

    name: str
    window: str
    """Which fine histogram holds it."""
    low: float
    high: float
    widths: tuple[float, float]
    expected: float
    tolerance: float


PEAKS = (
    Peak("J/psi", "jpsi", 2.90, 3.30, (0.015, 0.08), 3.0969, 0.02),
    Peak("Z", "z", 82.0, 100.0, (1.0, 5.0), 91.19, 1.0),
)


@dataclass(frozen=True)
class Found:
    """A fitted peak: position with its error, width (GeV), and events above the background."""

    position: float
    error: float
    width: float
    events: float


@dataclass(frozen=True)
class Total:
    """The sum over all jobs."""

    histograms: dict[str, NDArray[np.int64]]
    edges: dict[str, Numbers]
    """GeV."""
    counts: dict[str, int]
    ranges: dict[str, list[tuple[int, int]]]
    """File -> ranges that were looked at."""
    entries: dict[str, int]


def add_up(paths: Iterable[Path]) -> Total:
    """NotRight for a file that is no result of ``analyse.py``, or of another version of it."""
    total = Total({}, {}, {}, {}, {})
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as part:
                _add(total, path, part)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise NotRight(f"{path} is no result of analyse.py: {error}") from None
    if not total.entries:
        raise NotRight("there are no results to add up")
    return total


def _add(total: Total, path: Path, part: Mapping[str, NDArray[Any]]) -> None:
    for name in HISTOGRAMS:
        counts, edges = part[name], part[f"{name}_edges"]
        if len(counts) + 1 != len(edges) or not np.array_equal(edges, total.edges.setdefault(name, edges)):
            raise NotRight(f"{path}: the histogram {name} has other bins than those before")
        total.histograms[name] = total.histograms.get(name, 0) + counts
    for name in COUNTS:
        total.counts[name] = total.counts.get(name, 0) + int(part[name])
    file = str(part["source"])
    if total.entries.setdefault(file, int(part["entries"])) != int(part["entries"]):
        raise NotRight(f"{path}: another file of the name {file}")
    total.ranges.setdefault(file, []).append((int(part["first"]), int(part["last"])))


def check_complete(total: Total) -> None:
    """Each event once: the ranges of a file follow one another from its first event to its last."""
    for file, ranges in total.ranges.items():
        reached = 0
        for first, last in sorted(ranges):
            if first != reached:
                word = "twice" if first < reached else "never"
                raise NotRight(f"{file}: events {min(first, reached)} to {max(first, reached) - 1} were read {word}")
            reached = last
        if reached != total.entries[file]:
            raise NotRight(f"{file}: events {reached} to {total.entries[file] - 1} were read never")
    seen = int(total.histograms["spectrum"].sum()) + total.counts["below"] + total.counts["above"]
    if seen != total.counts["pairs"]:
        raise NotRight(f"the histogram holds {seen} of {total.counts['pairs']} pairs")


def fit(peak: Peak, counts: NDArray[np.int64], edges: Numbers) -> Found:
    """For each position and width the best line and height follow linearly; the best of a grid is refined.

    NotRight when nothing sticks out.
    """
    centres = (edges[1:] + edges[:-1]) / 2
    inside = (centres > peak.low) & (centres < peak.high)
    x, y = centres[inside], counts[inside].astype(np.float64)
    weight = 1 / np.sqrt(np.maximum(y, 1.0))
    middle, reach = (peak.low + peak.high) / 2, (peak.high - peak.low) / 4
    width, spread = sum(peak.widths) / 2, (peak.widths[1] - peak.widths[0]) / 2
    height = 0.0
    for _ in range(6):
        positions = np.linspace(middle - reach, middle + reach, 15)
        widths = np.clip(np.linspace(width - spread, width + spread, 11), *peak.widths)
        tried = (_misfit(x, y, weight, position, one) for position in positions for one in widths)
        _, middle, width, height = min(tried, key=lambda item: item[0])
        reach, spread = reach / 4, spread / 3
    events = height * width * np.sqrt(2 * np.pi) / float(x[1] - x[0])
    if events < 10:
        raise NotRight(f"no {peak.name} is seen")
    return Found(middle, width / np.sqrt(events), width, events)


def _misfit(
    x: Numbers, y: Numbers, weight: Numbers, position: float, width: float
) -> tuple[float, float, float, float]:
    bell = np.exp(-((x - position) ** 2) / (2 * width**2))
    terms = np.stack((bell, np.ones_like(x), x - position), axis=1) * weight[:, None]
    solution = np.linalg.lstsq(terms, y * weight, rcond=None)[0]
    misfit = float(np.sum((terms @ solution - y * weight) ** 2))
    return misfit, float(position), float(width), float(solution[0])


def check_peak(peak: Peak, found: Found) -> None:
    """NotRight when it is not where it should be."""
    if abs(found.position - peak.expected) > peak.tolerance:
        raise NotRight(f"the {peak.name} is at {found.position:.4f} GeV, not at {peak.expected} +- {peak.tolerance}")


def check_truth(total: Total, path: Path) -> None:
    """The generator counted the pairs when it made them, without ever computing a mass."""
    truth = json.loads(path.read_text(encoding="utf-8"))
    if truth["entries"] != total.entries:
        raise NotRight(f"the results are of {total.entries}, {path.name} of {truth['entries']}")
    if truth["pairs"] != total.counts["pairs"]:
        raise NotRight(f"{total.counts['pairs']} pairs were found, {truth['pairs']} were made")


def draw(total: Total, found: Sequence[tuple[Peak, Found]], path: Path) -> None:
    """The spectrum as a PNG: events per GeV, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    edges = total.edges["spectrum"]
    density = total.histograms["spectrum"] / np.diff(edges)
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    axes.stairs(density, edges, fill=True, color="#2f6fab")
    axes.set(xscale="log", yscale="log", xlabel="invariant mass of the muon pair (GeV)", ylabel="pairs / GeV")
    axes.set(xlim=(edges[0], edges[-1]), ylim=(max(density[density > 0].min() / 2, 1e-2), density.max() * 6))
    labels = {"J/psi": r"$J/\psi$", "Z": "Z"}
    for peak, one in found:
        height = density[np.searchsorted(edges, one.position) - 1]
        axes.annotate(
            f"{labels[peak.name]}\n{one.position:.4g} GeV", (one.position, height), (0, 14), ha="center",
            textcoords="offset points",
        )  # fmt: skip
    axes.set_title(f"{total.counts['pairs']:,} opposite-sign pairs in {sum(total.entries.values()):,} events")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def merge(paths: Iterable[Path], *, truth: Path | None, plot: Path | None) -> dict[str, object]:
    """All of it; returns the summary. NotRight when a check fails; the plot is drawn before."""
    total = add_up(paths)
    check_complete(total)
    found = [(peak, fit(peak, total.histograms[peak.window], total.edges[peak.window])) for peak in PEAKS]
    if plot is not None:
        draw(total, found, plot)
    for peak, one in found:
        check_peak(peak, one)
    if truth is not None:
        check_truth(total, truth)
    peaks = {
        peak.name: {"position": round(one.position, 4), "error": round(one.error, 4), "width": round(one.width, 4),
                    "events": round(one.events), "expected": peak.expected, "tolerance": peak.tolerance}
        for peak, one in found
    }  # fmt: skip
    return {**total.counts, "events": sum(total.entries.values()), "files": len(total.entries), "peaks": peaks}


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="the .npz files of the jobs")
    parser.add_argument("--truth", type=Path, help="truth.json of make_events.py, for generated events")
    parser.add_argument("--plot", type=Path, help="the PNG to draw")
    given = parser.parse_args()
    print(f"adding up {len(given.results)} results", file=sys.stderr)
    try:
        summary = merge(given.results, truth=given.truth, plot=given.plot)
    except (NotRight, OSError) as error:
        print(f"merge: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
