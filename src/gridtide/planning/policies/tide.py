"""Follow the queue as the sea follows the moon: a little ahead of the flood, and not all out at every ebb.

How the load (the cores that jobs use or wait for) has risen and how long cores were unwanted says how many are worth
keeping free for jobs to come, and how long an idle one is worth keeping. docs/explanation/tide.md has the reasons and
the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gridtide.model.resources import Resources
from gridtide.model.rules import TidePolicy
from gridtide.model.snapshot import GroupMemory, Level
from gridtide.planning.policies.base import Ahead, Aim, Early, Outlook, Work
from gridtide.planning.policies.learning import best_keeping, learned, likely_rise, worth_keeping

LAUNCH_WORTH: Final = 900.0
"""Seconds of a core that a launch is worth, beside its boot: machines have a cost that no price list shows. Smaller:
more launches."""

UNKNOWN_BOOT: Final = 120.0
"""Seconds that a boot is taken for until one was seen."""


@dataclass(frozen=True, slots=True)
class FollowTide:
    """Launches for what waits and a little ahead of it; lets go by what the load is likely to want again."""

    parameters: TidePolicy

    def aim(self, outlook: Outlook) -> Aim:
        """Only fresh readings teach it anything, and without one nothing is launched or given back for the load."""
        parameters, work = self.parameters, outlook.work()
        if work is None:
            return Aim(memory=outlook.memory, spread=parameters.spread, idle_for=parameters.idle_for)
        boot = UNKNOWN_BOOT if outlook.boot is None else outlook.boot
        level = learned(outlook.memory.level, float(work.used.cores + work.waiting), outlook.now, boot)
        lost = boot * (1.0 + parameters.wait_worth) + LAUNCH_WORTH / _size(work, outlook.busy)
        ahead = self._ahead(level, work, outlook.now)
        return Aim(
            memory=GroupMemory(level=level),
            spread=parameters.spread,
            ahead=_jobs(ahead, work) if ahead else None,
            early=Early(
                after=min(best_keeping(level, lost), parameters.idle_for),
                beyond=work.waiting + worth_keeping(level, lost, boot),
            ),
            idle_for=parameters.idle_for,
        )

    def _ahead(self, level: Level, work: Work, now: float) -> int:
        """Cores. None once the load has not risen for as long as an idle worker is kept.

        One that is wanted within a boot saves a wait that is worth ``wait_worth`` boots; another one costs a boot.
        """
        if now >= level.rose + self.parameters.idle_for:
            return 0
        odds = 1.0 / (1.0 + self.parameters.wait_worth)
        return min(likely_rise(level, odds), int(self.parameters.ahead * work.used.cores))


def _size(work: Work, busy: int) -> float:
    """Cores of a worker, as far as jobs use them."""
    return max(work.used.cores / max(busy, 1), 1.0)


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
