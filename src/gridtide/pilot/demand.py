"""Waiting work, counted by shape, with the offers that could run it. Its cost follows the number of waiting job
classes, never the number of jobs.

A machine of an offer does not exist yet, so part of its ad (its kernel, say) is unknown. Requirements that depend on
such an attribute *could* hold, and count: a job that could never wait for its machine would wait for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, func, select

from gridtide.model.demand import Demand, DemandRow, Offer, OfferKey
from gridtide.model.resources import Resources
from gridtide.pilot.matching import Host, Verdict, Verdicts, offer_host
from gridtide.pilot.records import need_label
from gridtide.pilot.tables import WAITING, classes, jobs, submissions

_OLDEST: Final = (
    select(func.min(jobs.c.id)).where(jobs.c.class_id == classes.c.id, WAITING).correlate(classes).scalar_subquery()
)
_WAITING: Final = (
    select(
        classes.c.cores,
        classes.c.memory,
        classes.c.disk,
        classes.c.gpus,
        classes.c.requirements,
        classes.c.walltime,
        classes.c.waiting,
        submissions.c.submitted,
    )
    .select_from(classes)
    .join(jobs, jobs.c.id == _OLDEST)
    .join(submissions, submissions.c.number == jobs.c.submission)
    .where(classes.c.waiting > 0)
)
_Look = tuple[Resources, str, float]


def waiting(connection: Connection) -> list[tuple[_Look, int, float]]:
    """Needs, requirements and wall time; how many jobs; when the oldest was submitted. One row for each class."""
    return [
        (
            (Resources(row.cores, row.memory, row.disk, row.gpus), row.requirements, row.walltime),
            row.waiting,
            row.submitted,
        )
        for row in connection.execute(_WAITING)
    ]


def demand(rows: Sequence[tuple[_Look, int, float]], offers: Sequence[Offer], verdicts: Verdicts) -> Demand:
    """Classes that look alike from outside are one row."""
    hosts = [(offer, verdicts.host(offer_host(offer))) for offer in offers]
    merged: dict[_Look, tuple[int, float]] = {}
    for look, count, since in rows:
        before = merged.get(look, (0, since))
        merged[look] = (before[0] + count, min(before[1], since))
    return tuple(
        DemandRow(
            need=need,
            count=count,
            oldest_since=since,
            runs_on=_runs_on(need, requirements, hosts, verdicts),
            label=need_label(need, requirements),
            walltime=walltime,
            node_kinds=frozenset(),  # all nodes of a pilot queue are ours
        )
        for (need, requirements, walltime), (count, since) in sorted(merged.items())
    )


def _runs_on(
    need: Resources, requirements: str, hosts: Sequence[tuple[Offer, Host]], verdicts: Verdicts
) -> frozenset[OfferKey]:
    return frozenset(
        offer.key
        for offer, host in hosts
        if offer.shape.resources.covers(need) and verdicts.judge(requirements, need, host) is not Verdict.NO
    )
