"""Machines that carry our tag and that no worker needs."""

from __future__ import annotations

import pytest

from gridtide.model.demand import Node, NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.machines import Machine, MachineState
from gridtide.model.readings import Missing
from gridtide.model.reasons import Cause
from gridtide.model.snapshot import CloudView, Heartbeat, QueueView
from gridtide.model.workers import WorkerState
from tests.unit.planning.worlds import NOW, World, brief, fresh, group, machine, node, site, stale, worker

M = MachineState
S = WorkerState


def lost(state: MachineState = M.RUNNING, nodes: list[Node] | None = None) -> World:
    return World(machines=[machine("old", state)], nodes=nodes or [])


@pytest.mark.parametrize("state", [M.STARTING, M.RUNNING, M.STOPPED, M.BROKEN, M.UNKNOWN])
def test_a_machine_of_a_worker_that_is_gone_is_ended(state: MachineState) -> None:
    assert brief(lost(state).actions()) == ["stray m-old stray"]


@pytest.mark.parametrize("state", [M.ENDING, M.GONE])
def test_what_ends_already_is_not_ended_again(state: MachineState) -> None:
    assert lost(state).actions() == ()


def test_machines_without_our_tag_are_never_touched() -> None:
    assert World(machines=[machine(None), machine(None, M.BROKEN, identity="b")]).actions() == ()


@pytest.mark.parametrize(("started", "ended"), [(NOW - 0.1, False), (NOW - 0.2, True)])
def test_only_readings_since_this_controller_leads_count(started: float, ended: bool) -> None:
    assert bool(lost().but(started=started).actions()) is ended


def test_only_fresh_readings_count() -> None:
    old = lost().but(machines_reading=stale((machine("old"),)))
    assert old.actions() == ()
    assert old.plan().why_worker[WorkerId("old")].cause is Cause.STRAY


def test_a_lost_store_kills_nothing_that_a_queue_knows() -> None:
    """All workers are unknown: what a queue lists as accepting, draining or running is left alone, and said so."""
    for seen in (
        node("old"),
        node("old", NodeState.DRAINING),
        node("old", NodeState.UNAVAILABLE),
        node("old", NodeState.DRAINED, running=1),
    ):
        known = lost(nodes=[seen])
        assert known.actions() == ()
        why = known.plan().why_worker[WorkerId("old")]
        assert why.cause is Cause.STRAY
        assert "store" in why.text
    assert brief(lost(nodes=[node("old", NodeState.DRAINED)]).actions()) == ["stray m-old stray"]


def test_a_queue_that_cannot_be_asked_may_know_it() -> None:
    assert lost().but(nodes_reading=stale(())).actions() == ()
    other = QueueView(fresh(()), Missing("refused", NOW - 900))
    assert lost().but(queues={"second": other}).actions() == ()


@pytest.mark.parametrize(("at", "ended"), [(NOW, False), (NOW - 0.1, True)])
def test_a_worker_that_was_heard_of_is_left_alone(at: float, ended: bool) -> None:
    heard = lost().but(heartbeats={"old": Heartbeat(at, 0, 0.0, draining=False)})
    assert bool(heard.actions()) is ended


def double(state: WorkerState, second: MachineState = M.RUNNING, *, running: int = 0) -> World:
    machines: list[Machine] = [machine(), machine(identity="second", state=second)]
    nodes = [node(running=running)] if state is S.JOINED else []
    return World(workers=[worker(state=state, since=NOW - 60)], machines=machines, nodes=nodes)


@pytest.mark.parametrize("state", [S.LAUNCHING, S.BOOTING, S.JOINED, S.DRAINING])
def test_a_second_machine_of_a_living_worker_may_be_the_one_that_works(state: WorkerState) -> None:
    assert not [line for line in brief(double(state).actions()) if line.startswith("stray")]


@pytest.mark.parametrize("second", [M.BROKEN, M.STOPPED])
@pytest.mark.parametrize("state", [S.BOOTING, S.JOINED])
def test_a_second_machine_that_can_run_nothing_is_ended(state: WorkerState, second: MachineState) -> None:
    assert brief(double(state, second).actions()) == ["stray second double"]


def test_but_not_while_the_worker_runs_jobs() -> None:
    assert double(S.JOINED, M.BROKEN, running=1).actions() == ()


def test_both_end_with_their_worker() -> None:
    assert brief(double(S.TERMINATING).actions()) == ["terminate w1 terminating launched", "stray second double"]
    failed = World(
        workers=[worker(state=S.FAILED, cause=Cause.NEVER_JOINED)],
        machines=[machine(), machine(identity="second")],
    )
    assert brief(failed.actions()) == ["terminate w1 failed never-joined", "stray second double"]


def test_a_second_machine_is_ended_only_on_a_fresh_listing() -> None:
    machines = (machine(), machine(identity="second"))
    old = World(workers=[worker(state=S.TERMINATING)], machines_reading=stale(machines))
    assert brief(old.actions()) == ["terminate w1 terminating launched"]


def test_a_second_machine_that_ends_already_is_not_ended_again() -> None:
    for state in (M.ENDING, M.GONE):
        assert brief(double(S.TERMINATING, state).actions()) == ["terminate w1 terminating launched"]


def test_a_machine_in_another_cloud_is_a_double_too() -> None:
    there = CloudView(fresh((machine(identity="there"),)), fresh(()))
    rules = site(group(clouds=("private", "burst")))
    living = World(rules=rules, workers=[worker(state=S.BOOTING, since=NOW - 9)], clouds={"burst": there})
    assert living.actions() == ()
    over = living.but(workers=[worker(state=S.TERMINATING)], machines=[machine()])
    assert brief(over.actions()) == ["terminate w1 terminating launched", "stray there double"]
    only_there = living.but(workers=[worker(state=S.TERMINATING)], machines=[])
    assert brief(only_there.actions()) == ["w1 terminating->gone confirmed-gone", "stray there double"]


def test_strays_come_in_order() -> None:
    many = World(machines=[machine("b"), machine("a", identity="2"), machine("a", identity="1")])
    assert brief(many.actions()) == ["stray 1 stray", "stray 2 stray", "stray m-b stray"]
