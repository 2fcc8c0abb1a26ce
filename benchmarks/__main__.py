"""Run all benchmarks, print the table, write ``benchmarks/latest.json``.

``--quick`` runs small versions, for correctness and not for time; ``NAME ...`` runs some only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    boot,
    budget,
    chaos,
    checks,
    cycle,
    faults_ec2,
    hang,
    htcondor_demand,
    jobs,
    kill,
    openstack,
    pilot_queue,
    planner,
    pools,
    reproduction,
    rollout,
    scale,
    slurm,
    tide,
)
from benchmarks.figures import Figure

Benchmark = Callable[..., Iterable[Figure]]

ALL: dict[str, Benchmark] = {
    "thousand": jobs.thousand,
    "waiting": jobs.waiting,
    "heartbeats": jobs.heartbeats,
    "scale": scale.up_and_down,
    "scale-heartbeats": scale.heartbeats,
    "pilot-queue": pilot_queue.figures,
    "kill": kill.figures,
    "chaos": chaos.figures,
    "chaos-hour": chaos.hour,
    "rollout": rollout.figures,
    "planner": planner.figures,
    "cycle": cycle.figures,
    "budget": budget.figures,
    "tide": tide.figures,
    "reproduction": reproduction.figures,
    "htcondor-demand": htcondor_demand.figures,
    "boot": boot.fresh,
    "twelve": boot.twelve,
    "image-size": boot.size,
    "ec2-faults": faults_ec2.figures,
    "hang": hang.figures,
    "openstack": openstack.figures,
    "thesis-jobs": pools.thousand,
    "thesis-recreate": pools.recreate,
    "thesis-scaling": pools.scaling,
    "thesis-manual": pools.manual,
    "thesis-long-job": pools.survivor,
    "htcondor-start": pools.start,
    "htcondor-many": pools.many,
    "slurm-start": slurm.start,
    "properties": checks.properties,
    "coverage": checks.coverage,
    "mutation": checks.mutation,
}
SLOW_ONLY = {
    *("properties", "coverage", "mutation", "ec2-faults", "hang", "openstack", "htcondor-demand", "slurm-start"),
    *("tide", "chaos-hour"),
    *("thesis-jobs", "thesis-recreate", "thesis-scaling", "thesis-manual", "thesis-long-job", "htcondor-start"),
}
"""Left out when no name is given to the quick mode: the test suite runs the same code in small, and has 25 minutes."""


def main() -> int:
    """Exit code 1 when a figure misses its target (in small: when a count is wrong)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small versions")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(ALL)}")
    given = parser.parse_args()
    unknown = set(given.names) - set(ALL)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    console = Console()
    figures: list[Figure] = []
    for name, benchmark in ALL.items():
        if (given.names and name not in given.names) or (given.quick and not given.names and name in SLOW_ONLY):
            continue
        console.print(f"... {name}", style="dim")
        with tempfile.TemporaryDirectory(prefix=f"gridtide-{name}-", ignore_cleanup_errors=True) as directory:
            figures += benchmark(Path(directory) / "site", quick=given.quick)
    console.print(_table(figures))
    if not given.quick:
        _write(Path(__file__).with_name("latest.json"), figures)
    # In small, times mean nothing: only counts must be right.
    judged = [figure for figure in figures if not given.quick or figure.compare == "=="]
    return 0 if all(figure.ok for figure in judged) else 1


def _write(path: Path, figures: list[Figure]) -> None:
    """Keep the entries of benchmarks that were not run this time."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    new = [figure.document() for figure in figures]
    names = {figure.name for figure in figures}
    path.write_text(
        json.dumps([*(each for each in kept if each["name"] not in names), *new], indent=1) + "\n", encoding="utf-8"
    )


def _table(figures: list[Figure]) -> Table:
    table = Table(box=None, header_style="bold")
    for heading in ("figure", "value", "target", "", "note"):
        table.add_column(heading, justify="right" if heading == "value" else "left")
    for figure in figures:
        mark = "[green]ok[/green]" if figure.ok else "[red]missed[/red]"
        table.add_row(figure.name, f"{figure.value:,.4g} {figure.unit}", figure.target, mark, figure.note)
    return table


if __name__ == "__main__":
    sys.exit(main())
