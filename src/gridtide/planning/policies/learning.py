"""What is learned of a group's load, and how many idle cores that makes worth their while.

Two things are counted: how far the load rises within some times, and how long cores are unwanted before they are wanted
again. Both give odds, and odds are compared with what an idle core costs and what a missing one does. Additions,
multiplications and divisions alone: the same bits on every machine.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from gridtide.model.snapshot import Level, Rise

SPANS: Final = (1.0, 2.0, 4.0, 8.0)
"""Boots for which it is looked ahead when idle cores are counted. Longer ones: more is kept where load comes seldom."""

REMEMBERED: Final = 60.0
"""Times (of a span each) over which rises are counted. Smaller: odds of one in ten are guessed from too few. Larger: a
change of habits is noticed later."""

LEAST: Final = 5.0
"""Times that must have been counted before anything is kept for what they say. Smaller: the first burst after a start
is waited for again."""

LULLS_REMEMBERED: Final = 28_800.0
"""Seconds over which lulls are counted. Smaller: what a day has taught is forgotten in the night."""

LEAST_LULLS: Final = 10.0
"""Cores that must have been unwanted before it is known how long one is worth keeping. Smaller: the first few
decide."""

UNKNOWN_KEEPING: Final = 300.0
"""Seconds for which an idle core is kept until then. Smaller: after a start a site with few jobs boots a machine for
each."""

KEEPINGS: Final = (60.0, 120.0, 180.0, 300.0, 450.0, 600.0, 900.0, 1200.0, 1800.0)
"""Seconds of idleness from which the best is chosen. Many clouds charge a machine for a minute at least, so that
less than the first saves nothing."""

TOGETHER: Final = 10.0
"""Cores that are unwanted within so many seconds are counted as one lot: what is remembered of half an hour stays
small."""

EDGES: Final = (0, 1, 2, 3, *(part << power for power in range(1, 18) for part in (2, 3)))
"""Cores by which rises are told from each other. Each is half or a third more than the one before it."""

_MOST_AT_ONCE: Final = 10.0
"""Times between two looks count as calm, and no more often than this: they may have been blind."""


def learned(before: Level | None, load: float, now: float, boot: float) -> Level:
    """With one more look at the load, in cores. ``boot``: seconds that a machine takes."""
    if before is None:
        rises = tuple(Rise(now, load, load, (0.0,) * len(EDGES)) for _ in SPANS)
        return Level(now, now, load, rises, (), (0.0,) * (len(KEEPINGS) + 1))
    unused, lulls = _lulls(before, load, now)
    return Level(
        at=now,
        rose=now if load > before.load else before.rose,
        load=load,
        rises=tuple(_followed(rise, load, now, boot * span) for rise, span in zip(before.rises, SPANS, strict=True)),
        unused=unused,
        lulls=lulls,
    )


def likely_rise(level: Level, odds: float) -> int:
    """The largest number of cores by which the load rises within a boot more often than in ``odds`` of all cases."""
    return _likely(level.rises[0].counts, odds)


def worth_keeping(level: Level, lost: float, boot: float) -> int:
    """Idle cores that are worth their while.

    A core costs its idle time until it is wanted, and ``lost`` seconds of a core if it is given back and wanted all the
    same. It stays if for one of the spans the odds of being wanted within it are above span / lost.
    """
    spans = zip(level.rises, SPANS, strict=True)
    return max(_likely(rise.counts, boot * span / lost) for rise, span in spans)


def best_keeping(level: Level, lost: float) -> float:
    """Seconds of idleness after which a core is given back, had it been so in the past, for the least cost.

    One that is wanted again earlier has cost its idle time; another one this time, and ``lost`` seconds.
    """
    if sum(level.lulls) < LEAST_LULLS:
        return UNKNOWN_KEEPING
    starts = (0.0, *KEEPINGS)
    idle, left = 0.0, sum(level.lulls)
    best, least = UNKNOWN_KEEPING, float("inf")
    for number, start, end in zip(level.lulls, starts, KEEPINGS, strict=False):
        idle += number * (start + end) / 2
        left -= number
        cost = idle + left * (end + lost)
        if cost < least:
            best, least = end, cost
    return best


def _followed(rise: Rise, load: float, now: float, span: float) -> Rise:
    top = max(rise.top, load)
    if now < rise.since + span:
        return rise if top == rise.top else Rise(rise.since, rise.base, top, rise.counts)
    passed = min((now - rise.since) / span, _MOST_AT_ONCE)
    kept = REMEMBERED / (REMEMBERED + passed)
    counts = [count * kept for count in rise.counts]
    counts[0] += passed - 1.0
    counts[min(bisect_left(EDGES, top - rise.base), len(EDGES) - 1)] += 1.0
    return Rise(now, load, load, tuple(counts))


def _likely(counts: tuple[float, ...], odds: float) -> int:
    total = sum(counts)
    if total < LEAST:
        return 0
    above = 0.0
    for edge, count in zip(reversed(EDGES), reversed(counts), strict=True):
        above += count
        if above > odds * total:
            return edge
    return 0


def _lulls(before: Level, load: float, now: float) -> tuple[tuple[tuple[float, float], ...], tuple[float, ...]]:
    """What is unwanted now, and the lulls that ended. The core that was wanted last is the first to be wanted again:
    queues fill the fullest machines first."""
    passed = max(now - before.at, 0.0)
    kept = LULLS_REMEMBERED / (LULLS_REMEMBERED + passed)
    lulls = [number * kept for number in before.lulls]
    unused = list(before.unused)
    change = load - before.load
    if change < 0.0:
        if unused and now < unused[-1][0] + TOGETHER:
            since, number = unused.pop()
            unused.append((since, number - change))
        else:
            unused.append((now, -change))
    while change > 0.0 and unused:
        since, number = unused.pop()
        again = min(number, change)
        change -= again
        lulls[bisect_left(KEEPINGS, now - since)] += again
        if again < number:
            unused.append((since, number - again))
    over = 0
    while over < len(unused) and unused[over][0] < now - KEEPINGS[-1]:
        lulls[-1] += unused[over][1]
        over += 1
    return tuple(unused[over:]), tuple(lulls)
