"""The sentences, word for word: their figures are what an operator acts on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gridtide.model.demand import NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.machines import MachineState, Quota
from gridtide.model.readings import Missing, Unconfirmed
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources
from gridtide.model.rules import QueuePolicy, Wishes
from gridtide.model.snapshot import Heartbeat, OfferHealth
from gridtide.model.workers import WorkerState
from tests.unit.planning.worlds import GRID, NOW, ONE_CORE, World, fresh, group, machine, node, row, site, stale, worker

S = WorkerState


def alone(state: WorkerState, age: float, **changes: object) -> World:
    return World(workers=[worker(state=state, since=NOW - age)]).but(**changes)


def beat(ago: float, running: int = 0) -> dict[str, Heartbeat]:
    return {"w1": Heartbeat(NOW - ago, running, 0.5, draining=False)}


@pytest.mark.parametrize(
    ("world", "text"),
    [
        (alone(S.INTENDED, 5), "recorded; its cloud is called next"),
        (alone(S.LAUNCHING, 5), "cloud private was called 5 s ago"),
        (alone(S.BOOTING, 100), "its machine boots; 100 s of 600 s to join are over"),
        (alone(S.BOOTING, 100, machines=[]), "cloud private does not list it; 100 s of 600 s to join are over"),
        (
            alone(S.BOOTING, 700, heartbeats=beat(20)),
            "it has not joined 700 s after its launch, but it was heard of 20 s ago: it is left alone",
        ),
        (
            alone(S.BOOTING, 700, nodes=[node(running=2)]),
            "it has not joined 700 s after its launch, but the queue attributes 2 running jobs to it: it is left alone",
        ),
        (alone(S.JOINED, 90, nodes=[node(running=1)]), "it runs 1 job"),
        (alone(S.JOINED, 90, nodes=[node(idle_since=NOW - 70)]), "idle for 70 s of 300 s"),
        (alone(S.JOINED, 90, nodes=[node(idle_since=NOW - 700)]), "idle for 90 s of 300 s"),
        (alone(S.JOINED, 90), "its queue does not list it: no sign of its end"),
        (
            alone(S.JOINED, 90, machines=[], nodes=[node()]),
            "cloud private does not list its machine: no sign of its end",
        ),
        (
            alone(S.JOINED, 700, nodes=[node(running=1)]),
            "not heard of for 700 s; its queue lists it: it is left alone",
        ),
        (
            alone(S.JOINED, 2000, nodes=[node(running=1)], heartbeats=beat(650)),
            "not heard of for 650 s; its queue lists it: it is left alone",
        ),
        (alone(S.JOINED, 90, nodes=[node(state=NodeState.UNAVAILABLE)]), "its queue lists it as unavailable"),
        (alone(S.JOINED, 90, nodes=[node()], heartbeats=beat(0, 3)), "it said 0 s ago that it runs 3 jobs"),
        (
            alone(S.JOINED, 90, nodes=[node(idle_since=NOW - 70)], demand=[row(1)]),
            "idle for 70 s; jobs wait that it can run",
        ),
        (
            alone(S.JOINED, 90, nodes=[node(idle_since=NOW - 70)], demand_reading=stale(())),
            "idle for 70 s, but queue pool, demand: connection refused",
        ),
        (
            alone(S.DRAINING, 50, nodes=[node(state=NodeState.DRAINING, running=2)]),
            "it drains (as the test says) and still runs 2 jobs",
        ),
        (
            alone(S.DRAINING, 50, nodes=[node(state=NodeState.DRAINING)]),
            "as the test says; a reading that lists it as drained and empty is awaited",
        ),
        (alone(S.DRAINED, 0.05), "it was drained; a new reading of its queue is awaited"),
        (
            alone(S.DRAINED, 50, nodes=[node(state=NodeState.DRAINED, running=1)]),
            "it was drained, but the queue attributes 1 running job to it",
        ),
        (
            alone(S.DRAINED, 50, nodes=[node(state=NodeState.UNAVAILABLE)]),
            "it was drained, but the queue lists it as unavailable",
        ),
        (
            alone(S.JOINED, 90, machines_reading=Missing("timed out", NOW - 90)),
            "cloud private: no answer on machines yet (timed out)",
        ),
        (
            alone(S.JOINED, 90, demand_reading=Missing("timed out", NOW - 90)),
            "queue pool: no answer on demand yet (timed out)",
        ),
    ],
)
def test_why_a_worker_is_as_it_is(world: World, text: str) -> None:
    assert world.why().text == text


@pytest.mark.parametrize(
    ("world", "texts"),
    [
        (
            alone(S.LAUNCHING, 90),
            ["cloud private lists no machine of it 90 s after the launch call", "no machine was made for it"],
        ),
        (alone(S.BOOTING, 700), ["it has not joined 700 s after its launch"] * 2),
        (
            alone(S.BOOTING, 90, machines=[machine(state=MachineState.BROKEN, message="no host")]),
            ["cloud private lists machine as broken: no host"] * 2,
        ),
        (
            alone(S.DRAINING, 90, nodes=[node(state=NodeState.DRAINED)]),
            ["the queue lists it as drained and attributes no job to it"] * 2,
        ),
        (alone(S.TERMINATING, 90, machines=[]), ["cloud private does not list its machine any more"]),
        (
            alone(S.TERMINATING, 90, machines=[machine(state=MachineState.GONE)]),
            ["cloud private lists its machine as gone"],
        ),
        (alone(S.LAUNCHING, 5, machines=[machine()]), ["cloud private lists machine m-w1 with its tag"]),
        (World(demand=[row(3)]), ["3 jobs waiting in queue pool that group grid can run"]),
        (World(demand=[row(1)]), ["1 job waiting in queue pool that group grid can run"]),
        (
            World(rules=site(group(minimum=2)), workers=[worker(state=S.INTENDED)]),
            ["group grid has 1 of 2 workers to be kept"],
        ),
        (alone(S.JOINED, 900, nodes=[node(idle_since=NOW - 310)]), ["idle for 310 s"]),
        (World(machines=[machine("old")]), ["cloud private lists it with the tag of old, which is gone"]),
    ],
)
def test_why_something_is_done(world: World, texts: list[str]) -> None:
    assert [action.reason.text for action in world.actions()] == texts


def test_every_action_of_a_dead_machine_says_what_speaks_against_it() -> None:
    dead = alone(S.JOINED, 900, machines=[machine(state=MachineState.STOPPED)], nodes=[node()], heartbeats=beat(10))
    assert dead.why().text == (
        "cloud private lists machine as stopped; but it has been silent for no more than 10 s of 30 s: it is left alone"
    )


@pytest.mark.parametrize(
    ("world", "cause", "text"),
    [
        (World(demand=[row(3)]), Cause.STARTING, "of 3 jobs 3 wait for workers on the way"),
        (
            World(rules=site(group(maximum=1)), demand=[row(5)]),
            Cause.AT_MAXIMUM,
            "of 5 jobs 2 wait for workers on the way and 3 have no place: "
            "group grid: 1 of at most 1 workers exist or start",
        ),
        (
            World(nodes=[node(None)], demand=[row(2)]),
            Cause.SATISFIED,
            "of 2 jobs 2 fit into what is free now",
        ),
        (
            World(rules=site(quota=Quota(memory=5000)), demand=[row(5)]),
            Cause.AT_QUOTA,
            "of 5 jobs 2 wait for workers on the way and 3 have no place: "
            "cloud private: 4096 of 5000 MiB of memory are used (0 by others), small needs 4096",
        ),
        (
            World(health={(None, "small"): OfferHealth(0, NOW + 42, "sold out")}, demand=[row(1)]),
            Cause.CLOUD_REFUSING,
            "of 1 job 1 have no place: cloud private refuses small: sold out (tried again in 42 s)",
        ),
        (
            World(demand=[row(1, Resources(1, 1024), runs_on=[], label=str(ONE_CORE))]),
            Cause.NO_SHAPE_FITS,
            "of 1 job 1 have no place: no shape of any group can run 1 core, 1 GiB memory: "
            "its requirements leave out all of them",
        ),
        (
            World(nodes_reading=Unconfirmed((), fresh(()), NOW - 1, NOW, "all are gone"), demand=[row(1)]),
            Cause.IMPLAUSIBLE,
            "queue pool, nodes: all are gone; a second reading is awaited",
        ),
        (
            World(wishes=Wishes(hold=True), demand=[row(1)]),
            Cause.HELD,
            "of 1 job 1 have no place: an operator holds group grid",
        ),
        (
            World(rules=site(group(policy=QueuePolicy(waiting_time=60.0))), demand=[row(1)]),
            Cause.DEBOUNCE,
            "of 1 job 1 have no place: waited for 0 s of 60 s",
        ),
    ],
)
def test_why_jobs_wait(world: World, cause: Cause, text: str) -> None:
    why = world.plan().why_demand[("pool", str(ONE_CORE))]
    assert (why.cause, why.text) == (cause, text)


@pytest.mark.parametrize(
    ("world", "cause", "text"),
    [
        (World(), Cause.SATISFIED, "group grid has 0 joined workers, and no job that it can run waits for want of one"),
        (
            World(demand=[row(3)]),
            Cause.DEMAND,
            "2 workers launched: 3 jobs waiting in queue pool that group grid can run",
        ),
        (alone(S.BOOTING, 10), Cause.STARTING, "1 worker of group grid on the way"),
        (
            alone(S.JOINED, 90, nodes=[node(running=1)], rules=site(group(minimum=1))),
            Cause.AT_MINIMUM,
            "group grid has 1 joined worker, its minimum is 1",
        ),
        (
            alone(S.JOINED, 90, nodes=[node(running=1)], wishes=Wishes(desired=1)),
            Cause.SATISFIED,
            "group grid has 1 joined worker, pinned at 1",
        ),
        (
            alone(S.DRAINING, 90, nodes=[node(state=NodeState.DRAINING)], demand=[row(1)]),
            Cause.LOAD_RETURNED,
            "1 drain taken back: jobs wait again",
        ),
        (
            alone(S.JOINED, 900, nodes=[node(idle_since=NOW - 310)]),
            Cause.IDLE,
            "1 worker given back: idle for 310 s",
        ),
        (World(wishes=Wishes(closing=True)), Cause.HELD, "an operator closes group grid"),
    ],
)
def test_why_a_group_is_as_it_is(world: World, cause: Cause, text: str) -> None:
    why = world.plan().why_group[GRID]
    assert (why.cause, why.text) == (cause, text)


def test_waiting_in_the_past_is_never_negative() -> None:
    late = World(health={(None, "small"): OfferHealth(0, NOW - 42, "sold out")}, demand=[row(1)])
    assert "tried again in 0 s" in late.plan().why_demand[("pool", str(ONE_CORE))].text


def test_no_error_is_known_though_nothing_is_allowed() -> None:
    zoned = World(zones=["z1"], health={("z1", "small"): OfferHealth(1, NOW, "sold out")}, demand=[row(9)])
    assert "sold out" in zoned.plan().why_demand[("pool", str(ONE_CORE))].text
    nowhere = World(zones=[], demand=[row(1)])
    assert "no more launches are allowed now" in nowhere.plan().why_demand[("pool", str(ONE_CORE))].text


def test_a_spared_stray_is_told_of() -> None:
    known = World(machines=[machine("old")], nodes=[node("old", running=1)])
    assert known.plan().why_worker[WorkerId("old")].text == (
        "machine m-old: it belongs to no worker of the store, but a queue lists it as accepting with 1 job"
    )


def test_a_busy_single_use_worker_of_a_failed_launch_is_told_of() -> None:
    failed = replace(worker(state=S.FAILED, cause=Cause.MACHINE_BROKEN), single_use=True)
    alive = World(workers=[failed], nodes=[node(running=1)])
    assert alive.why().text == ("it was given up (as the test says), but the queue attributes 1 running job to it")
