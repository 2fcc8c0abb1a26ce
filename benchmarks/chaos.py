"""Jobs by the hundred thousand while all faults strike, for every policy: nothing killed, left over or doubled.

Each run is a workload of its own seed on two clouds that are often full, under all faults at random (``gridtide sim
--chaos``). ``python -m benchmarks.chaos POLICY SEED [JOBS]`` repeats one of them; ``--for SECONDS`` goes on from there,
seed after seed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.figures import Figure
from gridtide.model.costs import Choose
from gridtide.model.ids import CloudName, GroupName, ShapeName, Zone
from gridtide.model.machines import Quota
from gridtide.model.rules import CloudRules, Policy
from gridtide.sim.cloud import BootTime, CloudModel
from gridtide.sim.faults import chaos
from gridtide.sim.reading import read_trace
from gridtide.sim.run import Run, simulate
from gridtide.sim.setting import STEP, Setting, fitted, standard_setting
from gridtide.sim.watch import Rule
from gridtide.site.policies import POLICIES

MAXIMUM: Final = 40
"""Machines, often reached: a rule that nothing tests is kept by chance."""
SETTLE: Final = 120.0
"""Seconds for which the listings of the clouds may lag; their lag among the faults is 60 s."""
SHORTER: Final = 16.0
"""Jobs take so much less time than on a large site: what is tried is how workers come and go, not how they work."""
RATE: Final = 4.0
"""Faults come so much more often than in ``--chaos 1``: about two an hour of each kind that is rare, or one every few
minutes of all kinds."""
PER_RUN: Final = 20_000
"""Jobs of one run: three days of submissions."""

EXAMPLES: Final[Mapping[str, Mapping[str, object]]] = {
    "queue": {},
    "elastiq": {},
    "per_job": {},
    "fixed": {"count": 25},
    "load": {},
    "schedule": {
        "warm": 2,
        "windows": [
            {"begins": "0 8 * * *", "lasts": "4 h", "minimum": 10},
            {"begins": "0 20 * * *", "lasts": "6 h", "maximum": 15},
        ],
    },
    "tide": {},
}
"""What each policy is given in the site file. A test keeps them complete."""

RUNS: Final[Mapping[str, int]] = {
    "queue": 14,
    "elastiq": 10,
    "per_job": 6,
    "fixed": 5,
    "load": 4,
    "schedule": 4,
    "tide": 7,
}
"""Of :data:`PER_RUN` jobs each: 1 000 000 in all."""

DRAWN: Final = 1000
"""From this seed on the site is drawn by lot too: an hour on one and the same site tries the same things again."""
PER_SITE: Final = 4_000
"""Jobs of one run on such a site: some are too small for their work, and take long."""
HOUR: Final = 3600.0
"""Seconds of processor time of each policy in ``chaos-hour``."""

_TOLD: Final = (
    ("jobs killed", "jobs", (Rule.JOB_KILLED,)),
    ("machines left over", "machines", (Rule.ORPHAN, Rule.LEFT)),
    ("workers doubled", "workers", (Rule.DOUBLE,)),
    ("machines above a group's maximum", "times", (Rule.MAXIMUM,)),
)
"""Name, unit and rules of each figure. No breach is left out, whatever caused it."""
_OTHERS: Final = tuple(rule for rule in Rule if not any(rule in rules for _, _, rules in _TOLD))
_GRID, _PRIVATE, _BURST = GroupName("grid"), CloudName("private"), CloudName("burst")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run showed."""

    policy: str
    seed: int
    completions: int
    never_started: int
    strikes: int
    events: int
    broken: Counter[Rule]
    first: Mapping[Rule, str]
    """The first breach of each rule, as far as it was told."""


def policy_of(name: str) -> Policy:
    """As a site file would give it."""
    return POLICIES.model(name).model_validate({"type": name, **EXAMPLES[name]}).policy()


