"""One worker on request: the limits of every launch, and no demand."""

from __future__ import annotations

import pytest

from gridtide.model.actions import Launch
from gridtide.model.ids import GroupName
from gridtide.model.machines import Quota
from gridtide.model.readings import Missing
from gridtide.model.reasons import Cause, Reason
from gridtide.model.rules import Wishes
from gridtide.model.workers import WorkerState
from gridtide.planning.spawning import plan_resume, plan_spawn
from tests.unit.planning.worlds import GRID, NOW, World, group, machine, site, stale, worker


def spawn(world: World) -> Launch | Reason:
    return plan_spawn(world.snapshot(), world.rules, GRID)


def test_one_single_use_worker_of_the_first_shape_with_room() -> None:
    made = spawn(World(rules=site(group(shapes=("large", "small"), clouds=("nowhere", "private")))))
    assert isinstance(made, Launch)
    assert (made.group, made.cloud, made.shape.name, made.count, made.single_use) == (GRID, "private", "large", 1, True)
    assert made.reason.cause is Cause.DEMAND
    small = spawn(World(rules=site(group(shapes=("large", "small")), quota=Quota(cores=4))))
    assert isinstance(small, Launch)
    assert small.shape.name == "small"


@pytest.mark.parametrize(
    ("world", "cause", "words"),
    [
        (World(wishes=Wishes(hold=True)), Cause.HELD, "an operator holds group grid"),
        (World(wishes=Wishes(closing=True)), Cause.HELD, "an operator closes group grid"),
        (World(nodes_reading=Missing("refused", NOW)), Cause.NO_EVIDENCE, "refused"),
        (World(machines_reading=stale(())), Cause.NO_EVIDENCE, "connection refused"),
        (World(wishes=Wishes(maximum=0)), Cause.AT_MAXIMUM, "0 of at most 0 workers"),
        (World(shapes=()), Cause.NO_SHAPE_FITS, "group grid has nothing to launch"),
        (
            World(rules=site(quota=Quota(machines=1)), machines=[machine(None)]),
            Cause.AT_QUOTA,
            "1 of 1 machines are used (1 by others)",
        ),
    ],
)
def test_or_why_there_can_be_none(world: World, cause: Cause, words: str) -> None:
    refused = spawn(world)
    assert isinstance(refused, Reason)
    assert refused.cause is cause
    assert words in refused.text


def test_workers_that_exist_count() -> None:
    world = World(rules=site(group(maximum=1)), workers=[worker(state=WorkerState.INTENDED)])
    assert isinstance(spawn(world), Reason)


def test_an_unknown_group() -> None:
    with pytest.raises(KeyError):
        plan_spawn(World().snapshot(), site(), GroupName("other"))


def test_as_many_as_asked_for_or_as_there_is_room_for() -> None:
    world = World(rules=site(group(maximum=4)))
    for asked, made in ((2, 2), (100, 4)):
        launches, why = plan_resume(world.snapshot(), world.rules, GRID, asked)
        assert sum(launch.count for launch in launches) == made
        assert not any(launch.single_use for launch in launches)
    assert why.cause is Cause.AT_MAXIMUM


def test_nothing_is_resumed_while_an_operator_holds_the_group() -> None:
    world = World(wishes=Wishes(hold=True))
    held = Reason(Cause.HELD, "an operator holds group grid")
    assert plan_resume(world.snapshot(), world.rules, GRID, 1) == ([], held)
