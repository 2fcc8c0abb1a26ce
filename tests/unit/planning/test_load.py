"""The ``load`` policy: what it aims at, and what becomes of that in a plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.reasons import Cause
from gridtide.model.rules import LoadPolicy, Wishes
from gridtide.model.snapshot import GroupMemory, Heartbeat
from gridtide.model.workers import WorkerState
from gridtide.planning.policies import Aim, Outlook, Pulse, policy_of
from gridtide.planning.policies.load import mean_load
from tests.unit.planning.worlds import GRID, LARGE, NOW, World, brief, group, node, row, site, worker

HEAT = LoadPolicy()


def aim(
    *pulses: Pulse,
    parameters: LoadPolicy = HEAT,
    memory: GroupMemory | None = None,
    workers: int | None = None,
    busy: int = 0,
    waiting: int | None = 0,
    minimum: int = 0,
    maximum: int = 7,
) -> Aim:
    number = len(pulses) if workers is None else workers
    outlook = Outlook(NOW, waiting, memory or GroupMemory(), number, busy, minimum, maximum, lambda: pulses)
    return policy_of(parameters).aim(outlook)


def says(load: float, ago: float = 5.0, cores: int = 1) -> Pulse:
    return Pulse(cores, NOW - ago, load)


# --- the mean


def test_the_mean_goes_over_cores_and_no_worker_counts_for_more_than_its_own() -> None:
    assert mean_load((says(1.0, cores=3), says(0.0)), NOW, 60.0).heard == 0.75
    assert mean_load((says(9.0), says(0.0)), NOW, 60.0).heard == 0.5
    assert mean_load((says(-9.0), says(0.5)), NOW, 60.0).heard == 0.25


@pytest.mark.parametrize(
    "silent", [Pulse(1, None, 0.0), says(0.0, ago=60.1), says(float("nan")), says(float("inf"))], ids=repr
)
def test_who_is_not_heard_of_is_loaded_for_the_low_alarm_and_nothing_for_the_high_one(silent: Pulse) -> None:
    mean = mean_load((says(0.2), silent), NOW, 60.0)
    assert (mean.heard, mean.silent) == (0.2, 1)
    assert mean.at_most == pytest.approx(0.6)
    alone = mean_load((silent,), NOW, 60.0)
    assert (alone.heard, alone.at_most) == (None, 1.0)


def test_a_heartbeat_counts_up_to_its_age() -> None:
    assert mean_load((says(0.0, ago=60.0),), NOW, 60.0).silent == 0


def test_nobody_is_no_low_load() -> None:
    assert mean_load((), NOW, 60.0).at_most == 1.0
    assert mean_load((Pulse(0, NOW, 0.0),), NOW, 60.0).heard is None


# --- the alarms


def test_a_high_load_begins_to_count_and_adds_one_once_it_has_held() -> None:
    first = aim(says(0.51))
    assert (first.count, first.memory.high_since, first.idle_only) == (1, NOW, True)
    assert first.patience is not None
    assert first.patience.text == "the mean load is 51 %; that counts in 60 s"
    almost = aim(says(0.51), memory=GroupMemory(high_since=NOW - 59.9))
    assert almost.count == 1
    assert almost.look_again == pytest.approx(NOW + 0.1)
    then = aim(says(0.51), memory=GroupMemory(high_since=NOW - 60))
    assert (then.count, then.memory) == (2, GroupMemory(changed=NOW))
    assert then.why is not None
    assert (then.why.cause, then.why.text) == (Cause.LOAD_HIGH, "the mean load is 51 %: from 1 to 2")


def test_a_low_load_takes_one_once_it_has_held() -> None:
    first = aim(says(0.09), says(0.0))
    assert (first.count, first.memory.low_since) == (2, NOW)
    then = aim(says(0.09), says(0.0), memory=GroupMemory(low_since=NOW - 60))
    assert (then.count, then.memory, then.idle_only) == (1, GroupMemory(changed=NOW), True)
    assert then.why is not None
    assert then.why.cause is Cause.LOAD_LOW


@pytest.mark.parametrize("load", [0.1, 0.3, 0.5])
def test_on_the_thresholds_and_between_nothing_happens_and_alarms_are_over(load: float) -> None:
    given = aim(says(load), memory=GroupMemory(high_since=NOW - 900, low_since=NOW - 900, changed=NOW - 900))
    assert (given.count, given.memory) == (1, GroupMemory(changed=NOW - 900))
    assert given.patience is not None
    assert given.patience.cause is Cause.LOAD_STEADY


def test_an_alarm_that_turns_forgets_the_other() -> None:
    assert aim(says(0.9), memory=GroupMemory(low_since=NOW - 900)).memory == GroupMemory(high_since=NOW)
    assert aim(says(0.0), memory=GroupMemory(high_since=NOW - 900)).memory == GroupMemory(low_since=NOW)


def test_the_cooldown_holds_both_alarms_back() -> None:
    for load in (0.9, 0.0):
        memory = GroupMemory(high_since=NOW - 900, low_since=NOW - 900, changed=NOW - 59)
        given = aim(says(load), memory=memory)
        assert (given.count, given.memory.changed, given.look_again) == (1, NOW - 59, NOW + 1)
        assert given.patience is not None
        assert given.patience.cause is Cause.COOLDOWN
        over = aim(says(load), memory=replace(memory, changed=NOW - 60))
        assert over.count == (2 if load else 0)


def test_which_of_both_times_is_waited_for_is_told() -> None:
    for changed, cause in ((NOW - 31, Cause.LOAD_STEADY), (NOW - 29, Cause.COOLDOWN)):
        given = aim(says(0.9), memory=GroupMemory(high_since=NOW - 30, changed=changed))
        assert given.patience is not None
        assert given.patience.cause is cause


def test_steps_end_at_minimum_maximum_and_what_runs() -> None:
    high, low = GroupMemory(high_since=NOW - 900), GroupMemory(low_since=NOW - 900)
    big = LoadPolicy(add=5, remove=5)
    assert aim(says(0.9), parameters=big, memory=high, maximum=4).count == 4
    full = aim(says(0.9), memory=high, maximum=1)
    assert (full.count, full.memory.changed, full.why) == (1, None, None)
    four = [says(0.0)] * 4
    assert aim(*four, parameters=big, memory=low, minimum=1).count == 1
    assert aim(*four, parameters=big, memory=low, busy=3).count == 3
    held = aim(*four, memory=low, busy=4)
    assert (held.count, held.memory) == (4, GroupMemory(low_since=NOW - 900))
    assert held.patience is not None
    assert "no step is possible" in held.patience.text


def test_the_first_worker_starts_for_a_waiting_job_at_once_and_only_for_one() -> None:
    assert aim(waiting=3).count == 1
    assert aim(waiting=0).count == 0
    assert aim(waiting=None).count == 0
    assert aim(waiting=3, memory=GroupMemory(changed=NOW - 1)).count == 0
    assert aim(waiting=3, workers=1).count == 1


def test_it_looks_again_while_there_is_something_to_see() -> None:
    assert aim(says(0.3)).look_again == NOW + 30
    assert aim(says(0.3), parameters=LoadPolicy(high_for=0.0, low_for=0.0)).look_again == NOW + 1
    assert aim().look_again is None


@given(
    st.lists(st.tuples(st.integers(0, 8), st.floats(0, 300), st.floats()), max_size=8),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 9),
    st.integers(0, 9),
    st.sampled_from([None, NOW - 900, NOW - 30]),
    st.sampled_from([None, NOW - 900, NOW - 30]),
)
def test_whatever_is_said_a_step_keeps_the_bounds(
    said: list[tuple[int, float, float]],
    busy: int,
    starting: int,
    minimum: int,
    above: int,
    since: float | None,
    changed: float | None,
) -> None:
    pulses = [Pulse(cores, NOW - ago, load) for cores, ago, load in said]
    busy = min(busy, len(pulses))
    number, maximum = len(pulses) + starting, minimum + above
    memory = GroupMemory(high_since=since, low_since=since, changed=changed)
    aimed = aim(*pulses, memory=memory, workers=number, busy=busy, minimum=minimum, maximum=maximum)
    assert aimed.count is not None
    assert aimed.count >= min(number, busy)
    assert number - 1 <= aimed.count <= number + 1
    if aimed.count > number:
        assert aimed.count <= maximum
    if aimed.count < number:
        assert aimed.count >= minimum
        assert not [pulse for pulse in pulses if pulse.at is None or pulse.at < NOW - 60] or sum(
            pulse.cores for pulse in pulses if pulse.at is not None and pulse.at < NOW - 60
        ) < 0.1 * sum(pulse.cores for pulse in pulses)
    if aimed.count != number:
        assert changed is None or changed <= NOW - 60
        assert aimed.why is not None
    assert aimed.look_again is None or aimed.look_again > NOW


# --- in a plan

RULES = site(group(policy=HEAT, minimum=1, maximum=4))
LOW = GroupMemory(low_since=NOW - 100)
HIGH = GroupMemory(high_since=NOW - 100)


def heard(*names: str, load: float, ago: float = 5.0) -> dict[str, Heartbeat]:
    return {name: Heartbeat(NOW - ago, 0, load, draining=False) for name in names}


def test_a_high_load_launches_one_whatever_waits() -> None:
    world = World(rules=RULES, workers=[worker("w1")], nodes=[node("w1", running=2)], memory=HIGH, demand=[row(50)])
    loaded = world.but(heartbeats=heard("w1", load=0.9))
    assert brief(loaded.actions()) == ["launch 1 grid private small load-high"]
    assert loaded.plan().why_group[GRID].text == (
        "1 worker launched: group grid has 1 of 2 workers to be kept: the mean load is 90 %: from 1 to 2"
    )
    calm = world.but(heartbeats=heard("w1", load=0.3))
    assert calm.actions() == ()
    assert calm.plan().why_demand[("pool", row(50).label)].cause is Cause.LOAD_STEADY


def test_a_low_load_drains_one_idle_worker_and_no_busy_one() -> None:
    three = [worker(f"w{number}") for number in range(3)]
    beats = heard("w0", "w1", "w2", load=0.0)
    idle = World(rules=RULES, workers=three, memory=LOW, heartbeats=beats)
    nodes = [node("w0", running=1), node("w1", idle_since=NOW - 50), node("w2", idle_since=NOW - 5)]
    assert brief(idle.but(nodes=nodes).actions()) == ["drain w1 load-low"]
    busy = idle.but(nodes=[node(f"w{number}", running=1) for number in range(3)])
    assert busy.actions() == ()
    assert busy.plan().memory[GRID] == LOW, "no step was made, so no cooldown begins"
    said = {**beats, "w1": Heartbeat(NOW, 1, 0.0, draining=False), "w2": Heartbeat(NOW, 1, 0.0, draining=False)}
    assert idle.but(nodes=nodes, heartbeats=said).actions() == (), "a worker that says it is busy is not idle"


def test_a_boot_that_is_not_wanted_any_more_goes_before_an_idle_worker() -> None:
    world = World(
        rules=RULES,
        workers=[worker("w0"), worker("w1"), worker("w2", WorkerState.BOOTING, since=NOW - 100)],
        nodes=[node("w0"), node("w1")],
        memory=LOW,
        heartbeats=heard("w0", "w1", load=0.0),
    )
    assert brief(world.actions()) == ["terminate w2 booting withdrawn"]


def test_silence_keeps_the_others() -> None:
    two = World(
        rules=RULES,
        workers=[worker("w0"), worker("w1")],
        nodes=[node("w0", idle_since=NOW - 900), node("w1", idle_since=NOW - 900)],
        memory=LOW,
    )
    assert two.but(heartbeats=heard("w0", load=0.0)).actions() == ()
    assert two.but(heartbeats={**heard("w0", load=0.0), **heard("w1", load=0.0, ago=61.0)}).actions() == ()
    assert brief(two.but(heartbeats=heard("w0", "w1", load=0.0)).actions()) == ["drain w0 load-low"]


def test_draining_workers_are_no_part_of_the_mean() -> None:
    world = World(
        rules=RULES,
        workers=[worker("w0"), worker("w1"), worker("w2", WorkerState.DRAINING, shape=LARGE, cause=Cause.IDLE)],
        nodes=[node("w0"), node("w1"), node("w2", running=1)],
        memory=LOW,
        heartbeats=heard("w0", "w1", load=0.0) | {"w2": Heartbeat(NOW, 1, 1.0, draining=True)},
    )
    assert brief(world.actions()) == ["drain w0 load-low", "drain w2 idle"], "the older order is given again"


def test_the_minimum_is_kept_and_filled_up() -> None:
    alone = World(rules=RULES, workers=[worker("w0")], nodes=[node("w0")], memory=LOW, heartbeats=heard("w0", load=0.0))
    assert alone.actions() == ()
    assert brief(World(rules=RULES, memory=LOW).actions()) == ["launch 1 grid private small below-minimum"]


def test_an_operators_number_comes_before_the_load() -> None:
    two = [worker("w0"), worker("w1")]
    pinned = World(
        rules=RULES,
        workers=two,
        nodes=[node("w0", running=1), node("w1", running=1)],
        memory=HIGH,
        heartbeats=heard("w0", "w1", load=0.9),
    )
    for wishes in (Wishes(desired=1), Wishes(maximum=1)):
        assert brief(pinned.but(wishes=wishes).actions()) == ["drain w0 surplus"]


def test_an_idle_worker_is_told_why_it_stays() -> None:
    world = World(
        rules=RULES,
        workers=[worker("w0"), worker("w1")],
        nodes=[node("w0"), node("w1", running=1)],
        heartbeats=heard("w0", "w1", load=0.3),
    )
    assert world.why("w0").cause is Cause.KEPT_IDLE
    assert world.why("w0").text.endswith("its group is kept at 2 workers: the mean load is 30 %")
    assert world.plan().why_group[GRID].text.endswith("2 joined workers, the mean load is 30 %")
    assert world.plan().look_again is not None