def setting_of(policy: str, seed: int = 0) -> Setting:
    """Two clouds, one of them with a small quota, one with zones; how small and how slow is drawn from :data:`DRAWN`
    on."""
    site = _Site() if seed < DRAWN else _Site.drawn(Random(f"{seed}/{policy}/site"))
    base = standard_setting(f"chaos, {policy}")
    (model,) = base.clouds.values()
    largest = 1 if policy == "per_job" else site.largest
    shapes = tuple(shape for shape in model.shapes if shape.resources.cores <= largest)
    dear = tuple(replace(shape, name=ShapeName(f"burst-{shape.name}"), price=2 * shape.price) for shape in shapes)
    quotas = {_PRIVATE: Quota(cores=site.cores), _BURST: Quota(machines=site.machines)}
    clouds = {
        _PRIVATE: CloudModel(shapes, boot=site.boot, quota=quotas[_PRIVATE], list_lag=site.lag, end_time=site.end_time),
        _BURST: CloudModel(dear, boot=BootTime(90.0, 0.4), zones=(Zone("a"), Zone("b")), quota=quotas[_BURST]),
    }
    group = replace(
        base.rules.groups[_GRID],
        clouds=(_PRIVATE, _BURST),
        minimum=site.minimum,
        maximum=site.maximum,
        lease=site.lease,
        join_deadline=site.join_deadline,
        choose=site.choose,
        policy=policy_of(policy),
    )
    rules = replace(
        base.rules,
        groups={_GRID: group},
        clouds={name: CloudRules(name, quotas[name], SETTLE) for name in clouds},
    )
    return replace(base, rules=rules, clouds=clouds, step=site.step, faults=chaos(RATE * site.rate))


