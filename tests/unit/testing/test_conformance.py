"""The table of conformance: from a run of pytest, and in step with the code."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gridtide.clouds.fake import FakeCloud
from gridtide.sim.cloud import SimulatedCloud
from gridtide.testing.clouds import CloudConformance
from gridtide.testing.conformance import Column, cases, lines_of, load, main, markdown, save, with_table, words

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/reference/conformance.md"
RESULTS = ROOT / "docs/reference/conformance.json"

SUITE = """
from contextlib import asynccontextmanager
from random import Random

from gridtide.clouds.fake import FakeCloud
from gridtide.model.ids import CloudName
from gridtide.testing import CloudBench, CloudConformance
from gridtide.testing.clocks import ManualClock


class Forgetful(FakeCloud):
    async def terminate(self, machines):
        return {}


class TestForgetful(CloudConformance):
    title = "forgetful"
    driver = Forgetful

    @asynccontextmanager
    async def bench(self):
        clock = ManualClock()
        cloud = Forgetful(CloudName("x"), clock, Random(1))

        async def wait(seconds):
            clock.advance(seconds)

        yield CloudBench(cloud, lambda: cloud, None, None, wait=wait, many=3)


def test_of_another_kind():
    raise AssertionError("is not run")
"""


def suites() -> list[type[CloudConformance]]:
    """All that pytest would find in tests/."""
    modules = [
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path != Path(__file__) and "(CloudConformance)" in path.read_text(encoding="utf-8")
    ]
    found = [
        kind
        for module in modules
        for name, kind in vars(module).items()
        if name.startswith("Test") and inspect.isclass(kind) and issubclass(kind, CloudConformance)
    ]
    return [kind for kind in found if kind is not CloudConformance]


def test_the_page_has_the_drivers_of_the_code() -> None:
    titles = [suite.title for suite in suites()]
    assert len(titles) == len(set(titles))
    assert set(titles) == set(load(RESULTS)), "run: make conformance"


def test_the_page_has_the_cases_of_the_code_and_the_results_of_the_runs() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_table(page, markdown(load(RESULTS))) == page, "run: make conformance"
    for case in cases():
        assert f"| {words(case)} |" in page


def test_no_driver_has_failed() -> None:
    failed = [
        (title, case)
        for title, column in load(RESULTS).items()
        for case, result in column.results.items()
        if result == "failed"
    ]
    assert failed == []


def test_every_case_says_what_it_is_about() -> None:
    assert len(cases()) >= 30
    assert [name for name, about in cases().items() if not about.endswith(".")] == []
    assert words("test_empty_bulk_calls") == "empty bulk calls"


def test_lines_are_counted_once_and_without_the_protocol() -> None:
    def count(*names: str) -> int:
        return sum(len((ROOT / "src/gridtide" / name).read_text(encoding="utf-8").splitlines()) for name in names)

    assert lines_of(FakeCloud) == count("clouds/fake.py")
    assert lines_of(SimulatedCloud) == count("clouds/fake.py", "sim/cloud.py")


def test_a_run_is_noted_and_shown(tmp_path: Path) -> None:
    (tmp_path / "test_forgetful.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    results, page = tmp_path / "results.json", tmp_path / "page.md"
    save(results, {"other": Column("2026-01-02", 7, {"test_empty_bulk_calls": "passed"})})
    page.write_text("before\n<!-- conformance -->\nold\n<!-- end -->\nafter\n")
    command = [sys.executable, "-m", "gridtide.testing.conformance", "--results", str(results), "--page", str(page)]
    ran = subprocess.run(
        [*command, "--run", "test_forgetful.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 1, "something failed"
    columns = load(results)
    assert columns["other"] == Column("2026-01-02", 7, {"test_empty_bulk_calls": "passed"})
    noted = columns["forgetful"].results
    assert set(noted) == set(cases())
    assert noted["test_shapes_are_the_same_each_time"] == "passed"
    assert noted["test_terminate_of_what_never_was"] == "failed"
    assert noted["test_throttling_is_told_as_such"] == "this bench makes no faults"
    assert columns["forgetful"].lines == len(SUITE.splitlines()), "what it is derived from is of another package"
    table = ran.stdout
    assert "| terminate of what never was | **failed** | not run |" in table
    assert "| throttling is told as such | n/a (1) | not run |" in table
    assert "| empty bulk calls | ✓ | ✓ |" in table
    assert "1. this bench makes no faults" in table
    assert page.read_text() == f"before\n<!-- conformance -->\n{table}<!-- end -->\nafter\n"


def test_a_run_of_one_case_keeps_the_others_of_the_suite(tmp_path: Path) -> None:
    (tmp_path / "test_forgetful.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    results = tmp_path / "results.json"
    before = {"test_empty_bulk_calls": "failed", "test_that_is_there_no_more": "passed"}
    save(results, {"forgetful": Column("2026-01-02", 7, before)})
    one = "test_shapes_are_the_same_each_time"
    command = [sys.executable, "-m", "gridtide.testing.conformance", "--results", str(results), "--run"]
    subprocess.run(
        [*command, f"test_forgetful.py::TestForgetful::{one}"], cwd=tmp_path, capture_output=True, timeout=300
    )
    column = load(results)["forgetful"]
    assert column.results == {"test_empty_bulk_calls": "failed", one: "passed"}
    assert column.date != "2026-01-02"


def test_a_driver_can_be_known_without_being_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_forgetful.py").write_text(SUITE)
    results = tmp_path / "results.json"
    assert main(["--results", str(results), "--know", str(tmp_path / "test_forgetful.py")]) == 0
    assert load(results)["forgetful"].date == "never"
    assert "| empty bulk calls | not run |" in capfd.readouterr().out


def test_files_of_another_kind(tmp_path: Path) -> None:
    assert load(tmp_path / "nothing.json") == {}
    other = tmp_path / "other.json"
    documents: tuple[object, ...] = ([], {"a": 1}, {"a": {"date": "x"}})
    for document in documents:
        other.write_text(json.dumps(document))
        with pytest.raises(ValueError, match="holds no results of conformance"):
            load(other)
    with pytest.raises(ValueError, match="the page has no"):
        with_table("nothing", "table")
