"""COBalD's linear controller over a pool of TARDIS drones. It never looks at the queue."""

from __future__ import annotations

from math import ceil
from typing import Final

from gridtide.sim.baselines.base import Baseline, Decision, Sight, remembering

LOW_UTILISATION: Final = 0.5
HIGH_ALLOCATION: Final = 0.5
RATE: Final = 1.0
"""Resources (cores) a second."""
INTERVAL: Final = 10.0
"""Seconds. The default is 1 s: in ten steps of a tenth, which is the same up to the rounding to whole machines."""


def linear(sight: Sight, demand: float) -> tuple[Decision, float]:
    """Demand falls while utilisation is low, and grows while allocation is high.

    Both are the part of the joined machines' cores that jobs have; a pool without any counts as full. What is
    demanded less is drained, the least used first; a drain is not taken back.
    """
    supply = sight.joined * sight.cores
    part = sight.running / supply if supply else 1.0
    if part < LOW_UTILISATION:
        demand = max(demand - RATE * INTERVAL, 0.0)
    elif part > HIGH_ALLOCATION:
        # A demand far beyond what there is would take as long to come down again: it stays within one step of the pool.
        demand = min(demand, sight.capacity * sight.cores) + RATE * INTERVAL
    change = ceil(demand / sight.cores) - sight.capacity
    if change >= 0:
        return Decision(launch=(sight.machine,) * change), demand
    return Decision(drain=tuple(each.worker for each in sight.in_use()[:-change])), demand


LINEAR: Final = Baseline("cobald", INTERVAL, remembering(linear, 0.0))
