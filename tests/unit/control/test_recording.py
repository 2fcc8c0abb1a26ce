"""What a plan becomes, when the workers have moved on since."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gridtide.control.recording import Recorder
from gridtide.model.actions import Action, Advance, Drain, Terminate, Undrain
from gridtide.model.reasons import Cause, Reason
from gridtide.model.workers import Worker, WorkerState
from tests.unit.planning.worlds import NOW, World, site, worker

WHY = Reason(Cause.DRAINED_EMPTY, "it is empty")
DRAINING, DRAINED = WorkerState.DRAINING, WorkerState.DRAINED


def recorded(action: Action, planned: Worker, present: Worker) -> int:
    """How many changes come of an action that was planned for a worker as it was."""
    world = World(rules=site(), workers=[planned])
    recorder = Recorder(
        world.snapshot(),
        world.rules,
        {present.id: present},
        now=NOW,
        new_id=lambda group: planned.id,
        known_strays=(),
    )
    recorder.take(action)
    return len(recorder.record.changes)


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (DRAINING, Advance(worker("w").id, DRAINING, DRAINED, WHY)),
        (DRAINING, Undrain(worker("w").id, WHY)),
        (DRAINED, Terminate(worker("w").id, DRAINED, WHY)),
        (WorkerState.JOINED, Drain(worker("w").id, WHY)),
    ],
)
def test_what_was_planned_for_a_worker_that_is_another_by_now_is_dropped(state: WorkerState, action: Action) -> None:
    """It may have been taken back, have begun a job, and be in the same state again."""
    planned = worker("w", state, since=NOW - 10)
    assert recorded(action, planned, planned) == 2
    assert recorded(action, planned, replace(planned, since=NOW - 1)) == 0
    assert recorded(action, planned, replace(planned, drain_wanted=True)) == 0
