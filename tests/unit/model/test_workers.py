"""The transition table, as a total matrix: every pair of states is either legal with a reason, or illegal."""

from __future__ import annotations

import pytest

from gridtide.model.workers import HOLDS_MACHINE, MAY_JOIN, MAY_RUN_JOBS, TRANSITIONS, WorkerState, may

STATES = (
    WorkerState.INTENDED,
    WorkerState.LAUNCHING,
    WorkerState.BOOTING,
    WorkerState.JOINED,
    WorkerState.DRAINING,
    WorkerState.DRAINED,
    WorkerState.FAILED,
    WorkerState.TERMINATING,
    WorkerState.GONE,
)

# One line for each state before, one column for each state after, in the order above.
MATRIX = {
    WorkerState.INTENDED: ". L . . . . . . G",
    WorkerState.LAUNCHING: ". . B J . . F . .",
    WorkerState.BOOTING: ". . . J . . F T .",
    WorkerState.JOINED: ". . . . D . F T .",
    WorkerState.DRAINING: ". . . J . D F T .",
    WorkerState.DRAINED: ". . . J . . . T .",
    WorkerState.FAILED: ". . . . . . . T G",
    WorkerState.TERMINATING: ". . . . . . . . G",
    WorkerState.GONE: ". . . . . . . . .",
}

CASES = [
    (before, after, letter != ".")
    for before, line in MATRIX.items()
    for after, letter in zip(STATES, line.split(), strict=True)
]


def test_the_matrix_is_total() -> None:
    assert set(STATES) == set(WorkerState)
    assert len(CASES) == 81


@pytest.mark.parametrize(("before", "after", "legal"), CASES)
def test_each_pair_of_states(before: WorkerState, after: WorkerState, legal: bool) -> None:
    assert may(before, after) is legal
    assert ((before, after) in TRANSITIONS) is legal
    if legal:
        assert len(TRANSITIONS[(before, after)]) > 20, "every edge says what justifies it"


def test_gone_is_final_and_everything_else_leads_there() -> None:
    reach = {WorkerState.GONE}
    for _ in STATES:
        reach |= {before for before, after in TRANSITIONS if after in reach}
    assert reach == set(WorkerState)
    assert not [after for before, after in TRANSITIONS if before is WorkerState.GONE]


def test_only_an_operator_leads_from_running_jobs_to_termination() -> None:
    for state in MAY_RUN_JOBS:
        assert "operator forced" in TRANSITIONS[(state, WorkerState.TERMINATING)]


def test_sets_of_states() -> None:
    assert set(WorkerState) - {WorkerState.GONE} == HOLDS_MACHINE
    assert {WorkerState.LAUNCHING, WorkerState.BOOTING} == MAY_JOIN
    assert {WorkerState.JOINED, WorkerState.DRAINING} == MAY_RUN_JOBS
    assert all(may(state, WorkerState.JOINED) for state in MAY_JOIN)


def test_states_are_spelled_as_they_are_stored() -> None:
    assert [str(state) for state in STATES] == [
        "intended",
        "launching",
        "booting",
        "joined",
        "draining",
        "drained",
        "failed",
        "terminating",
        "gone",
    ]
