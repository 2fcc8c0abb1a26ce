"""What waits and what runs, counted for people: by group, and what will never run as things are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from gridtide.control.api import Cycle
from gridtide.model.demand import DemandRow
from gridtide.model.ids import GroupName, QueueName
from gridtide.model.readings import last_known
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import SiteRules
from gridtide.model.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class GroupLoad:
    """As last believed; None where a queue was never read."""

    waiting: int | None
    """Jobs that the group's machines could run. One that several groups could run counts in each."""
    running: int | None
    """Jobs on its workers."""


def loads(snapshot: Snapshot, rules: SiteRules) -> dict[GroupName, GroupLoad]:
    """What waits for each group, and what runs on its workers."""
    found: dict[GroupName, GroupLoad] = {}
    running: dict[QueueName, Counter[GroupName]] = {}
    waiting: dict[QueueName, Counter[GroupName]] = {}
    known_worker = snapshot.workers.get
    for name, view in snapshot.queues.items():
        nodes, demand = last_known(view.nodes), last_known(view.demand)
        if nodes is not None:
            running[name] = Counter()
            for item in nodes.value:
                if item.running and item.worker is not None and (owner := known_worker(item.worker)) is not None:
                    running[name][owner.group] += item.running
        if demand is not None:
            waiting[name] = Counter()
            for row in demand.value:
                waiting[name].update(dict.fromkeys({group_name for group_name, _ in row.runs_on}, row.count))
    for group_name, group_rules in rules.groups.items():
        queue_name = group_rules.queue
        found[group_name] = GroupLoad(
            waiting[queue_name][group_name] if queue_name in waiting else None,
            running[queue_name][group_name] if queue_name in running else None,
        )
    return found


STUCK: Final = (Cause.NO_SHAPE_FITS, Cause.NOT_TAKEN)
"""Why jobs wait for good, unless somebody changes something: these are what status and metrics tell of."""


def stuck(cycle: Cycle) -> list[tuple[QueueName, DemandRow, Reason]]:
    """Kinds of jobs that no machine of ours will run as things are."""
    found: list[tuple[QueueName, DemandRow, Reason]] = []
    for name, view in sorted(cycle.snapshot.queues.items()):
        known = last_known(view.demand)
        for row in known.value if known is not None else ():
            why = cycle.plan.why_demand.get((name, row.label))
            if row.count and why is not None and why.cause in STUCK:
                found.append((name, row, why))
    return found


def stuck_counts(cycle: Cycle) -> dict[tuple[str, Cause], int]:
    """How many jobs of each queue that was read are stuck, by cause."""
    read = [name for name, view in cycle.snapshot.queues.items() if last_known(view.demand) is not None]
    counts = {(str(name), cause): 0 for name in read for cause in STUCK}
    for name, row, why in stuck(cycle):
        counts[(str(name), why.cause)] += row.count
    return counts
