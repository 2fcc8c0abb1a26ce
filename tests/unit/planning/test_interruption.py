"""A cloud that says it will take a machine away: its worker takes no more jobs, and another is launched for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gridtide.model.demand import DemandRow, NodeState
from gridtide.model.reasons import Cause
from gridtide.model.workers import Worker, WorkerState
from tests.unit.planning.worlds import NOW, World, brief, group, machine, node, row, site, stale, worker

S = WorkerState
N = NodeState


def world(
    subject: Worker,
    state: NodeState,
    *,
    running: int = 0,
    demand: Sequence[DemandRow] = (),
    notice: str = "marked for termination",
) -> World:
    return World(
        rules=site(group()),
        workers=[subject],
        nodes=[node("w1", state, running=running, idle_since=NOW - 1.0)],
        machines=[replace(machine("w1"), notice=notice)],
        demand=demand,
    )


@pytest.mark.parametrize("running", [0, 1])
def test_it_drains_at_once(running: int) -> None:
    doomed = world(worker(state=S.JOINED), N.ACCEPTING, running=running)
    assert brief(doomed.actions()) == ["drain w1 interrupted"]
    assert "marked for termination" in doomed.why().text


def test_without_notice_it_stays() -> None:
    assert world(worker(state=S.JOINED), N.ACCEPTING, notice="").actions() == ()


def test_an_old_listing_drains_nothing() -> None:
    doomed = world(worker(state=S.JOINED), N.ACCEPTING)
    assert doomed.machines is not None
    old = doomed.but(machines_reading=stale(tuple(doomed.machines)))
    assert "interrupted" not in str(brief(old.actions()))


def test_what_it_would_have_run_gets_another_machine() -> None:
    doomed = world(worker(state=S.JOINED), N.ACCEPTING, demand=[row(2)])
    assert [action.split()[0] for action in brief(doomed.actions())] == ["drain", "launch"]


@pytest.mark.parametrize(("notice", "recalled"), [("", True), ("marked for termination", False)])
@pytest.mark.parametrize("cause", [Cause.IDLE, Cause.INTERRUPTED])
def test_load_does_not_take_it_back(notice: str, recalled: bool, cause: Cause) -> None:
    draining = worker(state=S.DRAINING, since=NOW - 5, cause=cause)
    busy = world(draining, N.DRAINING, demand=[row(2)], notice=notice)
    took_back = any(action.startswith("undrain") for action in brief(busy.actions()))
    assert took_back is (recalled and cause is Cause.IDLE)
