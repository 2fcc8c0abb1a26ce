"""Mutation score of planning/ and model/: how many small changes of the code make a test fail.

Mutations are cosmic-ray's. Each is made in a copy of the tree, never here, and the rooms' unit tests run against it.
All of them take hours, so a sample is drawn with a fixed seed; ``--sample 0`` takes all. Left out are changes of ``|``,
which these rooms use in types only: nothing evaluates them.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from parso.tree import NodeOrLeaf as Node
from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("planning", "model")
FAST = ["tests/unit/planning", "tests/unit/model", "--ignore=tests/unit/planning/test_stateful.py"]
SLOW = ["tests/unit/planning/test_stateful.py"]
# A mutant that makes a loop endless is as dead as one that fails; the tests themselves take a tenth of this.
PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Mutant:
    """One small change of one file."""

    file: str
    operator: str
    occurrence: int

    def code(self) -> str:
        """The file with the change in it."""
        source = (ROOT / self.file).read_bytes()
        changed = mutate_code(source, plugins.get_operator(self.operator)(), self.occurrence)
        if changed is None:
            raise ValueError(f"{self.file} has no {self.operator} #{self.occurrence}")
        return changed if isinstance(changed, str) else changed.decode()


def mutants() -> list[Mutant]:
    """All that cosmic-ray can make of the rooms, in a fixed order."""
    found: list[Mutant] = []
    for room in ROOMS:
        for path in sorted((ROOT / "src" / "gridtide" / room).rglob("*.py")):
            nodes = list(ast_nodes(get_ast(path.read_text(encoding="utf-8"))))
            for name in sorted(plugins.operator_names()):
                if "BitOr" not in name:
                    found += _of(str(path.relative_to(ROOT)), nodes, name)
    return found


def _of(file: str, nodes: Sequence[Node], name: str) -> list[Mutant]:
    if plugins.get_operator(name).arguments():
        return []  # operators that must be configured have nothing to do here
    operator = plugins.get_operator(name)()
    places = sum(len(list(operator.mutation_positions(node))) for node in nodes)
    return [Mutant(file, name, occurrence) for occurrence in range(places)]


def survives(mutant: Mutant, tree: Path) -> bool:
    """Whether all tests pass with it. ``tree`` is a copy of the project that nobody else uses meanwhile."""
    target = tree / mutant.file
    original = target.read_text(encoding="utf-8")
    target.write_text(mutant.code(), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "GRIDTIDE_STEPS": "2000",
    }
    try:
        return all(_passes(tests, tree, environment) for tests in (*_own(mutant.file, tree), FAST, SLOW))
    finally:
        target.write_text(original, encoding="utf-8")


def _own(file: str, tree: Path) -> list[list[str]]:
    """The tests that carry the file's name: most mutants die of them, and they take a second, not half a minute."""
    found = sorted((tree / "tests" / "unit").rglob(f"test_{Path(file).stem}.py"))
    return [[str(path.relative_to(tree)) for path in found]] if found else []


def _passes(tests: list[str], tree: Path, environment: dict[str, str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def main() -> int:
    """Exit code 1 when the score is below 85 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=200, help="so many mutants, drawn at random; 0: all")
    parser.add_argument("--file", default="", metavar="TEXT", help="only of files with this text in their path")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="mutants tried at the same time")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    given = parser.parse_args()
    chosen = [mutant for mutant in mutants() if given.file in mutant.file]
    total = len(chosen)
    if not total:
        parser.error(f"nothing can be changed in a file with {given.file!r} in its path")
    if given.sample and given.sample < total:
        chosen = random.Random(given.seed).sample(chosen, given.sample)
    workers = given.workers
    trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="gridtide-mutants-") as directory, ThreadPoolExecutor(workers) as pool:
        for number in range(workers):
            tree = Path(directory) / str(number)
            for part in ("src", "tests"):
                shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", tree)
            trees.put(tree)
        if not _passes(FAST, trees_peek := trees.get(), {**os.environ, "PYTHONPATH": str(trees_peek / "src")}):
            print("the tests fail without any mutation", file=sys.stderr)
            return 2
        trees.put(trees_peek)

        def judge(mutant: Mutant) -> bool:
            tree = trees.get()
            try:
                return survives(mutant, tree)
            finally:
                trees.put(tree)

        console = Console(stderr=True)
        outcomes = list(track(pool.map(judge, chosen), total=len(chosen), description="mutants", console=console))
    survivors = [mutant for mutant, survived in zip(chosen, outcomes, strict=True) if survived]
    killed = len(chosen) - len(survivors)
    score = 100 * killed / len(chosen)
    document = {
        "score": round(score, 1),
        "killed": killed,
        "mutants": len(chosen),
        "of": total,
        "survivors": [f"{each.file} {each.operator} #{each.occurrence}" for each in survivors],
    }
    if given.json:
        print(json.dumps(document))
    else:
        for line in document["survivors"] if isinstance(document["survivors"], list) else []:
            print(f"survived: {line}")
        print(f"mutation score {score:.1f} %: {killed} of {len(chosen)} mutants killed (there are {total})")
    return 0 if score >= 85.0 else 1


if __name__ == "__main__":
    sys.exit(main())
