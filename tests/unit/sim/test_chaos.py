"""The chaos benchmark in small: it covers every policy, and tells what went wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.chaos import EXAMPLES, PER_RUN, RUNS, Outcome, one, outcome, setting_of, told

from gridtide.sim.document import digest
from gridtide.sim.faults import FaultName
from gridtide.sim.watch import Rule
from gridtide.site.policies import POLICIES

ROOT = Path(__file__).parents[3]


def test_every_policy_has_its_part_of_a_million_jobs() -> None:
    assert set(EXAMPLES) == set(RUNS) == set(POLICIES.names())
    assert PER_RUN * sum(RUNS.values()) == 1_000_000
    assert {fault.name for fault in setting_of("queue").faults} == set(FaultName)


@pytest.mark.parametrize("policy", EXAMPLES)
def test_a_little_of_each(policy: str) -> None:
    shown = outcome(policy, 5, 150)
    assert (shown.first, shown.broken) == ({}, Counter())
    assert (shown.completions, shown.never_started) == (150, 0)
    assert shown.strikes > 0


def test_the_same_seed_gives_the_same_bits_under_all_faults_whatever_the_order_of_sets() -> None:
    code = (
        "from benchmarks.chaos import one; from gridtide.sim.document import digest;print(digest(one('queue', 3, 150)))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {digest(one("queue", 3, 150))}


def test_what_went_wrong_is_told() -> None:
    fine = Outcome("queue", 0, 10, 0, 5, 100, Counter(), {})
    broken = Counter({Rule.JOB_KILLED: 2, Rule.LEFT: 1, Rule.MAXIMUM: 4, Rule.QUOTA: 3})
    first = {Rule.MAXIMUM: "41 of at most 40", Rule.JOB_KILLED: "a running job was ended by us: 17"}
    figures = list(told([fine, replace(fine, seed=1, never_started=1, broken=broken, first=first)]))
    assert [(figure.value, figure.ok) for figure in figures] == [
        (20, False),
        (2, False),
        (1, False),
        (0, True),
        (4, False),
        (3, False),
    ]
    assert figures[1].note == "queue, seed 1: a running job was ended by us: 17"
    assert figures[4].note == "queue, seed 1: 41 of at most 40"
    assert all(figure.ok for figure in told([fine]))


@pytest.mark.parametrize("rule", Rule)
def test_no_breach_of_any_rule_is_left_out(rule: Rule) -> None:
    bad = Outcome("queue", 0, 10, 0, 5, 100, Counter({rule: 1}), {rule: "what happened"})
    missed = [figure for figure in told([bad]) if not figure.ok]
    assert [(figure.value, figure.note) for figure in missed] == [(1, "queue, seed 0: what happened")]
