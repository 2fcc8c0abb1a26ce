"""Room on trial: a group whose idle machines are not given the jobs gets no more of them for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.demand import DemandRow, Node
from gridtide.model.ids import GroupName
from gridtide.model.readings import Stale
from gridtide.model.reasons import Cause
from gridtide.model.resources import Resources
from gridtide.model.snapshot import QueueMemory, Snapshot, Trial, TrialKey
from gridtide.planning import plan
from gridtide.planning.trials import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE, judge
from tests.unit.planning.worlds import GRID, NOW, ONE_CORE, POOL, World, brief, fresh, node, row, worker

LABEL = "odd"
KEY: TrialKey = (LABEL, GRID)
OTHERS: TrialKey = (LABEL, None)


def odd(count: int, since: float = NOW - 5000) -> DemandRow:
    return replace(row(count, label=LABEL), oldest_since=since)


def idle(count: int = 1, seconds: float = 200.0) -> World:
    """Workers that are idle while odd jobs wait."""
    names = [f"w{number}" for number in range(count)]
    nodes = [node(name, idle_since=NOW - seconds) for name in names]
    return World(workers=[worker(name) for name in names], nodes=nodes, demand=[odd(5)])


def after(world: World, trial: Trial | None, key: TrialKey = KEY) -> Snapshot:
    memory = QueueMemory({} if trial is None else {key: trial})
    return replace(world.snapshot(), queue_memory={POOL: memory})


def next_trial(world: World, trial: Trial | None, key: TrialKey = KEY) -> Trial | None:
    return plan(after(world, trial, key), world.rules).queue_memory[POOL].trials.get(key)


def on_trial(since: float = NOW - PATIENCE, count: int = 5, oldest: float = NOW - 5000) -> Trial:
    return Trial(since, count, oldest)


def failed(until: float, failures: int = 1, count: int = 5) -> Trial:
    return Trial(NOW - 10, count, NOW - 5000, failures, until)


def test_idle_room_for_waiting_jobs_begins_a_trial() -> None:
    assert next_trial(idle(), None) == Trial(NOW, 5, NOW - 5000)
    assert next_trial(idle().but(nodes=[node("w0", running=1)]), None) is None
    assert next_trial(idle().but(demand=[]), None) is None


def test_room_that_is_not_taken_for_long_fails_it() -> None:
    trial = next_trial(idle(), on_trial())
    assert trial == Trial(NOW, 5, NOW - 5000, 1, NOW + FIRST_PAUSE)
    assert next_trial(idle(), on_trial(NOW - PATIENCE + 1)) == on_trial(NOW - PATIENCE + 1)
    assert next_trial(idle(seconds=PATIENCE - 1), on_trial()) == on_trial(), "no machine has been idle for as long"


def test_each_failure_doubles_the_pause_up_to_the_longest() -> None:
    pauses = []
    for failures in range(1, 8):
        trial = next_trial(idle(), Trial(NOW - PATIENCE, 5, NOW - 5000, failures, NOW - PATIENCE))
        assert trial is not None
        assert trial.until is not None
        assert trial.failures == failures + 1
        pauses.append(trial.until - NOW)
    assert pauses == [min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) for number in range(1, 8)]


def test_a_start_on_a_worker_of_the_group_begins_it_anew() -> None:
    busy = idle(2).but(nodes=[node("w0", idle_since=NOW - 900), node("w1", running=1)])
    assert next_trial(busy, on_trial(count=6)) == Trial(NOW, 5, NOW - 5000)
    assert next_trial(busy, on_trial(oldest=NOW - 6000)) == Trial(NOW, 5, NOW - 5000)
    assert next_trial(idle(), on_trial(count=6)) != Trial(NOW, 5, NOW - 5000), "nothing of it runs anything"


def test_a_barred_group_launches_nothing_for_these_jobs_and_says_so() -> None:
    world = World(demand=[odd(5)])
    decided = plan(after(world, failed(NOW + 300)), world.rules)
    assert decided.actions == ()
    why = decided.why_demand[(POOL, LABEL)]
    assert why.cause is Cause.NOT_TAKEN
    assert "one is tried there in 300 s" in why.text
    assert decided.why_group[GRID].cause is Cause.NOT_TAKEN
    assert decided.look_again == NOW + 300
    assert plan(after(idle().but(demand=[odd(2)]), on_trial(NOW - 20)), world.rules).look_again == NOW + PATIENCE - 20


def test_idle_workers_are_not_kept_for_jobs_that_they_are_not_given() -> None:
    world = idle(seconds=400.0).but(demand=[odd(2)])
    assert world.actions() == (), "kept: jobs wait"
    assert brief(plan(after(world, failed(NOW + 300)), world.rules).actions) == ["drain w0 idle"]


def test_other_jobs_are_served_by_the_group_all_the_same() -> None:
    world = World(demand=[odd(5), row(2)])
    decided = plan(after(world, failed(NOW + 300)), world.rules)
    assert brief(decided.actions) == ["launch 1 grid private small demand"]


def test_after_the_pause_one_job_is_tried() -> None:
    world = World(demand=[odd(5)])
    decided = plan(after(world, failed(NOW - 1)), world.rules)
    assert brief(decided.actions) == ["launch 1 grid private small demand"]
    assert decided.why_demand[(POOL, LABEL)].cause is Cause.NOT_TAKEN
    assert "one is being tried" in decided.why_demand[(POOL, LABEL)].text


def test_a_start_while_barred_ends_the_pause_and_one_on_trial_forgets_it() -> None:
    busy = idle(2).but(nodes=[node("w0", idle_since=NOW - 900), node("w1", running=1)])
    early = next_trial(busy, failed(NOW + 300, count=6))
    assert early is not None
    assert (early.failures, early.until) == (1, NOW)
    assert next_trial(busy, failed(NOW - 1, count=6)) == Trial(NOW, 5, NOW - 5000)


@pytest.mark.parametrize(
    ("until", "running", "kept"), [(NOW + 300, 0, True), (NOW - 1, 0, False), (NOW + 300, 1, False)]
)
def test_when_the_jobs_are_gone(until: float, running: int, kept: bool) -> None:
    world = idle().but(demand=[], nodes=[node("w0", running=running)])
    assert (next_trial(world, failed(until)) is not None) is kept


def test_without_fresh_readings_nothing_is_concluded_and_no_failure_forgotten() -> None:
    world = idle()
    blind = world.but(nodes_reading=Stale(fresh(tuple(world.nodes)), "refused", NOW - 60))
    assert next_trial(blind, on_trial()) is None
    kept = next_trial(blind, failed(NOW + 300))
    assert kept is not None
    assert (kept.failures, kept.until) == (1, NOW + 300)


# --- nodes of others


def other(kind: str | None = "farm", cores: int = 2, running: int = 0, host: str = "f1") -> Node:
    made = node(None, running=running, free=Resources(cores, 4096), total=Resources(2, 4096), host=host)
    return replace(made, kind=kind)


def on_farm(count: int, kinds: Sequence[str] | None, **more: object) -> DemandRow:
    row_ = replace(odd(count), node_kinds=None if kinds is None else frozenset(kinds))
    return replace(row_, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kinds", "kind", "launches"),
    [
        (None, "farm", 0),
        (None, None, 0),
        (["farm"], "farm", 0),
        (["desk"], "farm", 1),
        ([], "farm", 1),
        (["farm"], None, 1),
    ],
)
def test_nodes_of_others_count_for_the_jobs_that_they_run(
    kinds: Sequence[str] | None, kind: str | None, launches: int
) -> None:
    world = World(nodes=[other(kind)], demand=[on_farm(2, kinds)])
    assert len(world.actions()) == launches


def test_what_only_ours_run_finds_ours_free() -> None:
    """Jobs that both could run are larger and come first: they go to the farm."""
    flexible = replace(row(1, Resources(2, 2048), label="both"), node_kinds=frozenset(["farm"]))
    ours = replace(row(2, label="ours"), node_kinds=frozenset())
    world = World(workers=[worker()], nodes=[node(idle_since=NOW - 900), other()], demand=[flexible, ours])
    assert world.actions() == (), "neither launched nor drained"
    assert brief(world.but(demand=[flexible]).actions()) == ["drain w1 idle"]


def test_what_only_the_farm_runs_comes_first_and_starts_nothing() -> None:
    theirs = on_farm(2, ["farm"], runs_on=frozenset())
    flexible = replace(row(2, label="both"), node_kinds=frozenset(["farm"]))
    world = World(nodes=[other()], demand=[flexible, theirs])
    assert brief(world.actions()) == ["launch 1 grid private small demand"]
    full = World(nodes=[other(cores=0, running=2)], demand=[theirs])
    why = full.plan().why_demand[(POOL, LABEL)]
    assert why.cause is Cause.OTHERS_ONLY
    assert "(1 of them)" in why.text


def test_room_of_others_that_is_not_taken_does_not_count() -> None:
    world = World(nodes=[other()], demand=[on_farm(2, ["farm"])])
    assert next_trial(world, None, OTHERS) == Trial(NOW, 2, NOW - 5000)
    trial = next_trial(world, on_trial(count=2), OTHERS)
    assert trial is not None
    assert trial.until == NOW + FIRST_PAUSE
    assert brief(plan(after(world, trial, OTHERS), world.rules).actions) == ["launch 1 grid private small demand"]
    theirs = world.but(demand=[on_farm(2, ["farm"], runs_on=frozenset())])
    why = plan(after(theirs, trial, OTHERS), theirs.rules).why_demand[(POOL, LABEL)]
    assert why.cause is Cause.NOT_TAKEN
    assert "nodes that are not ours had room" in why.text


# --- always

bars = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([GroupName("g"), GroupName("h"), None])),
    st.builds(
        Trial,
        st.just(NOW),
        st.integers(0, 9),
        st.just(0.0),
        st.integers(0, 3),
        st.sampled_from([None, NOW - 1, NOW + 9]),
    ),
)
rows = st.lists(
    st.builds(
        lambda label, count, groups: row(count, ONE_CORE, [(group, "small") for group in groups], label),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 9),
        st.sets(st.sampled_from(["g", "h", "i"])),
    ),
    max_size=5,
)


@given(rows, bars)
def test_no_job_is_lost_or_made_and_nobody_gains_offers(demand: list[DemandRow], trials: dict[TrialKey, Trial]) -> None:
    judged = judge(tuple(demand), trials, NOW)
    assert len(judged.rows) == len(judged.barred)
    for label in ("a", "b", "c"):
        before = [each for each in demand if each.label == label]
        now = [(each, out) for each, out in zip(judged.rows, judged.barred, strict=True) if each.label == label]
        assert sum(each.count for each, _ in now) == sum(each.count for each in before)
        offers = {key for each in before for key in each.runs_on}
        for each, out in now:
            assert each.runs_on <= offers
            assert not any(group in out for group, _ in each.runs_on)
            assert None not in out or each.node_kinds == frozenset()
        for (name, who), trial in trials.items():
            if name == label and trial.until is not None and trial.until > NOW:
                assert all(who in out for _, out in now)
            probed = sum(each.count for each, out in now if who not in out)
            if name == label and who is not None and trial.until == NOW - 1:
                assert probed <= 1, "one at a time"
