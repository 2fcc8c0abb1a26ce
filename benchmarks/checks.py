"""Figures about the tests themselves: property steps, coverage, mutation score."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures import Figure

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("planning", "control", "model")


def coverage(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Branch coverage of the rooms that decide."""
    directory.mkdir(parents=True, exist_ok=True)
    report = directory / "coverage.json"
    rooms = [f"--cov=gridtide.{room}" for room in ROOMS]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "auto",
            "tests/unit",
            "tests/scenarios",
            *rooms,
            "--cov-branch",
            f"--cov-report=json:{report}",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    files = json.loads(report.read_text())["files"]
    for room in ROOMS:
        mine = [each["summary"] for name, each in files.items() if f"/{room}/" in name]
        covered = sum(each["covered_lines"] + each["covered_branches"] for each in mine)
        all_of_it = sum(each["num_statements"] + each["num_branches"] for each in mine)
        yield Figure(f"branch coverage of {room}/", 100 * covered / all_of_it, "%", ">=", 95.0)


def properties(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """The stateful test of planner and life cycle, with faults."""
    steps = 1_000 if quick else 100_000
    environment = {**os.environ, "GRIDTIDE_STEPS": str(steps)}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "tests/unit/planning/test_stateful.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    taken = sum(int(number) for number in re.findall(r"stateful steps: (\d+)", ended.stdout))
    yield Figure(
        "stateful property test: steps without a violation", taken if ended.returncode == 0 else 0, "steps", ">=", steps
    )


def mutation(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """See tools/mutate.py."""
    ended = subprocess.run(
        [sys.executable, "tools/mutate.py", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    score = json.loads(ended.stdout.strip().splitlines()[-1])
    yield Figure(
        "mutation score of planning/ and model/",
        score["score"],
        "%",
        ">=",
        85.0,
        f"{score['killed']} of {score['mutants']}",
    )
