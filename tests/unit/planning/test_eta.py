"""How long a job submitted now would wait, or what is in the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from gridtide.model.boots import BootKey, BootTimes
from gridtide.model.machines import Quota
from gridtide.model.readings import Missing
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources
from gridtide.model.rules import FixedPolicy, QueuePolicy, SiteRules, Wishes
from gridtide.model.snapshot import GroupMemory, OfferHealth
from gridtide.model.workers import WorkerState
from gridtide.planning.eta import Eta, eta_of
from tests.unit.planning.worlds import (
    BURST,
    CLOUD,
    GRID,
    LARGE,
    NOW,
    SMALL,
    World,
    group,
    node,
    row,
    site,
    stale,
    worker,
)

TIMES = BootTimes(12, 20.0, 30.0, 5.0, 30.0)
SAME = BootKey(CLOUD, SMALL.name, "thin")


def thin(rules: SiteRules | None = None) -> SiteRules:
    """The group's machines boot from image thin."""
    rules = rules or site()
    return replace(rules, groups={name: replace(each, image="thin") for name, each in rules.groups.items()})


def ask(world: World, known: Mapping[BootKey, BootTimes] | None = None) -> Eta:
    snapshot = replace(world.snapshot(), boot_times=known if known is not None else {SAME: TIMES})
    return eta_of(snapshot, world.rules, GRID)


CALM = World(rules=thin())


def test_a_new_machine_takes_as_long_as_its_like_did() -> None:
    found = ask(CALM)
    assert (found.cloud, found.shape, found.median, found.p95) == (CLOUD, SMALL.name, 20.0, 30.0)
    assert (found.free, found.waiting, found.obstacle, found.patience) == (False, 0, None, 0.0)
    assert found.known is not None
    assert (found.known.key, found.known.times) == (SAME, TIMES)


def test_nothing_is_made_up_where_nothing_has_joined() -> None:
    only_in_vain = {SAME: BootTimes(0, None, None, None, 600.0)}
    for known in ({}, only_in_vain):
        found = ask(CALM, known)
        assert (found.known, found.median, found.p95, found.obstacle) == (None, None, None, None)
        assert found.shape == SMALL.name


@pytest.mark.parametrize("key", [BootKey(CLOUD, None, "thin"), BootKey(CLOUD, None, None)])
def test_less_alike_boots_are_better_than_none_and_are_named(key: BootKey) -> None:
    found = ask(CALM, {key: TIMES})
    assert found.known is not None
    assert (found.known.key, found.median) == (key, 20.0)


def test_boots_of_another_cloud_say_nothing() -> None:
    assert ask(CALM, {BootKey(BURST, SMALL.name, "thin"): TIMES}).known is None


def test_a_free_core_takes_it_at_once() -> None:
    busy_in_part = node(running=1, free=Resources(1, 1024))
    for held in (node(), busy_in_part):
        found = ask(CALM.but(workers=[worker()], nodes=[held]))
        assert (found.free, found.median, found.p95) == (True, 0.0, 0.0)
    hold = ask(CALM.but(workers=[worker()], nodes=[node()], wishes=Wishes(hold=True)))
    assert (hold.free, hold.median) == (True, 0.0), "who is held takes jobs all the same"


@pytest.mark.parametrize(
    "changes",
    [
        {"nodes": [node(running=2)]},
        {"nodes": [node()], "demand": [row(1)]},
        {"nodes": [node(None)]},
        {"nodes": [node()], "workers": [worker(drain_wanted=True)]},
        {"nodes": [node()], "workers": [worker(state=WorkerState.DRAINING)]},
        {"nodes_reading": stale((node(),))},
        {"nodes": [node()], "demand_reading": stale(())},
    ],
    ids=["busy", "jobs come first", "not ours", "drain wanted", "draining", "old list of nodes", "old demand"],
)
def test_what_is_not_surely_free_is_not(changes: dict[str, object]) -> None:
    assert not ask(CALM.but(**{"workers": [worker()], **changes})).free


def test_jobs_that_come_first_are_told() -> None:
    assert ask(CALM.but(demand=[row(3), row(2, runs_on=(("other", "small"),))])).waiting == 3
    assert ask(CALM.but(demand_reading=stale((row(3),)))).waiting is None


@pytest.mark.parametrize(
    ("world", "cause", "words"),
    [
        (CALM.but(wishes=Wishes(hold=True)), Cause.HELD, "an operator holds group grid"),
        (CALM.but(wishes=Wishes(closing=True)), Cause.HELD, "an operator closes group grid"),
        (CALM.but(wishes=Wishes(maximum=0)), Cause.AT_MAXIMUM, "0 of at most 0 workers"),
        (CALM.but(wishes=Wishes(desired=2)), Cause.AT_MAXIMUM, "pinned at 2 workers"),
        (CALM.but(rules=thin(site(group(policy=FixedPolicy(3))))), Cause.AT_MAXIMUM, "pinned at 3 workers"),
        (CALM.but(rules=thin(site(quota=Quota(machines=0)))), Cause.AT_QUOTA, "0 of 0 machines"),
        (CALM.but(health={(None, "small"): OfferHealth(0, NOW + 9, "sold out")}), Cause.CLOUD_REFUSING, "sold out"),
        (CALM.but(machines_reading=stale(())), Cause.NO_EVIDENCE, "connection refused"),
        (CALM.but(nodes_reading=stale(())), Cause.NO_EVIDENCE, "queue pool, nodes"),
        (CALM.but(demand_reading=Missing("refused", NOW)), Cause.NO_EVIDENCE, "refused"),
        (CALM.but(shapes_reading=Missing("refused", NOW)), Cause.NO_EVIDENCE, "no answer on shapes yet"),
        (CALM.but(shapes=()), Cause.NO_SHAPE_FITS, "nothing to launch"),
        (
            CALM.but(rules=thin(site(group(policy=QueuePolicy(threshold=2))))),
            Cause.BELOW_THRESHOLD,
            "1 waiting, more than 2 start workers",
        ),
    ],
)
def test_what_is_in_the_way_stands_instead_of_a_figure(world: World, cause: Cause, words: str) -> None:
    found = ask(world)
    assert found.obstacle is not None
    assert found.obstacle.cause is cause
    assert words in found.obstacle.text
    assert (found.free, found.median, found.p95) == (False, None, None)


def test_the_first_shape_with_room_is_the_one_that_would_be_launched() -> None:
    rules = thin(site(group(shapes=("large", "small"), clouds=("private",))))
    sold_out: dict[tuple[str | None, str], OfferHealth] = {(None, "large"): OfferHealth(0, NOW + 60, "sold out")}
    assert ask(World(rules=rules)).shape == LARGE.name
    found = ask(World(rules=rules, health=sold_out))
    assert (found.shape, found.obstacle) == (SMALL.name, None)


def test_the_patience_of_the_policy_is_part_of_the_wait() -> None:
    patient = CALM.but(rules=thin(site(group(policy=QueuePolicy(waiting_time=100.0)))))
    assert (ask(patient).patience, ask(patient).median) == (100.0, 120.0)
    begun = patient.but(demand=[row(1)], memory=GroupMemory(waiting_since=NOW - 60))
    assert (ask(begun).patience, ask(begun).p95) == (40.0, 70.0)


def test_an_unknown_group() -> None:
    with pytest.raises(KeyError):
        eta_of(CALM.snapshot(), replace(CALM.rules, groups={}), GRID)
