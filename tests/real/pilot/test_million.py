"""A hundredth of the benchmark, for correctness: the full one is ``make bench``."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pilot_queue import figures


def test_the_benchmark_runs_and_its_counters_agree(tmp_path: Path) -> None:
    found = {figure.name: figure.value for figure in figures(tmp_path, quick=True)}
    assert len(found) == 12
    assert all(value >= 0 for value in found.values())
