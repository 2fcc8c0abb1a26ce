"""Readings, reasons, offers and defaults: what others build on without looking."""

from __future__ import annotations

import dataclasses

import pytest

from gridtide.model import actions, demand, machines, readings, reasons, resources, rules, snapshot, workers
from gridtide.model.demand import Offer
from gridtide.model.ids import GroupName, ShapeName
from gridtide.model.readings import Fresh, Missing, Reading, Stale, Unconfirmed, fresh, last_known
from gridtide.model.reasons import Cause, Reason
from gridtide.model.resources import Resources, Shape

GOOD = Fresh("old", 1.0, 2.0)


@pytest.mark.parametrize(
    ("reading", "evidence", "known"),
    [
        (GOOD, GOOD, GOOD),
        (Unconfirmed("new", GOOD, 3.0, 4.0, "all gone"), None, GOOD),
        (Stale(GOOD, "refused", 3.0), None, GOOD),
        (Missing("not read yet", 0.0), None, None),
    ],
)
def test_what_each_reading_may_be_used_for(
    reading: Reading[str], evidence: Fresh[str] | None, known: Fresh[str] | None
) -> None:
    assert fresh(reading) is evidence
    assert last_known(reading) is known


def test_a_reason_reads_as_one_line() -> None:
    assert str(Reason(Cause.AT_MAXIMUM, "5 of 5")) == "at-maximum: 5 of 5"


def test_causes_are_spelled_alike_and_once() -> None:
    assert all(cause.value == cause.name.lower().replace("_", "-") for cause in Cause)


def test_an_offer_is_known_by_group_and_shape() -> None:
    offer = Offer(GroupName("grid"), Shape(ShapeName("small"), Resources(1)), {})
    assert offer.key == ("grid", "small")


def test_defaults_of_the_rules() -> None:
    queue = rules.QueuePolicy()
    assert (queue.threshold, queue.waiting_time, queue.jobs_per_worker) == (0, 0.0, None)
    assert (queue.idle_for, queue.deploy_time) == (300.0, None)
    assert rules.PerJobPolicy().idle_for == 300.0
    assert rules.Wishes() == rules.Wishes(None, None, None, hold=False, closing=False)
    assert rules.SiteRules("s", {}, {}, ()).warmup == 60.0
    assert rules.GroupRules.__dataclass_fields__["join_deadline"].default is None
    assert rules.GroupRules.__dataclass_fields__["lease"].default == 600.0
    assert machines.Quota() == machines.Quota(cores=None, memory=None, machines=None)
    assert Shape(ShapeName("s"), Resources(1)).price == 0.0
    assert actions.Plan() == actions.Plan((), {}, {}, {}, {}, None, {})
    assert snapshot.GroupMemory().waiting_since is None


ROOMS = (actions, demand, machines, readings, reasons, resources, rules, snapshot, workers)
VALUES = sorted(
    {
        kind
        for room in ROOMS
        for kind in vars(room).values()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type)
    },
    key=lambda kind: kind.__qualname__,
)


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__qualname__)
def test_values_do_not_change(kind: type) -> None:
    parameters = kind.__dataclass_params__  # type: ignore[attr-defined]
    assert parameters.frozen
    assert parameters.eq
