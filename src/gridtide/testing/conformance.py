"""Which cloud driver passes which case of the conformance suite: a table of real runs.

    python -m gridtide.testing.conformance --run tests/test_my_cloud.py

runs these tests with pytest, keeps what became of each case in a file of results (those of drivers that were not run
stay, each with its date), prints the table, and writes it into a page if one is named. Without ``--run`` it shows the
results of the last runs. ``--know`` gives drivers a column whose tests take too long to be run now. This module is also
the pytest plug-in that notes the results.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gridtide.testing.clouds import CloudConformance

if TYPE_CHECKING:
    import pytest

RESULTS: Final = Path("conformance.json")
_PROPERTY: Final = "gridtide.conformance"
_BEGIN: Final = "<!-- conformance -->\n"
_END: Final = "<!-- end -->"
_NEVER: Final = "never"
"""The date of a driver that was met and not run yet."""
PASSED: Final = "passed"
FAILED: Final = "failed"


def cases() -> dict[str, str]:
    """Of the suite, in its order: name, and what each is about."""
    found = [
        (name, case)
        for kind in reversed(CloudConformance.__mro__)
        for name, case in vars(kind).items()
        if name.startswith("test_")
    ]
    return {name: (inspect.getdoc(case) or "").partition("\n")[0] for name, case in found}


def words(case: str) -> str:
    """A case's name as people read it."""
    return case.removeprefix("test_").replace("_", " ")


@dataclass(frozen=True, slots=True)
class Column:
    """One driver's last run."""

    date: str
    lines: int
    """Of its module, of those beside it whose names begin with its, and of what it is derived from."""
    results: Mapping[str, str] = field(default_factory=dict)
    """By case: ``passed``, ``failed``, or why the case has no meaning there."""


def lines_of(driver: type) -> int:
    """How large a driver is."""
    files: set[Path] = set()
    package = driver.__module__.partition(".")[0]
    for kind in driver.__mro__:
        if kind.__module__.partition(".")[0] == package and kind.__module__ != "gridtide.clouds.protocol":
            file = Path(inspect.getfile(kind))
            files |= {file, *file.parent.glob(f"{file.stem}_*.py")}
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


# --- results


def load(path: Path) -> dict[str, Column]:
    """Of the last runs, by the driver's title; empty when there was none. ValueError for another kind of file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    try:
        return {title: Column(each["date"], each["lines"], each["results"]) for title, each in document.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no results of conformance: {error!r}") from None


def save(path: Path, columns: Mapping[str, Column]) -> None:
    """As JSON."""
    document = {title: asdict(columns[title]) for title in sorted(columns)}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# --- the plug-in of pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--conformance FILE``"""
    parser.addoption("--conformance", metavar="FILE", help="keep what became of the conformance cases in this file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the suite's cases alone. Each test's report, which may come from another process, tells whose it is."""
    if config.getoption("--conformance") is None:
        return
    notes = config.pluginmanager.get_plugin(_PROPERTY)
    known, others = cases(), []
    for item in list(items):
        suite = getattr(item, "cls", None)
        if isinstance(suite, type) and issubclass(suite, CloudConformance) and item.name in known:
            title, lines = suite.title or suite.__name__, lines_of(suite.driver)
            item.user_properties.append((_PROPERTY, [title, lines, item.name]))
            if isinstance(notes, _Notes):
                notes.lines[title] = lines
        else:
            items.remove(item)
            others.append(item)
    config.hook.pytest_deselected(items=others)


def pytest_configure(config: pytest.Config) -> None:
    """Note results where they come together: not in the helpers of a parallel run."""
    path = config.getoption("--conformance")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Notes(Path(path)), _PROPERTY)


class _Notes:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.lines: dict[str, int] = {}
        """Of every driver that was met."""
        self._found: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A case is passed when it, its making ready and its cleaning up all are."""
        for name, value in report.user_properties:
            if name == _PROPERTY and isinstance(value, list | tuple):
                title, lines, case = value
                self.lines[title] = lines
                results = self._found.setdefault(title, {})
                if results.get(case, PASSED) == PASSED:
                    results[case] = _result(report)

    def pytest_sessionfinish(self) -> None:
        """Drivers that were not run keep what they had; of one that was run in part, the suite's other cases do too."""
        columns, known = load(self._path), cases()
        for title, lines in self.lines.items():
            before = columns.get(title, Column(_NEVER, lines))
            ran = self._found.get(title)
            kept = {case: result for case, result in before.results.items() if case in known}
            columns[title] = before if ran is None else Column(_today(), lines, {**kept, **ran})
        save(self._path, columns)


def _result(report: pytest.TestReport) -> str:
    if report.passed:
        return PASSED
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return FAILED


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


# --- the table


def markdown(columns: Mapping[str, Column]) -> str:
    """One row per case, one column per driver, and below why a case has no meaning on a driver."""
    reasons: dict[str, int] = {}
    titles = list(columns)
    rows = [["case", *titles], ["---", *("---" for _ in titles)]]
    rows.append(["*lines*", *(str(columns[title].lines) for title in titles)])
    rows.append(["*last run*", *(columns[title].date for title in titles)])
    rows += [[words(case), *(_cell(columns[title].results.get(case), reasons) for title in titles)] for case in cases()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = "\n".join(f"{number}. {reason}" for reason, number in reasons.items())
    return f"{table}\n\n{notes}\n" if notes else f"{table}\n"


def _cell(result: str | None, reasons: dict[str, int]) -> str:
    match result:
        case None:
            return "not run"
        case "passed":
            return "✓"
        case "failed":
            return "**failed**"
        case reason:
            return f"n/a ({reasons.setdefault(reason, len(reasons) + 1)})"


def with_table(page: str, table: str) -> str:
    """The page with this table between its marks. ValueError when it has none."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has no {_BEGIN.strip()} and {_END}")
    return f"{before}{begin}{table}{end}{after}"


def main(arguments: Iterable[str]) -> int:
    """See the module. 0 when no case failed in the last runs."""
    parser = argparse.ArgumentParser(prog="python -m gridtide.testing.conformance", description="Conformance of clouds")
    parser.add_argument("--run", nargs="+", metavar="TESTS", help="files or directories that pytest shall run first")
    parser.add_argument("--know", nargs="+", metavar="TESTS", help="the same, whose drivers are named but not run")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--page", type=Path, metavar="FILE", help="a page to write the table into, between its marks")
    given = parser.parse_args(list(arguments))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "gridtide.testing.conformance", "--conformance"]
    for tests, options in ((given.know, ["--collect-only"]), (given.run, [])):
        if tests:
            # What failed is in the table.
            subprocess.run([*command, str(given.results), *options, *tests], check=False, stdout=sys.stderr)  # noqa: S603
    columns = load(given.results)
    table = markdown(columns)
    sys.stdout.write(table)
    if given.page is not None:
        page = given.page.read_text(encoding="utf-8")
        given.page.write_text(with_table(page, table), encoding="utf-8")
    return int(any(result == FAILED for column in columns.values() for result in column.results.values()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
