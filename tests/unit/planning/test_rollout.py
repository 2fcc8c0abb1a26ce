"""Workers of an older generation are replaced a few at a time."""

from __future__ import annotations

import pytest

from gridtide.model.demand import NodeState
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources
from gridtide.model.rules import Wishes
from gridtide.model.workers import WorkerState
from tests.unit.planning.worlds import GRID, NOW, World, brief, group, node, row, site, worker


def busy(number: int, *, leaving: int = 0, **changes: object) -> World:
    """So many full workers, all of an older generation, and some that are drained for it already. Room for more."""
    names = [f"w{each:02}" for each in range(number)]
    drained = [f"d{each}" for each in range(leaving)]
    world = World(
        rules=site(group(maximum=100)),
        workers=[
            *(worker(name, generation="g0") for name in names),
            *(worker(name, WorkerState.DRAINING, cause=Cause.OVER_OLD, generation="g0") for name in drained),
        ],
        nodes=[
            *(node(name, running=2) for name in names),
            *(node(name, NodeState.DRAINING, running=2) for name in drained),
        ],
    )
    return world.but(**changes)


@pytest.mark.parametrize(("workers", "leaving", "launched"), [(1, 0, 1), (10, 1, 1), (11, 1, 2), (40, 4, 4)])
def test_where_none_can_be_spared_a_tenth_is_launched_beside(workers: int, leaving: int, launched: int) -> None:
    assert brief(busy(workers, leaving=leaving).actions()) == [f"launch {launched} grid private small over-old"]


def test_no_more_while_replacements_are_on_the_way() -> None:
    world = busy(40, leaving=4)
    coming = worker("x", WorkerState.BOOTING, since=NOW - 9)
    assert brief(world.but(workers=[*world.workers, coming]).actions()) == []
    waiting = world.but(demand=[row(1)])
    assert brief(waiting.actions()) == ["launch 1 grid private small demand"]
    old = worker("x", WorkerState.BOOTING, since=NOW - 9, generation="g0")
    assert brief(world.but(workers=[*world.workers, old]).actions()) == ["launch 4 grid private small over-old"]


def test_workers_are_drained_for_age_as_far_as_a_tenth_can_be_spared() -> None:
    world = busy(20)
    idle = [f"i{each}" for each in range(4)]
    spare = world.but(
        workers=[*world.workers, *(worker(name) for name in idle)],
        nodes=[*world.nodes, *(node(name) for name in idle)],
    )
    decided = spare.plan()
    drained = [line for line in brief(decided.actions) if line.startswith("drain")]
    # 48 cores, of which 40 are wanted: 36 have to stay
    assert drained == [f"drain w0{each} over-old" for each in range(6)]
    rollout = decided.rollouts[GRID]
    assert (rollout.present, rollout.over_old, rollout.capacity, rollout.wanted) == (4, 20, 36, 40)


def test_idle_ones_go_first() -> None:
    world = World(
        rules=site(group(maximum=100)),
        workers=[worker("a", generation="g0"), worker("b", generation="g0"), worker("c")],
        nodes=[node("a", running=1, free=Resources(1, 1024)), node("b"), node("c", running=2)],
    )
    assert brief(world.actions())[0] == "drain b over-old"


def test_none_is_drained_that_its_queue_does_not_list_as_accepting() -> None:
    world = busy(1)
    assert brief(world.but(nodes=[node("w00", NodeState.UNAVAILABLE, running=2)]).actions()) == []


def test_an_operator_may_pause_it() -> None:
    decided = busy(20, wishes=Wishes(rollout_paused=True)).plan()
    assert brief(decided.actions) == []
    assert "paused" in decided.rollouts[GRID].why.text


def test_a_pinned_group_may_have_its_replacements_for_a_while() -> None:
    new = worker("x")

    def causes(old: int) -> list[str]:
        world = busy(old, wishes=Wishes(desired=10))
        grown = world.but(workers=[*world.workers, new], nodes=[*world.nodes, node("x", running=2)])
        return [line.rpartition(" ")[2] for line in brief(grown.actions())]

    assert causes(old=10) == ["over-old", "over-old"]  # eleven: the new one stands in for an older one
    assert causes(old=12) == ["surplus", "surplus", "over-old", "over-old"]
