"""Follow the queue as the sea follows the moon: a little ahead of the flood, and not all out at every ebb.

How far the load (the cores that jobs use or wait for) strays from its own average within the time of a boot says how
much room is kept free for jobs to come; how far it strays within ``idle_for``, how many idle workers are worth keeping.
docs/explanation/tide.md has the reasons and the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final

from gridtide.model.resources import Resources
from gridtide.model.rules import TidePolicy
from gridtide.model.snapshot import GroupMemory, Level, Swing
from gridtide.planning.policies.base import Ahead, Aim, Early, Outlook, Work

DEVIATIONS: Final = 2.0
"""Of the load from its average that are provided for. Smaller: jobs wait for a boot more often. Larger: more cores are
idle."""

REMEMBERED: Final = 7200.0
"""Seconds over which deviations are averaged. Smaller: the fleet grows after each burst, when it is over. Larger: a
change of habits is noticed later."""

UNKNOWN_BOOT: Final = 120.0
"""Seconds that a boot is taken for until one was seen."""

WORTH_KEEPING: Final = 300.0
"""Seconds of idleness before which no worker is given back: the next job, if it comes by then, starts at once, and no
other boot is paid for. Smaller: sites with few jobs boot a machine for each."""


@dataclass(frozen=True, slots=True)
class FollowTide:
    """Launches for what waits and a little ahead of it; lets go by what the load is likely to want again."""

    parameters: TidePolicy

    def aim(self, outlook: Outlook) -> Aim:
        """Only fresh readings teach it anything, and without one nothing is launched or given back for the load."""
        parameters = self.parameters
        work = outlook.work()
        level = outlook.memory.level if work is None else self._learn(outlook, work)
        ahead = 0 if work is None or level is None else self._ahead(level, work, outlook.now)
        early: Early | None = None
        if work is not None and level is not None:
            beyond = work.waiting + ahead + _likely(level.far)
            early = Early(min(WORTH_KEEPING, parameters.idle_for), beyond)
        return Aim(
            memory=GroupMemory(level=level),
            spread=parameters.spread,
            ahead=_jobs(ahead, work) if work is not None and ahead else None,
            early=early,
            idle_for=parameters.idle_for,
        )

    def _ahead(self, level: Level, work: Work, now: float) -> int:
        """Cores. None once the load has not risen for as long as an idle worker is kept."""
        if now >= level.rose + self.parameters.idle_for:
            return 0
        return min(_likely(level.near), int(self.parameters.ahead * work.used.cores))

    def _learn(self, outlook: Outlook, work: Work) -> Level:
        load = float(work.used.cores + work.waiting)
        before = outlook.memory.level
        if before is None:
            return Level(outlook.now, outlook.now, Swing(load), Swing(load))
        passed = max(outlook.now - before.at, 0.0)
        boot = UNKNOWN_BOOT if outlook.boot is None else outlook.boot
        return Level(
            at=outlook.now,
            rose=outlook.now if load >= before.near.mean + 1.0 else before.rose,
            near=_followed(before.near, load, passed, boot),
            far=_followed(before.far, load, passed, self.parameters.idle_for),
        )


def _followed(swing: Swing, load: float, passed: float, horizon: float) -> Swing:
    """With one more look. Additions and divisions alone: the same bits on every machine."""
    if passed <= 0.0:
        return swing
    away = load - swing.mean
    return Swing(
        mean=swing.mean + away * passed / (horizon + passed),
        variance=swing.variance + (away * away - swing.variance) * passed / (REMEMBERED + passed),
    )


def _likely(swing: Swing) -> int:
    """Cores by which the load may well rise."""
    return int(DEVIATIONS * sqrt(swing.variance))


def _jobs(cores: int, work: Work) -> Ahead | None:
    """So many cores as jobs like those that run; None when not even one of them fits into so many."""
    used, running = work.used, max(work.jobs, 1)
    each = Resources(
        max(round(used.cores / running), 1),
        used.memory // running,
        used.disk // running,
        round(used.gpus / running),
    )
    return Ahead(cores // each.cores, each) if cores >= each.cores else None
