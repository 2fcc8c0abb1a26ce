"""Follow the mean load: the alarms of an orchestrator's scaling group (seeds-digest section 2), with its faults mended.

A worker that runs jobs is never given back, the minimum is kept, workers that drain or boot are no part of the mean,
and a worker that has not been heard of lately is no evidence of low load.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import LoadPolicy
from gridtide.model.snapshot import GroupMemory
from gridtide.planning.policies.base import Aim, Outlook, Pulse


@dataclass(frozen=True, slots=True)
class MeanLoad:
    """Means over cores."""

    heard: float | None
    """Of the workers that were heard of lately; None when none was."""
    at_most: float
    """Of all, those that were not heard of lately counted as fully loaded."""
    silent: int
    """How many these are."""


def mean_load(pulses: tuple[Pulse, ...], now: float, heard_within: float) -> MeanLoad:
    """No load of one worker counts for more than its cores: a crowd on one does not stand for the others."""
    used, known, total, silent = 0.0, 0, 0, 0
    for cores, at, load in pulses:
        total += cores
        if at is None or at < now - heard_within or not isfinite(load):
            silent += 1
        else:
            known += cores
            used += cores * min(max(load, 0.0), 1.0)
    heard = used / known if known else None
    return MeanLoad(heard, (used + (total - known)) / total if total else 1.0, silent)


@dataclass(frozen=True, slots=True)
class FollowLoad:
    """More workers while they are loaded, fewer while they are not."""

    parameters: LoadPolicy

    def aim(self, outlook: Outlook) -> Aim:
        """The number that there is; or one step up; or one step down, by workers that run nothing."""
        memory, parameters, now = outlook.memory, self.parameters, outlook.now
        mean = mean_load(outlook.pulses(), now, parameters.heard_within)
        none = outlook.workers == 0 and bool(outlook.waiting)
        high = none or (mean.heard is not None and mean.heard > parameters.high)
        low = not high and mean.at_most < parameters.low
        steady = Aim(
            memory=GroupMemory(
                high_since=_since(memory.high_since, high, now),
                low_since=_since(memory.low_since, low, now),
                changed=memory.changed,
            ),
            count=outlook.workers,
            idle_only=True,
            look_again=self._next_look(now) if outlook.workers or outlook.waiting else None,
        )
        words = _words(mean, none)
        if high:
            due = now if none else (steady.memory.high_since or now) + parameters.high_for
            count = min(outlook.workers + parameters.add, outlook.maximum)
            return self._step(steady, outlook, count, due, Reason(Cause.LOAD_HIGH, words))
        if low:
            due = (steady.memory.low_since or now) + parameters.low_for
            count = max(outlook.workers - parameters.remove, outlook.minimum, outlook.busy)
            return self._step(steady, outlook, count, due, Reason(Cause.LOAD_LOW, words))
        return replace(steady, patience=Reason(Cause.LOAD_STEADY, words))

    def _step(self, steady: Aim, outlook: Outlook, count: int, due: float, why: Reason) -> Aim:
        """Towards ``count``, once the alarm and the cooldown are over."""
        now, changed = outlook.now, outlook.memory.changed
        rest = now if changed is None else changed + self.parameters.cooldown
        again = steady.look_again
        if now < max(due, rest):
            again = max(due, rest) if again is None else min(max(due, rest), again)
            cause = Cause.COOLDOWN if rest > due else Cause.LOAD_STEADY
            words = f"{why.text}; that counts in {max(due, rest) - now:.0f} s"
            return replace(steady, look_again=again, patience=Reason(cause, words))
        up = why.cause is Cause.LOAD_HIGH
        if count <= outlook.workers if up else count >= outlook.workers:
            return replace(steady, patience=Reason(Cause.LOAD_STEADY, f"{why.text}; no step is possible"))
        told = Reason(why.cause, f"{why.text}: from {outlook.workers} to {count}")
        # The alarm begins anew: what raised it may be over with this step.
        return replace(steady, memory=GroupMemory(changed=now), count=count, why=told, patience=told)

    def _next_look(self, now: float) -> float:
        """Loads change without any news of it: two looks in the shorter of the two times, at most one a second."""
        return now + max(min(self.parameters.high_for, self.parameters.low_for) / 2, 1.0)


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _words(mean: MeanLoad, none: bool) -> str:
    if none:
        return "jobs wait and there is no worker whose load could tell"
    told = "no worker has told its load lately" if mean.heard is None else f"the mean load is {100 * mean.heard:.0f} %"
    return f"{told} ({mean.silent} not heard of lately)" if mean.silent else told
