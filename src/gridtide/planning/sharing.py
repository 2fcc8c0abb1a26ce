"""Fair parts of something that is not enough for all who want it: weighted max-min.

Nobody gets more than it wants; what one does not use is for the others; and where somebody gets less than it wants,
nobody gets more for its share, except that each one who wants anything gets at least one machine, as long as there is
enough for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gridtide.model.ids import GroupName


@dataclass(frozen=True, slots=True)
class Claim:
    """What a group could use, in the unit that is short (cores, MiB or machines)."""

    group: GroupName
    share: float
    wants: float
    """All in all."""
    least: float = 0.0
    """One machine: with less it could do nothing."""


def fair_parts(capacity: float, claims: Sequence[Claim]) -> dict[GroupName, float]:
    """What each may use. Where there is not one machine for each, those that come first get one, others nothing."""
    left = max(capacity, 0.0)
    floors: dict[GroupName, float] = {}
    for claim in claims:
        floor = min(claim.least, claim.wants)
        if floor <= left:
            floors[claim.group] = floor
            left -= floor
    served = [claim for claim in claims if claim.group in floors]
    level = _level(max(capacity, 0.0), served, floors)
    return {claim.group: _part(claim, floors, level) if claim.group in floors else 0.0 for claim in claims}


def _part(claim: Claim, floors: dict[GroupName, float], level: float) -> float:
    return max(floors[claim.group], min(claim.wants, level * claim.share))


def _level(capacity: float, claims: Sequence[Claim], floors: dict[GroupName, float]) -> float:
    """How much each gets for a share of 1, so that all is given out or nobody wants more.

    What is given out grows with the level in straight pieces; they meet where a claim leaves its floor or is served.
    """

    def given(level: float) -> float:
        return sum(_part(claim, floors, level) for claim in claims)

    before = 0.0
    for point in sorted({edge / claim.share for claim in claims for edge in (floors[claim.group], claim.wants)}):
        here, there = given(before), given(point)
        if there > capacity:
            return before + (point - before) * (capacity - here) / (there - here)
        before = point
    return before