@dataclass(frozen=True, slots=True)
class _Site:
    """What differs between sites."""

    maximum: int = MAXIMUM
    minimum: int = 1
    cores: int = 100
    machines: int = 30
    largest: int = 2
    lease: float = 600.0
    join_deadline: float | None = None
    choose: Choose = Choose.ORDER
    boot: BootTime = field(default_factory=BootTime)
    lag: float = 0.0
    end_time: float = 0.0
    step: float = STEP
    rate: float = 1.0

    @classmethod
    def drawn(cls, lot: Random) -> _Site:
        """By lot; the lag of the listing and that of the fault are less than :data:`SETTLE` together."""
        maximum = lot.choice((10, 25, MAXIMUM, 80))
        return cls(
            maximum=maximum,
            minimum=lot.choice((0, 1, maximum // 4)),
            cores=lot.choice((maximum // 2, maximum, 3 * maximum)),
            machines=lot.choice((maximum // 4 + 1, maximum)),
            largest=lot.choice((2, 4, 8)),
            lease=lot.choice((300.0, 600.0, 1800.0)),
            join_deadline=lot.choice((None, 400.0)),
            choose=lot.choice(tuple(Choose)),
            boot=BootTime(lot.choice((20.0, 120.0, 300.0)), lot.choice((0.0, 0.25, 0.6))),
            lag=lot.choice((0.0, 0.0, 40.0)),
            end_time=lot.choice((0.0, 30.0, 120.0)),
            step=lot.choice((10.0, STEP, 60.0)),
            rate=lot.choice((0.5, 1.0, 2.0)),
        )


def one(policy: str, seed: int, jobs: int) -> Run:
    """Repeat one run. Jobs for more cores than the policy's machines have are left out."""
    setting = setting_of(policy, seed)
    # A single-use worker boots for each job, so that fewer jobs a day find one.
    trace = read_trace("grid", seed=seed, jobs=jobs, spread=4.0 if policy == "per_job" else 2.0)
    shorter = tuple(job._replace(runtime=max(1.0, job.runtime / SHORTER)) for job in trace.jobs)
    return simulate(fitted(replace(trace, jobs=shorter), setting), setting, seed=seed)


def outcome(policy: str, seed: int, jobs: int) -> Outcome:
    """The same, in short."""
    run = one(policy, seed, jobs)
    counts: Counter[Rule] = Counter()
    for violation in run.violations:
        counts[violation.rule] += 1
    first = {violation.rule: str(violation) for violation in reversed(run.violations)}
    return Outcome(policy, seed, len(run.jobs), run.never_started, sum(run.strikes.values()), run.events, counts, first)


def figures(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """All policies, or a little of each."""
    jobs = 300 if quick else PER_RUN
    if quick:
        wanted = [(name, 0) for name in EXAMPLES]
    else:
        wanted = [(name, seed) for name, number in RUNS.items() for seed in range(number)]
    with ProcessPoolExecutor() as pool:
        futures = [pool.submit(outcome, name, seed, jobs) for name, seed in wanted]
        outcomes = [future.result() for future in futures]
    yield from told(outcomes)


def told(outcomes: Iterable[Outcome], name: str = "chaos") -> Iterable[Figure]:
    """The figures of these."""
    every = list(outcomes)
    completions = sum(each.completions for each in every)
    broken: Counter[Rule] = Counter()
    for each in every:
        broken += each.broken
    of_policy: Counter[str] = Counter()
    for each in every:
        of_policy[each.policy] += each.completions
    note = ", ".join(f"{policy} {number}" for policy, number in sorted(of_policy.items()))
    faults, events = sum(each.strikes for each in every), sum(each.events for each in every)
    wanted = sum(each.completions + each.never_started for each in every)
    yield Figure(f"{name}: jobs that ended", completions, "jobs", "==", wanted, f"{faults} faults; {note}")
    for what, unit, rules in (*_TOLD, ("other rules broken", "times", _OTHERS)):
        first = _first(every, rules) or (f"checked at {events} events" if rules is _OTHERS else "")
        yield Figure(f"{name}: {what}", sum(broken[rule] for rule in rules), unit, "==", 0, first)


def _first(outcomes: Iterable[Outcome], rules: Collection[Rule]) -> str:
    """The first breach of one of these, and how to repeat it."""
    found = (
        f"{each.policy}, seed {each.seed}: {text}"
        for each in outcomes
        for rule, text in each.first.items()
        if rule in rules
    )
    return next(found, "")


def hour(directory: Path, *, quick: bool) -> Iterable[Figure]:
    """Seed after seed, on sites drawn by lot, until each policy has had its hour of a processor."""
    jobs, seconds = (200, 0.0) if quick else (PER_SITE, HOUR)
    with ProcessPoolExecutor() as pool:
        futures = [pool.submit(_went_on, name, DRAWN, jobs, seconds) for name in EXAMPLES]
        outcomes = [each for future in futures for each in future.result()]
    yield from told(outcomes, "chaos-hour")


def _went_on(policy: str, first: int, jobs: int, seconds: float) -> list[Outcome]:
    return list(going_on(policy, first, jobs, seconds))


def going_on(policy: str, first: int, jobs: int, seconds: float) -> Iterator[Outcome]:
    """One seed at least, and no new one after so many seconds of this process's processor time."""
    until, seed = time.process_time() + seconds, first
    while True:
        yield outcome(policy, seed, jobs)
        seed += 1
        if time.process_time() >= until:
            return


def main() -> int:
    """Exit code 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("policy", choices=EXAMPLES)
    parser.add_argument("seed", type=int, help=f"from {DRAWN} on the site is drawn by lot too")
    parser.add_argument("jobs", type=int, nargs="?", default=PER_RUN)
    parser.add_argument("--for", dest="seconds", type=float, default=0.0, help="go on with the seeds that follow")
    given = parser.parse_args()
    broken = False
    for shown in going_on(given.policy, given.seed, given.jobs, given.seconds):
        print(shown, flush=True)
        broken = broken or bool(shown.broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
