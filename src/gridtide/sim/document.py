"""A run as JSON, and the digest that shows whether two runs are the same, bit for bit."""

from __future__ import annotations

import struct
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256

from gridtide.model.costs import DAY
from gridtide.sim.run import Run
from gridtide.sim.trace import Trace
from gridtide.sim.yardsticks import Score
from gridtide.store.ports import Json


def digest(run: Run) -> str:
    """SHA-256 over every job's and every machine's times."""
    jobs = run.jobs
    told = sha256()
    for column in (jobs.submitted, jobs.started, jobs.ended, jobs.cores):
        told.update(struct.pack(f"<{len(column)}d", *column))
    for machine in run.machines:
        told.update(f"{machine.worker} {machine.cloud} {machine.shape.name}\n".encode())
        joined = -1.0 if machine.joined is None else machine.joined
        told.update(struct.pack("<4d", machine.made, joined, machine.ended, machine.charged))
    return told.hexdigest()


def trace_document(trace: Trace) -> dict[str, Json]:
    """What was replayed, and what was left out."""
    return {
        "name": trace.name,
        "jobs": len(trace.jobs),
        "days": trace.span / 86_400.0,
        "core_hours": trace.work / 3600.0,
        "start": trace.epoch or None,
        "skipped": {why.name.lower(): number for why, number in trace.skipped.items()},
        "bad_lines": trace.bad_count,
        "first_bad_lines": [{"line": line.number, "why": line.why} for line in trace.bad],
        "notes": list(trace.notes),
    }


def run_document(run: Run, score: Score) -> dict[str, Json]:
    """One run with all its yardsticks."""
    told: dict[str, Json] = {
        "setting": run.setting.name,
        "baseline": run.setting.baseline,
        "seed": run.seed,
        **asdict(score),
    }
    told["cycles"] = run.cycles
    told["decisions"] = run.decisions
    told["joins_refused"] = run.refused
    told["days"] = run.length / 86_400.0
    told["events"] = run.events
    told["faults"] = {name.value: number for name, number in sorted(run.strikes.items())}
    told["violations"] = run.violation_count
    told["first_violations"] = [
        {"at": each.at, "rule": each.rule.value, "text": each.text, "number": each.number, "event": each.event}
        for each in run.violations
    ]
    told["spending"] = [
        {"cloud": cloud, "day": datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d"), "cost": cost}
        for cloud, days in sorted(run.days.items())
        for day, cost in sorted(days.items())
    ]
    told["digest"] = digest(run)
    return told
