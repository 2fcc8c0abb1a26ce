"""What evidence moves a worker on, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from gridtide.clouds import ec2, opennebula, openstack
from gridtide.control import cloud_hands
from gridtide.model.demand import Node, NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.machines import Machine, MachineState
from gridtide.model.readings import Missing, Unconfirmed
from gridtide.model.reasons import Cause
from gridtide.model.rules import Wishes
from gridtide.model.snapshot import Heartbeat
from gridtide.model.workers import Worker, WorkerState
from gridtide.planning.lifecycle import CALL_ALLOWANCE, EFFECT_ALLOWANCE
from gridtide.sim.cloud import PATIENCE
from tests.unit.planning.worlds import NOW, World, brief, fresh, group, machine, node, row, site, stale, worker

S = WorkerState
N = NodeState
M = MachineState
DEAD: Final = (M.BROKEN, M.STOPPED, M.GONE)


def heartbeat(at: float = NOW, running: int = 0) -> Heartbeat:
    return Heartbeat(at, running, 0.5, draining=False)


def world(
    subject: Worker,
    *,
    nodes: list[Node] | None = None,
    machines: list[Machine] | None = None,
    heartbeats: dict[str, Heartbeat] | None = None,
    settle: float = 0.0,
) -> World:
    return World(
        rules=site(group(), settle=settle),
        workers=[subject],
        nodes=nodes or [],
        machines=machines,
        heartbeats=heartbeats or {},
    )


# --- intended


def test_an_intent_is_left_to_the_controller() -> None:
    calm = world(worker(state=S.INTENDED))
    assert calm.actions() == ()
    assert calm.why().cause is Cause.STARTING


@pytest.mark.parametrize("wishes", [Wishes(hold=True), Wishes(closing=True), Wishes(hold=True, closing=True)])
def test_an_intent_is_withdrawn_when_its_group_is_held_or_closing(wishes: Wishes) -> None:
    held = world(worker(state=S.INTENDED)).but(wishes=wishes)
    assert brief(held.actions()) == ["w1 intended->gone withdrawn"]


def test_an_intent_of_a_removed_group_is_withdrawn() -> None:
    assert brief(world(worker(state=S.INTENDED, group_name="old")).actions()) == ["w1 intended->gone withdrawn"]


@pytest.mark.parametrize("wish", [{"drain_wanted": True}, {"force_wanted": True}])
def test_an_operator_withdraws_an_intent(wish: dict[str, bool]) -> None:
    subject = worker(state=S.INTENDED, drain_wanted="drain_wanted" in wish, force_wanted="force_wanted" in wish)
    assert brief(world(subject).actions()) == ["w1 intended->gone withdrawn"]


# --- launching


def test_a_machine_is_found_by_its_tag() -> None:
    found = world(worker(state=S.LAUNCHING, since=NOW - 5), machines=[machine()])
    assert brief(found.actions()) == ["w1 launching->booting found-by-tag m-w1"]
    assert found.why().cause is Cause.STARTING


def test_a_machine_is_found_in_a_listing_that_is_not_fresh_any_more() -> None:
    found = world(worker(state=S.LAUNCHING, since=NOW - 5)).but(machines_reading=stale((machine(),)))
    assert brief(found.actions()) == ["w1 launching->booting found-by-tag m-w1"]


def test_of_two_machines_a_living_one_with_the_smallest_id_is_taken() -> None:
    machines = [
        machine(identity="a", state=M.BROKEN),
        machine(identity="c"),
        machine(identity="b"),
    ]
    found = world(worker(state=S.LAUNCHING, since=NOW - 5), machines=machines)
    assert brief(found.actions())[0] == "w1 launching->booting found-by-tag b"


LOST_AFTER = 75.0 + 30.0


@pytest.mark.parametrize(
    ("launched", "lost"),
    [(NOW - 0.1 - LOST_AFTER - 0.01, True), (NOW - 0.1 - LOST_AFTER, False), (NOW - 5, False)],
)
def test_a_launch_is_lost_only_after_call_and_settling_time(launched: float, lost: bool) -> None:
    waiting = world(worker(state=S.LAUNCHING, since=launched), settle=30.0)
    expected = ["w1 launching->failed launch-lost", "w1 failed->gone launch-lost"] if lost else []
    assert brief(waiting.actions()) == expected
    if not lost:
        assert waiting.why().cause is Cause.STARTING
        assert waiting.plan().look_again == (launched + LOST_AFTER if launched + LOST_AFTER > NOW else None)


def test_a_launch_counts_as_lost_only_when_its_call_cannot_leave_any_more() -> None:
    latest = max(ec2.LAUNCH_PATIENCE, openstack.LAUNCH_PATIENCE, opennebula.LAUNCH_PATIENCE, PATIENCE)
    assert cloud_hands._BEGIN_WITHIN + latest <= CALL_ALLOWANCE


def test_a_launch_is_never_lost_on_anything_but_a_fresh_listing() -> None:
    waiting = world(worker(state=S.LAUNCHING))
    doubtful = Unconfirmed((), fresh((machine("other"),)), NOW - 1, NOW, "1 of 1 machines are suddenly not listed")
    for reading in (stale(()), doubtful, Missing("refused", NOW - 900)):
        assert waiting.but(machines_reading=reading).actions() == ()


def test_launching_cannot_be_drained_or_forced() -> None:
    assert world(worker(state=S.LAUNCHING, since=NOW - 5, drain_wanted=True, force_wanted=True)).actions() == ()


# --- booting


def booting(launched: float = NOW - 100, *, drain_wanted: bool = False, force_wanted: bool = False) -> Worker:
    return worker(state=S.BOOTING, since=launched, drain_wanted=drain_wanted, force_wanted=force_wanted)


def test_a_booting_worker_is_waited_for() -> None:
    calm = world(booting())
    assert calm.actions() == ()
    assert calm.why().cause is Cause.STARTING
    assert "100 s of 600 s" in calm.why().text
    assert calm.plan().look_again == NOW + 500


@pytest.mark.parametrize(
    ("state", "cause"),
    [(M.BROKEN, "machine-broken"), (M.STOPPED, "machine-stopped"), (M.GONE, "machine-gone")],
)
def test_a_dead_machine_fails_a_booting_worker_with_the_clouds_words(state: MachineState, cause: str) -> None:
    dead = world(booting(), machines=[machine(state=state, message="no valid host")])
    assert brief(dead.actions()) == [f"w1 booting->failed {cause}", f"terminate w1 failed {cause}"]
    assert "no valid host" in dead.why().text


@pytest.mark.parametrize("state", [M.STARTING, M.RUNNING, M.ENDING, M.UNKNOWN])
def test_other_states_of_a_machine_are_no_evidence(state: MachineState) -> None:
    assert world(booting(), machines=[machine(state=state)]).actions() == ()


def test_a_dead_machine_of_a_stale_listing_is_no_evidence() -> None:
    assert world(booting()).but(machines_reading=stale((machine(state=M.BROKEN),))).actions() == ()


def test_a_second_machine_does_not_stand_in_for_the_first() -> None:
    assert "failed" not in str(brief(world(booting(), machines=[machine(identity="z", state=M.BROKEN)]).actions()))


@pytest.mark.parametrize(("age", "late"), [(600.0, True), (599.9, False)])
def test_the_join_deadline(age: float, late: bool) -> None:
    actions = brief(world(booting(NOW - age)).actions())
    assert actions == (["w1 booting->failed never-joined", "terminate w1 failed never-joined"] if late else [])


@pytest.mark.parametrize("machines", [[machine()], [machine(state=M.BROKEN)]])
def test_signs_of_life_forbid_to_give_up_a_booting_worker(machines: list[Machine]) -> None:
    late = booting(NOW - 700)
    heard = world(late, machines=machines, heartbeats={"w1": heartbeat(NOW - 650)})
    runs = world(late, machines=machines, nodes=[node(running=1)])
    for alive in (heard, runs):
        assert alive.actions() == ()
        assert alive.why().cause is Cause.BUSY
    before_launch = world(late, machines=machines, heartbeats={"w1": heartbeat(NOW - 700)})
    assert before_launch.actions() != ()
    idle_node = world(late, machines=machines, nodes=[node(running=0)])
    assert idle_node.actions() != ()


@pytest.mark.parametrize(("led", "late"), [(59.9, False), (60.0, True), (5000.0, True)])
def test_a_machine_may_come_back_after_a_time_without_a_controller(led: float, late: bool) -> None:
    waiting = world(booting(NOW - 700)).but(started=NOW - led)
    assert ("failed" in str(brief(waiting.actions()))) is late
    unwanted = world(worker(state=S.BOOTING, since=NOW - 700, group_name="old")).but(started=NOW - led)
    assert brief(unwanted.actions()) == ["terminate w1 booting withdrawn"]


def test_a_booting_worker_that_is_not_listed_stays() -> None:
    unlisted = world(booting(), machines=[])
    assert unlisted.actions() == ()
    assert unlisted.why().cause is Cause.NOT_IN_CLOUD
    assert world(booting(), machines=[], settle=99.9).why().cause is Cause.STARTING
    assert world(booting(), machines=[], settle=99.8).why().cause is Cause.NOT_IN_CLOUD
    assert unlisted.but(machines_reading=stale(())).why().cause is Cause.STARTING


def test_an_unwanted_booting_worker_is_ended() -> None:
    assert brief(world(booting(drain_wanted=True)).actions()) == ["terminate w1 booting withdrawn"]
    assert brief(world(booting(force_wanted=True)).actions()) == ["terminate w1 booting operator"]
    assert brief(world(booting()).but(wishes=Wishes(closing=True)).actions()) == ["terminate w1 booting withdrawn"]
    assert brief(world(worker(state=S.BOOTING, group_name="old")).actions()) == ["terminate w1 booting withdrawn"]
    assert world(booting()).but(wishes=Wishes(hold=True)).actions() == ()


# --- joined


def test_a_busy_worker_is_busy() -> None:
    busy = world(worker(), nodes=[node(running=2)], heartbeats={"w1": heartbeat()})
    assert busy.actions() == ()
    assert (busy.why().cause, busy.why().text) == (Cause.BUSY, "it runs 2 jobs")


@pytest.mark.parametrize("state", [N.DRAINING, N.DRAINED])
@pytest.mark.parametrize("single_use", [True, False])
def test_a_worker_may_drain_by_itself(state: NodeState, single_use: bool) -> None:
    leaving = world(worker(single_use=single_use), nodes=[node(state=state)])
    assert brief(leaving.actions()) == [f"w1 joined->draining {'single-use' if single_use else 'self-drained'}"]


def test_a_reading_from_before_it_joined_says_nothing_of_its_drain() -> None:
    undrained = worker(since=NOW - 0.1)
    assert world(undrained, nodes=[node(state=N.DRAINED)]).actions() == ()
    assert world(worker(since=NOW - 0.2), nodes=[node(state=N.DRAINED)]).actions() != ()


def test_a_stale_reading_says_nothing_of_its_drain() -> None:
    assert world(worker()).but(nodes_reading=stale((node(state=N.DRAINED),))).actions() == ()


def test_one_accepting_node_of_several_is_enough_to_be_in_use() -> None:
    nodes = [node(state=N.DRAINED, host="a"), node(host="b", running=1)]
    assert world(worker(), nodes=nodes).actions() == ()


@pytest.mark.parametrize("state", DEAD)
def test_a_dead_machine_fails_a_joined_worker(state: MachineState) -> None:
    dead = world(worker(), machines=[machine(state=state)], nodes=[node()])
    assert brief(dead.actions()) == [f"w1 joined->failed machine-{state}", f"terminate w1 failed machine-{state}"]


@pytest.mark.parametrize("state", DEAD)
def test_a_worker_that_was_heard_of_lately_contradicts_the_cloud(state: MachineState) -> None:
    heard = world(worker(), machines=[machine(state=state)], nodes=[node()], heartbeats={"w1": heartbeat(NOW - 29.9)})
    assert heard.actions() == ()
    assert heard.why().cause is Cause(f"machine-{state}")
    assert "left alone" in heard.why().text
    assert heard.plan().look_again == pytest.approx(NOW + 0.1)
    silent = heard.but(heartbeats={"w1": heartbeat(NOW - 30)})
    assert silent.actions() != ()


@pytest.mark.parametrize("state", DEAD)
def test_a_controller_that_has_just_started_listens_first(state: MachineState) -> None:
    young = world(worker(), machines=[machine(state=state)], nodes=[node()]).but(started=NOW - 29)
    assert young.actions() == ()
    assert young.but(started=NOW - 30).actions() != ()


def test_jobs_of_a_machine_in_error_count_as_long_as_its_lease() -> None:
    """It may run on behind the error; a stopped one cannot, whatever the queue still believes."""
    running = [node(running=1)]
    broken = world(worker(), machines=[machine(state=M.BROKEN)], nodes=running, heartbeats={"w1": heartbeat(NOW - 599)})
    assert broken.actions() == ()
    assert broken.but(heartbeats={"w1": heartbeat(NOW - 600)}).actions() != ()
    for state in (M.STOPPED, M.GONE):
        assert broken.but(machines=[machine(state=state)]).actions() != ()


def test_a_contradicted_worker_may_still_be_drained_by_an_operator() -> None:
    subject = worker(drain_wanted=True)
    contradicted = world(
        subject, machines=[machine(state=M.BROKEN)], nodes=[node(running=1)], heartbeats={"w1": heartbeat()}
    )
    assert brief(contradicted.actions()) == ["drain w1 operator"]


def test_missing_from_anywhere_is_never_an_end() -> None:
    subject = worker(since=NOW - 90_000)
    nowhere = world(subject, machines=[], nodes=[])
    assert nowhere.actions() == ()
    assert nowhere.why().cause is Cause.NOT_IN_CLOUD
    unqueued = world(subject)
    assert unqueued.actions() == ()
    assert unqueued.why().cause is Cause.NOT_IN_QUEUE
    silent = world(subject, nodes=[node(running=1)])
    assert silent.actions() == ()
    assert silent.why().cause is Cause.SILENT
    assert "5000 s" in silent.why().text, "silence is counted from the start of this controller"


@pytest.mark.parametrize(("heard", "silent"), [(NOW - 600, False), (NOW - 601, True)])
def test_when_silence_begins(heard: float, silent: bool) -> None:
    subject = world(worker(), nodes=[node(running=1)], heartbeats={"w1": heartbeat(heard, 1)})
    assert subject.why().cause is (Cause.SILENT if silent else Cause.BUSY)


def test_silence_counts_from_joining() -> None:
    assert world(worker(since=NOW - 599), nodes=[node(running=1)]).why().cause is Cause.BUSY


@pytest.mark.parametrize("state", [N.UNAVAILABLE, N.DRAINING])
def test_a_node_that_takes_no_jobs_is_said_so(state: NodeState) -> None:
    since = NOW - 0.1 if state is N.DRAINING else NOW - 1000
    why = world(worker(since=since), nodes=[node(state=state)]).why()
    assert why.cause is Cause.NOT_IN_QUEUE
    assert str(state) in why.text


def test_a_stale_queue_that_does_not_list_it_is_said_so() -> None:
    why = world(worker()).but(nodes_reading=stale(())).why()
    assert (why.cause, why.text) == (Cause.NOT_IN_QUEUE, "no list of its queue's nodes shows it: no sign of its end")


def test_operators_drain_and_force() -> None:
    busy = [node(running=1)]
    assert brief(world(worker(drain_wanted=True), nodes=busy).actions()) == ["drain w1 operator"]
    assert brief(world(worker(force_wanted=True), nodes=busy).actions()) == ["terminate w1 joined operator"]
    held = world(worker(drain_wanted=True), nodes=busy).but(wishes=Wishes(hold=True))
    assert brief(held.actions()) == ["drain w1 operator"], "an order for one worker is more than the hold of its group"


def test_a_closing_group_drains_whatever_is_known_of_its_queue() -> None:
    closing = world(worker(), nodes=[node(running=1)]).but(wishes=Wishes(closing=True))
    assert brief(closing.actions()) == ["drain w1 operator"]
    assert brief(closing.but(nodes_reading=stale(())).actions()) == ["drain w1 operator"]
    assert brief(closing.but(wishes=Wishes(closing=True, hold=True)).actions()) == ["drain w1 operator"]


def test_a_removed_group_drains() -> None:
    removed = world(worker(group_name="old"), nodes=[node(running=1)])
    assert brief(removed.actions()) == ["drain w1 withdrawn"]


def test_a_machine_is_adopted_by_a_worker_that_joined_before_its_answer() -> None:
    joined = world(worker(machine=None), nodes=[node(running=1)], machines=[machine()])
    assert brief(joined.actions()) == ["w1 joined->joined found-by-tag m-w1"]
    assert joined.why().cause is Cause.SILENT


# --- draining


def draining(since: float = NOW - 50, *, force_wanted: bool = False) -> Worker:
    return worker(state=S.DRAINING, since=since, launched=NOW - 900, cause=Cause.IDLE, force_wanted=force_wanted)


EMPTY = ["w1 draining->drained drained-empty", "terminate w1 drained drained-empty"]


def test_drained_and_empty_is_the_one_way_to_an_end() -> None:
    assert brief(world(draining(), nodes=[node(state=N.DRAINED)]).actions()) == EMPTY


@pytest.mark.parametrize(("since", "confirmed"), [(NOW - 0.1, True), (NOW - 0.09, False)])
def test_the_reading_must_have_begun_after_the_drain(since: float, confirmed: bool) -> None:
    actions = brief(world(draining(since), nodes=[node(state=N.DRAINED)]).actions())
    assert actions == (EMPTY if confirmed else [])


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [node(state=N.DRAINING)],
        [node(state=N.UNAVAILABLE)],
        [node(state=N.DRAINED, running=1)],
        [node(state=N.DRAINED, host="a"), node(state=N.DRAINING, host="b")],
        [node(state=N.DRAINED, host="a"), node(state=N.DRAINED, host="b", running=1)],
        [node(state=N.DRAINED, host="a"), node(state=N.UNAVAILABLE, host="b")],
    ],
)
def test_anything_less_is_no_evidence(nodes: list[Node]) -> None:
    waiting = world(draining(), nodes=nodes)
    assert waiting.actions() == ()
    causes = {Cause.NOT_IN_QUEUE, Cause.BUSY, Cause.IDLE}
    assert waiting.why().cause in causes


def test_why_it_still_drains() -> None:
    assert world(draining()).why().cause is Cause.NOT_IN_QUEUE
    busy = world(draining(), nodes=[node(state=N.DRAINING, running=1)]).why()
    assert (busy.cause, busy.text) == (Cause.BUSY, "it drains (as the test says) and still runs 1 job")
    assert world(draining(), nodes=[node(state=N.DRAINING)]).why().cause is Cause.IDLE


def test_several_nodes_all_drained() -> None:
    nodes = [node(state=N.DRAINED, host="a"), node(state=N.DRAINED, host="b")]
    assert brief(world(draining(), nodes=nodes).actions()) == EMPTY


def test_a_heartbeat_forbids_but_never_authorises() -> None:
    drained = [node(state=N.DRAINED)]
    assert world(draining(), nodes=drained, heartbeats={"w1": heartbeat(NOW, 1)}).actions() == ()
    assert brief(world(draining(), nodes=drained, heartbeats={"w1": heartbeat(NOW, 0)}).actions()) == EMPTY
    assert brief(world(draining(), nodes=drained, heartbeats={"w1": heartbeat(NOW - 0.1, 1)}).actions()) == EMPTY
    assert world(draining(), nodes=[node(state=N.DRAINING)], heartbeats={"w1": heartbeat(NOW, 0)}).actions() == ()


def test_readings_that_are_not_fresh_end_nothing() -> None:
    drained = (node(state=N.DRAINED),)
    doubtful = Unconfirmed(drained, fresh(drained), NOW - 1, NOW, "4 of 5 nodes are suddenly not listed")
    for reading in (stale(drained), doubtful):
        assert world(draining(since=NOW - 5000)).but(nodes_reading=reading).actions() == ()


@pytest.mark.parametrize(("since", "again"), [(NOW - EFFECT_ALLOWANCE, True), (NOW - EFFECT_ALLOWANCE + 0.1, False)])
def test_a_drain_that_the_queue_has_forgotten_is_ordered_again(since: float, again: bool) -> None:
    actions = brief(world(draining(since), nodes=[node(running=1)]).actions())
    assert actions == (["drain w1 idle"] if again else [])


def test_before_the_queue_has_taken_the_drain_its_word_is_no_evidence() -> None:
    """An older order to take a drain back may still be on its way: a job could start behind this reading."""
    drained = world(draining(NOW - 5000), nodes=[node(state=N.DRAINED)])
    assert brief(drained.actions()) == EMPTY
    assert drained.but(acknowledged={}).actions() == ()
    late = {WorkerId("w1"): NOW - 0.05}  # the reading began before this
    assert drained.but(acknowledged=late).actions() == ()


def test_a_recalled_worker_is_not_taken_for_draining_until_the_queue_has_answered() -> None:
    recalled = worker(state=WorkerState.JOINED, since=NOW - 100, cause=Cause.LOAD_RETURNED)
    listed = world(recalled, nodes=[node(state=N.DRAINED)])
    assert listed.actions() == ()
    refused = listed.but(answered={WorkerId("w1"): NOW - 50})
    assert brief(refused.actions()) == ["w1 joined->draining self-drained"]


@pytest.mark.parametrize("state", DEAD)
def test_a_dead_machine_fails_a_draining_worker(state: MachineState) -> None:
    dead = world(draining(), machines=[machine(state=state)])
    assert brief(dead.actions()) == [f"w1 draining->failed machine-{state}", f"terminate w1 failed machine-{state}"]
    alive = dead.but(nodes=[node(state=N.DRAINING, running=1)], heartbeats={"w1": heartbeat()})
    assert alive.actions() == ()
    assert alive.why().cause is Cause(f"machine-{state}")


def test_a_dead_machine_of_a_drained_worker_is_a_plain_end() -> None:
    assert (
        brief(world(draining(), machines=[machine(state=M.STOPPED)], nodes=[node(state=N.DRAINED)]).actions()) == EMPTY
    )


def test_an_operator_forces_a_draining_worker() -> None:
    busy = world(draining(force_wanted=True), nodes=[node(state=N.DRAINING, running=1)])
    assert brief(busy.actions()) == ["terminate w1 draining operator"]


# --- drained


def drained(since: float = NOW - 50, *, force_wanted: bool = False) -> Worker:
    cause = Cause.DRAINED_EMPTY
    return worker(state=S.DRAINED, since=since, launched=NOW - 900, cause=cause, force_wanted=force_wanted)


def test_a_drained_worker_is_ended_on_a_new_reading() -> None:
    ended = ["terminate w1 drained drained-empty"]
    assert brief(world(drained(), nodes=[node(state=N.DRAINED)]).actions()) == ended
    assert brief(world(drained(NOW - 0.1), nodes=[node(state=N.DRAINED)]).actions()) == ended
    early = world(drained(NOW - 0.05), nodes=[node(state=N.DRAINED)])
    assert early.actions() == ()
    assert early.why().cause is Cause.NO_EVIDENCE


def test_a_drained_worker_that_left_the_queue_is_ended() -> None:
    assert brief(world(drained()).actions()) == ["terminate w1 drained drained-empty"]
    assert world(drained()).but(nodes_reading=stale(())).actions() == ()


def test_a_drained_worker_is_not_ended_against_any_sign() -> None:
    for nodes in ([node(state=N.DRAINED, running=1)], [node(state=N.DRAINING)], [node(state=N.UNAVAILABLE)]):
        assert world(drained(), nodes=nodes).actions() == ()
    heard = world(drained(), nodes=[node(state=N.DRAINED)], heartbeats={"w1": heartbeat(NOW, 1)})
    assert heard.actions() == ()
    assert heard.why().cause is Cause.BUSY
    unlisted = world(drained(), heartbeats={"w1": heartbeat(NOW, 1)})
    assert unlisted.actions() == ()


def test_a_drained_worker_whose_drain_the_queue_has_forgotten_is_no_longer_drained() -> None:
    for running in (0, 1):
        back = world(drained(), nodes=[node(running=running)])
        assert brief(back.actions()) == ["undrain w1 load-returned"]


def test_a_drained_worker_whose_machine_is_dead_is_ended() -> None:
    away = world(drained(), nodes=[node(state=N.UNAVAILABLE)], machines=[machine(state=M.STOPPED)])
    assert brief(away.actions()) == ["terminate w1 drained drained-empty"]


def test_an_operator_forces_a_drained_worker() -> None:
    assert brief(world(drained(force_wanted=True)).but(nodes_reading=stale(())).actions()) == [
        "terminate w1 drained operator"
    ]


# --- failed


def failed(cause: Cause, *, launched: bool = True, machine: str | None = None) -> Worker:
    made = worker(state=S.FAILED, cause=cause, machine=machine)
    return made if launched else replace(made, launched=None)


@pytest.mark.parametrize("cause", [Cause.LAUNCH_REFUSED, Cause.LAUNCH_LOST])
def test_where_no_machine_was_made_nothing_is_ended(cause: Cause) -> None:
    assert brief(world(failed(cause)).actions()) == [f"w1 failed->gone {cause}"]


def test_where_a_machine_may_exist_it_is_ended() -> None:
    assert brief(world(failed(Cause.NEVER_JOINED, machine="m-w1")).actions()) == ["terminate w1 failed never-joined"]
    assert brief(world(failed(Cause.LAUNCH_REFUSED, machine="m-w1")).actions()) == [
        "terminate w1 failed launch-refused"
    ]
    assert brief(world(failed(Cause.NEVER_JOINED)).actions()) == ["terminate w1 failed never-joined"]
    assert brief(world(failed(Cause.NEVER_JOINED, launched=False)).actions()) == ["w1 failed->gone never-joined"]


def test_a_refused_launch_whose_machine_shows_up_is_ended() -> None:
    found = world(failed(Cause.LAUNCH_REFUSED), machines=[machine()])
    assert brief(found.actions()) == [
        "w1 failed->failed found-by-tag m-w1",
        "terminate w1 failed launch-refused",
    ]


def test_a_failed_worker_that_runs_jobs_after_all_is_left_alone() -> None:
    alive = world(failed(Cause.MACHINE_BROKEN, machine="m-w1"), nodes=[node(running=1)])
    assert alive.actions() == ()
    assert alive.why().cause is Cause.BUSY
    forced = worker(state=S.FAILED, cause=Cause.MACHINE_BROKEN, force_wanted=True)
    assert brief(world(forced, nodes=[node(running=1)]).actions()) == ["terminate w1 failed machine-broken"]


# --- terminating


def terminating(since: float = NOW - 50, machine: str | None = "") -> Worker:
    return worker(state=S.TERMINATING, since=since, cause=Cause.DRAINED_EMPTY, machine=machine)


AGAIN = ["terminate w1 terminating drained-empty"]
GONE = ["w1 terminating->gone confirmed-gone"]


@pytest.mark.parametrize("state", [M.STARTING, M.RUNNING, M.ENDING, M.STOPPED, M.BROKEN, M.UNKNOWN])
def test_terminate_is_repeated_while_the_machine_exists(state: MachineState) -> None:
    assert brief(world(terminating(), machines=[machine(state=state)]).actions()) == AGAIN


@pytest.mark.parametrize(("since", "gone"), [(NOW - 0.2, True), (NOW - 0.1, False)])
def test_listed_as_gone_since_the_call(since: float, gone: bool) -> None:
    listed = world(terminating(since), machines=[machine(state=M.GONE)], settle=500.0)
    assert brief(listed.actions()) == (GONE if gone else AGAIN)


@pytest.mark.parametrize(("since", "gone"), [(NOW - 30.2, True), (NOW - 30.1, False)])
def test_not_listed_since_the_call_and_the_settling_time(since: float, gone: bool) -> None:
    unlisted = world(terminating(since), machines=[], settle=30.0)
    assert brief(unlisted.actions()) == (GONE if gone else AGAIN)
    if not gone:
        assert unlisted.plan().look_again is None, "the time has come; only a new reading is missing"
    assert world(terminating(NOW - 10), machines=[], settle=30.0).plan().look_again == NOW + 20


def test_gone_needs_a_fresh_listing() -> None:
    assert brief(world(terminating()).but(machines_reading=stale(())).actions()) == AGAIN
    assert brief(world(terminating()).but(machines_reading=stale((machine(state=M.GONE),))).actions()) == AGAIN


def test_every_machine_of_the_worker_must_be_gone() -> None:
    machines = [machine(state=M.GONE), machine(identity="z")]
    assert AGAIN[0] in brief(world(terminating(), machines=machines).actions())


def test_a_machine_that_lost_its_tag_is_not_gone() -> None:
    assert brief(world(terminating(), machines=[machine(None, identity="m-w1")]).actions()) == AGAIN


def test_a_worker_that_goes_makes_room_at_once() -> None:
    assert world(terminating(), machines=[]).plan().look_again == NOW + 1


def test_a_terminating_worker_without_known_machine_adopts_it() -> None:
    assert brief(world(terminating(machine=None), machines=[machine()]).actions()) == [
        "w1 terminating->terminating found-by-tag m-w1",
        *AGAIN,
    ]


# --- warm-up


def unread(**readings: Missing) -> World:
    base = World(rules=site(group(minimum=2)), workers=[worker()], nodes=[node(idle_since=NOW - 999)], demand=[row(5)])
    return base.but(started=NOW - 5, **readings)


@pytest.mark.parametrize("source", ["demand_reading", "nodes_reading", "machines_reading", "shapes_reading"])
def test_nothing_happens_before_every_source_has_answered_once(source: str) -> None:
    cold = unread(**{source: Missing("connection refused", NOW - 5)})
    assert cold.actions() == ()
    assert cold.why().cause is Cause.NO_EVIDENCE
    assert "connection refused" in cold.why().text
    assert cold.plan().why_group[group().name].cause is Cause.NO_EVIDENCE
    assert cold.plan().look_again == NOW + 55


@pytest.mark.parametrize(
    "subject",
    [
        worker(state=S.INTENDED),
        worker(state=S.LAUNCHING),
        booting(NOW - 5000),
        booting(drain_wanted=True),
        worker(drain_wanted=True),
        draining(),
        drained(),
        failed(Cause.NEVER_JOINED, machine="m-w1"),
        failed(Cause.LAUNCH_REFUSED),
    ],
    ids=lambda subject: f"{subject.state}",
)
def test_a_queue_that_never_answered_is_waited_for_without_end(subject: Worker) -> None:
    cold = world(subject, nodes=[node(state=N.DRAINED)]).but(demand_reading=Missing("timed out", NOW - 5000))
    assert cold.actions() == ()
    assert cold.why().cause is Cause.NO_EVIDENCE


def test_what_was_decided_before_the_restart_is_carried_through() -> None:
    cold = world(terminating()).but(nodes_reading=Missing("timed out", NOW - 5000))
    assert brief(cold.actions()) == AGAIN


def test_an_operators_force_does_not_wait_for_evidence() -> None:
    for state in (S.BOOTING, S.JOINED, S.DRAINING, S.DRAINED, S.FAILED):
        cold = world(worker(state=state, force_wanted=True)).but(nodes_reading=Missing("timed out", NOW - 5000))
        assert [line.split()[0] for line in brief(cold.actions())] == ["terminate"]
    cold = world(worker(state=S.INTENDED, force_wanted=True)).but(nodes_reading=Missing("timed out", NOW - 5000))
    assert brief(cold.actions()) == ["w1 intended->gone withdrawn"]


def test_machines_are_found_even_before_the_queue_has_answered() -> None:
    cold = world(worker(state=S.LAUNCHING, since=NOW - 5), machines=[machine()])
    found = cold.but(nodes_reading=Missing("timed out", NOW - 5))
    assert brief(found.actions()) == ["w1 launching->booting found-by-tag m-w1"]
    assert found.why().cause is Cause.NO_EVIDENCE
