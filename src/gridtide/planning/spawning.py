"""Workers on request (AliEC2's ``spawn``, Slurm's resume): the same limits as for every other launch, and no demand."""

from __future__ import annotations

from collections.abc import Sequence

from gridtide.model.actions import Launch
from gridtide.model.ids import GroupName
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import Snapshot
from gridtide.planning.evidence import Evidence
from gridtide.planning.fleet import fleet_of
from gridtide.planning.limits import Limits, offerings


def plan_spawn(snapshot: Snapshot, rules: SiteRules, group: GroupName) -> Launch | Reason:
    """A launch of one single-use worker of the group, or why there can be none now. KeyError for an unknown group."""
    reason = Reason(Cause.DEMAND, "it was asked for by /spawn")
    launches, why_not = _some(Evidence(snapshot, rules), group, 1, single_use=True, reason=reason)
    return launches[0] if launches else why_not


def plan_resume(snapshot: Snapshot, rules: SiteRules, group: GroupName, number: int) -> tuple[Sequence[Launch], Reason]:
    """Launches of so many workers, or of fewer, and why there can be no more. KeyError for an unknown group."""
    reason = Reason(Cause.DEMAND, "Slurm resumes its node")
    return _some(Evidence(snapshot, rules), group, number, single_use=False, reason=reason)


def _some(
    evidence: Evidence, group: GroupName, number: int, *, single_use: bool, reason: Reason
) -> tuple[list[Launch], Reason]:
    wishes = evidence.wishes(group)
    if wishes.hold or wishes.closing:
        return [], Reason(Cause.HELD, f"an operator {'closes' if wishes.closing else 'holds'} group {group}")
    warming = evidence.warming(group)
    if warming is not None:
        return [], warming
    limits = Limits(evidence)
    limits.maximum[group] = fleet_of(evidence.rules.groups[group], [], evidence).maximum
    launches: list[Launch] = []
    refusals: list[Reason] = []
    for offering in offerings(evidence.rules.groups[group], evidence):
        while number > 0 and (room := limits.room(offering)) > 0:
            launches.append(limits.take(offering, min(number, room), single_use=single_use, reason=reason))
            number -= launches[-1].count
        if number > 0:
            refusals.append(limits.why_not(offering))
    return launches, refusals[0] if refusals else Reason(Cause.NO_SHAPE_FITS, f"group {group} has nothing to launch")
