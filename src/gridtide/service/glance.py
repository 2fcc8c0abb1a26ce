"""What is counted of a cycle for people. It goes through all workers and nodes, so it is done once for each cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridtide.control.api import Cycle
from gridtide.model.demand import DemandRow
from gridtide.model.ids import GroupName, QueueName
from gridtide.model.reasons import Reason
from gridtide.model.rules import SiteRules
from gridtide.service.loads import GroupLoad, loads, stuck
from gridtide.service.spending import spending
from gridtide.store.ports import Json


@dataclass(frozen=True, slots=True)
class Glance:
    """A cycle, under the rules in force."""

    cycle: Cycle
    rules: SiteRules
    loads: Mapping[GroupName, GroupLoad]
    stuck: Sequence[tuple[QueueName, DemandRow, Reason]]
    spending: Sequence[Json]


def glance(cycle: Cycle, rules: SiteRules) -> Glance:
    """Count."""
    return Glance(cycle, rules, loads(cycle.snapshot, rules), stuck(cycle), spending(cycle, rules))
