"""The demo's own steps, without a site."""

from __future__ import annotations

import io
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from gridtide.pilot.jdl import parse
from gridtide.site.loader import load


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.integers(1, 10_000_000), parts=st.integers(-1, 300))
def test_ranges_are_all_events_once(run_module: ModuleType, events: int, parts: int) -> None:
    found = [tuple(map(int, text.split(":"))) for text in run_module.ranges(events, parts)]
    assert found[0][0] == 0
    assert found[-1][1] == events
    assert all(one[1] == two[0] for one, two in pairwise(found))
    sizes = [last - first for first, last in found]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


def test_the_site_is_the_one_of_init_with_other_figures(run_module: ModuleType, tmp_path: Path) -> None:
    site = load(run_module.set_up(tmp_path, 3))
    assert site.service.listen.port == 0
    (group,) = site.groups.values()
    assert group.maximum == 3
    assert group.policy.policy().idle_for == 3.0  # type: ignore[union-attr]


def test_an_unexpected_site_file_is_told(
    run_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site.toml").write_text("[site]\n")
    monkeypatch.setattr(run_module, "gridtide", lambda *_: {})
    with pytest.raises(run_module.DemoFailed, match="not as expected"):
        run_module.set_up(tmp_path, 3)


def test_the_description_is_right_whatever_the_file_is_called(run_module: ModuleType, tmp_path: Path) -> None:
    data = tmp_path / 'mü "on" $(x).root'
    data.write_bytes(b"x")
    path = run_module.describe(tmp_path / "work", data, ["0:5", "5:9"])
    description = parse(path.read_text(encoding="utf-8"))
    assert description.size == 2
    assert description.executable == sys.executable
    assert all((path.parent / name).is_file() for name in description.inputs)
    assert "analyse.py" in description.inputs
    assert description.outputs == ("result.npz",)


@pytest.mark.parametrize(
    ("document", "machines"),
    [
        ({"clouds": [{"machines": {"ours": 2}}, {"machines": {"ours": 1}}]}, 3),
        ({"clouds": [{"machines": {"ours": 0}}, {"machines": None}]}, None),
        ({"clouds": []}, None),
        (None, None),
    ],
)
def test_a_cloud_that_was_not_read_is_not_empty(run_module: ModuleType, document: object, machines: int | None) -> None:
    assert run_module.machines_in(document) == machines


def test_a_program_that_fails_is_told_with_its_last_line(run_module: ModuleType) -> None:
    with pytest.raises(run_module.DemoFailed, match="ended with 3: second"):
        run_module.call(sys.executable, "-c", "import sys; print('first\\nsecond', file=sys.stderr); sys.exit(3)")


def test_a_sparkline_keeps_its_peaks(run_module: ModuleType) -> None:
    sparkline = sys.modules["display"].sparkline
    assert sparkline([0, 1, 2, 4], 4, 10) == " ▂▄█"
    assert sparkline([0] * 50 + [4] + [0] * 49, 4, 10) == "     █    "
    assert sparkline([1], 100, 10) == "▁"
    assert sparkline([], 4, 10) == ""
    assert len(sparkline(list(range(1000)), 999, 40)) == 40


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_shows_jobs_workers_and_events(run_module: ModuleType, terminal: bool) -> None:
    display = sys.modules["display"]
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=100, color_system=None)
    seen = display.Look({"waiting": 3, "running": 1, "done": 4}, {"booting": 1, "joined": 2}, ["w-1: joined"], 3)
    assert (seen.total, seen.ended) == (8, 4)
    with display.Display(4, console=console) as shown:
        shown.show(seen)
        shown.show(seen)
        shown.note("a step")
    text = written.getvalue()
    assert "a step" in text
    if terminal:
        assert "4 of 8 ended" in text
        assert "w-1: joined" in text
    else:
        assert text.count("jobs: 3 waiting, 1 running, 4 done; workers: 1 booting, 2 joined") == 1
    assert shown.timeline() == "▄▄"
