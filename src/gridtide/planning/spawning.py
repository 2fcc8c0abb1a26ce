"""One worker on request (AliEC2's ``spawn``): the same limits as for every other launch, and no demand."""

from __future__ import annotations

from gridtide.model.actions import Launch
from gridtide.model.ids import GroupName
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import Snapshot
from gridtide.planning.evidence import Evidence
from gridtide.planning.limits import Limits, offerings


def plan_spawn(snapshot: Snapshot, rules: SiteRules, group: GroupName) -> Launch | Reason:
    """A launch of one single-use worker of the group, or why there can be none now. KeyError for an unknown group."""
    evidence = Evidence(snapshot, rules)
    wishes = evidence.wishes(group)
    if wishes.hold or wishes.closing:
        return Reason(Cause.HELD, f"an operator {'closes' if wishes.closing else 'holds'} group {group}")
    warming = evidence.warming(group)
    if warming is not None:
        return warming
    limits = Limits(evidence)
    refusals: list[Reason] = []
    for offering in offerings(rules.groups[group], evidence):
        if limits.room(offering) > 0:
            return limits.take(offering, 1, single_use=True, reason=Reason(Cause.DEMAND, "it was asked for by /spawn"))
        refusals.append(limits.why_not(offering))
    return refusals[0] if refusals else Reason(Cause.NO_SHAPE_FITS, f"group {group} has nothing to launch")
