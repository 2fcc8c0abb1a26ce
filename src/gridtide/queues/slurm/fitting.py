"""Which of the machines that could be launched would run which waiting jobs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridtide.model.demand import Attribute, DemandRow, Offer
from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.resources import Resources
from gridtide.queues.slurm.features import satisfied
from gridtide.queues.slurm.jobs import Ask
from gridtide.queues.slurm.nodes import TEMPLATE, partitions_and_features

FEATURES: Final = "Features"
"""Attribute of a group: more features of its nodes, with commas between them."""
_FEATURE: Final = re.compile(r"[A-Za-z0-9_.:=/+-]+")


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """What a worker of one group and shape will be in Slurm."""

    offer: Offer
    resources: Resources
    """What jobs may have."""
    features: tuple[str, ...]
    partitions: frozenset[str] | None
    """Those that it will be in; None: not known yet."""


def features_of(marker: str, group: str, attributes: Mapping[str, Attribute]) -> tuple[str, ...]:
    """Marker, group, and what the group's attribute ``Features`` lists, as far as Slurm can take it."""
    more = str(attributes.get(FEATURES, "")).split(",")
    listed = [marker, group, *(word.strip() for word in more)]
    return tuple(dict.fromkeys(word for word in listed if _FEATURE.fullmatch(word)))


def usable(size: Resources, reserve: int) -> Resources:
    """Of a machine, without the ``reserve`` (MiB) that kernel and daemons need. Disk is not handed out by Slurm."""
    return Resources(size.cores, max(0, size.memory - reserve), 0, size.gpus)


def template_name(group: GroupName, shape: ShapeName, number: int = 1) -> str:
    """Of the node that stands for machines that could be made."""
    return f"{TEMPLATE}{group}-{re.sub(r'[^A-Za-z0-9-]', '-', shape)}-{number}"[:63]


def row_of(
    ask: Ask, count: int, since: float, planned: Sequence[PlannedNode], kinds: Collection[str] | None
) -> DemandRow:
    """The jobs as the planner sees them. ``kinds``: of nodes that are not ours; None: not known yet."""
    need = Resources(ask.cores, ask.memory, 0, ask.gpus)
    refusals = {each.offer.key: _why_not(ask, need, each) for each in planned}
    fitting = [each for each in planned if not refusals[each.offer.key]]
    if ask.exclusive and fitting:
        # It takes a whole machine of whatever size: counted as the smallest one that will do, on machines of that size.
        size = min(each.resources for each in fitting)
        need, fitting = size, [each for each in fitting if each.resources == size]
    problem = "" if fitting else _one_reason(ask, list(refusals.values()))
    return DemandRow(
        need=need,
        count=count,
        oldest_since=since,
        runs_on=frozenset(each.offer.key for each in fitting),
        label=_label(ask, problem),
        walltime=None if ask.minutes is None else ask.minutes * 60.0,
        node_kinds=None if kinds is None else frozenset(kind for kind in kinds if _kind_fits(ask, kind)),
    )


def _why_not(ask: Ask, need: Resources, planned: PlannedNode) -> str:
    """Empty when it fits."""
    if ask.obstacle:
        return ask.obstacle
    if planned.partitions is not None and not planned.partitions & set(ask.partitions.split(",")):
        return f"no machine of ours is in partition {ask.partitions}"
    try:
        if not satisfied(ask.features, planned.features):
            return f"no group has the features {ask.features}"
    except ValueError as error:
        return str(error)
    return "" if planned.resources.covers(need) else "larger than every shape"


def _one_reason(ask: Ask, refusals: Sequence[str]) -> str:
    """The one that came closest: each machine is looked at in the order of the checks."""
    order = (
        ask.obstacle,
        f"no machine of ours is in partition {ask.partitions}",
        f"no group has the features {ask.features}",
    )
    ranked = sorted(refusals, key=lambda reason: order.index(reason) if reason in order else len(order))
    return ranked[-1] if ranked else ask.obstacle or "no group has a shape to launch"


def _kind_fits(ask: Ask, kind: str) -> bool:
    partitions, features = partitions_and_features(kind)
    try:
        return bool(partitions & set(ask.partitions.split(","))) and satisfied(ask.features, features)
    except ValueError:
        return False


def _label(ask: Ask, problem: str) -> str:
    parts = [str(Resources(ask.cores, ask.memory, 0, ask.gpus))]
    if ask.nodes > 1:
        parts.append(f"each of {ask.nodes} nodes")
    if ask.exclusive:
        parts.append("alone on its node")
    parts.append(f"partition {ask.partitions[:60]}")
    if ask.features:
        parts.append(f"constraint {ask.features[:100]}")
    if ask.minutes is not None:
        parts.append(f"{ask.minutes:.0f} min")
    return "; ".join([*parts, *([f"cannot run here: {problem}"] if problem else [])])
