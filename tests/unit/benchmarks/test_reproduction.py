"""docs/explanation/sources.md has what the code computes."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import reproduction
from benchmarks.reproduction import DAY, PAGE, TABLE, TABLES, block, clock, figures, gain, pull_time, push_time


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_what_is_computed(name: str) -> None:
    found = block(name).search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert found[2] == TABLES[name](), "run: python -m benchmarks.reproduction"


def test_pulling_does_the_work_in_the_time_that_it_takes() -> None:
    p0, p1 = reproduction.RAMP_UP
    for row in TABLE:
        end, steps = pull_time(row.days * DAY), 20_000
        width = end / steps
        done = sum(p0 * t / (1 + p1 * t) for t in (width * (step + 0.5) for step in range(steps))) * width
        assert done == pytest.approx(row.days * DAY, rel=1e-6)


def test_pushing_takes_the_time_of_the_best_number_of_jobs() -> None:
    p0, p1 = reproduction.RAMP_UP
    for row in TABLE:
        serial = row.days * DAY
        best = min(jobs / (p0 - p1 * jobs) + serial / jobs for jobs in range(1, int(p0 / p1)))
        assert push_time(serial) == pytest.approx(best, rel=1e-3)
        assert push_time(serial) <= best


def test_what_the_page_says_of_the_differences() -> None:
    short = [row for row in TABLE if row.days <= 2]
    assert all(clock(push_time(row.days * DAY)) == row.push for row in short)
    assert clock(push_time(10 * DAY)) == "3:09"
    higher = (reproduction.RAMP_UP[0], 0.00273)
    assert [clock(push_time(days * DAY, higher)) for days in (5, 10)] == ["1:50", "3:17"]
    assert clock(push_time(2 * DAY, higher)) != "0:52"
    assert all(0.19 < gain(row.days * DAY) < 0.29 for row in TABLE)


def test_every_figure_meets_its_target(tmp_path: Path) -> None:
    assert [each.name for each in figures(tmp_path, quick=True) if not each.ok] == []
