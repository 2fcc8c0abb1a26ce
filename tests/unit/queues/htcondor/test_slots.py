"""Slots as the collector lists them, made into nodes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtide.model.demand import Node, NodeState
from gridtide.model.ids import WorkerId
from gridtide.model.resources import Resources
from gridtide.queues.htcondor.asking import Json
from gridtide.queues.htcondor.slots import Looking, Order, Slot, kind_of, kinds, looks_drained, machines, node

NOW = 1000.0
ONE = WorkerId("grid-1")
DRAIN_7 = Order(7, drain=True)


def slot(name: str = "slot1@grid-1.gridtide", /, **more: Json) -> dict[str, Json]:
    """An idle partitionable slot of our worker."""
    return {
        "Name": name, "SlotType": "Partitionable", "State": "Unclaimed", "Cpus": 4, "Memory": 4000, "Disk": 10_240,
        "TotalSlotCpus": 4, "TotalSlotMemory": 4000, "TotalSlotDisk": 10_240, "TotalSlots": 1, "NumDynamicSlots": 0,
        "NumDynamicSlotsTime": 900, "EnteredCurrentState": 800, "MyCurrentTime": 995, "LastHeardFrom": 995,
        "GridtideWorker": "grid-1", "AuthenticatedIdentity": "grid-1@gridtide", "GridtideDrain": 0,
        "GridtideLeaseLost": False, **more,
    }  # fmt: skip


def dynamic(number: int, state: str = "Claimed", **more: Json) -> dict[str, Json]:
    return slot(
        f"slot1_{number}@grid-1.gridtide", SlotType="Dynamic", State=state, Cpus=1, Memory=1000, Disk=1024, **more
    )


def seen(
    *slots: Slot,
    orders: Mapping[WorkerId, Order] | None = None,
    running: Mapping[str, int] | None = None,
    witnessed: bool = True,
    now: float = NOW,
    busy: Mapping[str, float] | None = None,
) -> Node:
    (machine,) = machines(slots)
    return node(machine, Looking(now, 10.0, orders or {}, running or {}, witnessed, busy or {}), None)


def test_an_idle_node() -> None:
    one = seen(slot())
    assert one == Node(
        "grid-1.gridtide", ONE, NodeState.ACCEPTING, Resources(4, 4000, 10, 0), Resources(4, 4000, 10, 0), 0, 900.0
    )


def test_a_divided_slot_runs_what_was_cut_out_of_it() -> None:
    busy = seen(slot(Cpus=2, NumDynamicSlots=2), dynamic(1), dynamic(2, "Unclaimed"))
    assert (busy.running, busy.idle_since, busy.free.cores, busy.total.cores) == (2, None, 2, 4)


def test_a_claim_in_which_no_job_has_begun_is_busy_and_free() -> None:
    """Its schedd still calls the job idle: counted as taken alone, it would be one for which there is no machine."""
    divided = slot(Cpus=2, Memory=2000, Disk=8192, NumDynamicSlots=2)
    claimed = seen(divided, dynamic(1, Activity="Idle"), dynamic(2, Activity="Busy"))
    assert (claimed.running, claimed.idle_since, claimed.free.cores) == (2, None, 3)
    static = seen(slot(SlotType="Static", State="Matched", Activity="Idle", NumDynamicSlots=None))
    assert (static.running, static.free.cores) == (1, 4)
    going = seen(slot(SlotType="Static", State="Preempting", Activity="Idle", NumDynamicSlots=None))
    assert (going.running, going.free.cores) == (1, 0)


def test_ads_of_two_moments_do_not_make_more_room_than_there_is() -> None:
    assert seen(slot(NumDynamicSlots=0), dynamic(1, Activity="Idle")).free.cores == 4


def test_what_a_slot_says_of_its_parts_counts_before_they_are_listed() -> None:
    assert seen(slot(NumDynamicSlots=1)).running == 1


@pytest.mark.parametrize(("state", "running"), [("Claimed", 1), ("Preempting", 1), ("Matched", 1), ("Owner", 0)])
def test_a_static_slot_that_is_spoken_for_is_busy(state: str, running: int) -> None:
    one = seen(slot(SlotType="Static", State=state, NumDynamicSlots=None))
    assert (one.running, one.free.cores) == (running, 0)


def test_the_second_witness_counts() -> None:
    told = seen(slot(), running={"grid-1.gridtide": 1})
    assert (told.running, told.free, told.idle_since) == (1, Resources(), None)
    assert seen(slot(), running={"another": 1}).running == 0


def test_a_drain_is_confirmed_by_its_own_number_alone() -> None:
    for shown, state in ((0, NodeState.ACCEPTING), (6, NodeState.ACCEPTING), (7, NodeState.DRAINED)):
        assert seen(slot(GridtideDrain=shown), orders={ONE: DRAIN_7}).state is state
    back = {ONE: Order(8, drain=False)}
    assert seen(slot(GridtideDrain=7), orders=back).state is NodeState.ACCEPTING  # it does not show yet
    assert seen(slot(GridtideDrain=9), orders=back).state is NodeState.DRAINED  # somebody else's, and newer
    assert seen(slot(GridtideDrain=6)).state is NodeState.DRAINED  # ordered by an earlier process


def test_a_drain_is_confirmed_by_all_witnesses_or_not_at_all() -> None:
    drained = slot(GridtideDrain=7)
    assert seen(drained, orders={ONE: DRAIN_7}, witnessed=False).state is NodeState.DRAINING
    assert seen(drained, orders={ONE: DRAIN_7}, running={"grid-1.gridtide": 1}).state is NodeState.DRAINING
    assert seen({**drained, "NumDynamicSlots": 1}, orders={ONE: DRAIN_7}).state is NodeState.DRAINING
    assert seen({**drained, "TotalSlots": 2}, orders={ONE: DRAIN_7}).state is NodeState.DRAINING  # one is not listed
    static = [slot(f"slot{each}@grid-1.gridtide", SlotType="Static", TotalSlots=2) for each in (1, 2)]
    assert seen({**static[0], "GridtideDrain": 7}, static[1], orders={ONE: DRAIN_7}).state is NodeState.ACCEPTING
    both = [{**each, "GridtideDrain": 7} for each in static]
    assert seen(*both, orders={ONE: DRAIN_7}).state is NodeState.DRAINED


@pytest.mark.parametrize("more", [{"GridtideLeaseLost": True}, {"State": "Drained"}])
def test_a_node_may_drain_by_itself(more: dict[str, Json]) -> None:
    assert seen(slot(**more)).state is NodeState.DRAINED
    assert (
        seen(slot(**more), orders={ONE: DRAIN_7}).state is NodeState.DRAINING
    )  # it could be taken back behind our order
    assert seen(slot(**more, NumDynamicSlots=1)).state is NodeState.DRAINING


def test_a_worker_for_one_job_drains_when_it_has_it() -> None:
    single = slot(GridtideSingleUse=True)
    assert seen({**single, "JobStarts": 0}).state is NodeState.ACCEPTING
    assert seen({**single, "NumDynamicSlots": 1}).state is NodeState.DRAINING
    assert seen({**single, "JobStarts": 1}).state is NodeState.DRAINED


def test_a_node_that_is_silent_for_long_is_out_of_contact() -> None:
    assert seen(slot(), now=995 + 59).state is NodeState.ACCEPTING
    assert seen(slot(), now=995 + 61).state is NodeState.UNAVAILABLE
    assert seen(slot(GridtideDrain=7), now=995 + 61).state is NodeState.UNAVAILABLE
    assert seen(slot(GridtideWorker=None), now=995 + 61).state is NodeState.ACCEPTING  # other rhythms are not known


def test_ages_are_taken_from_the_nodes_clock_and_not_times() -> None:
    wrong = slot(MyCurrentTime=5000, NumDynamicSlotsTime=4900, EnteredCurrentState=4000)
    assert seen(wrong).idle_since == 895.0


def test_a_node_that_was_just_seen_running_is_not_idle_for_longer_than_that() -> None:
    assert seen(slot(), busy={"grid-1.gridtide": 990.0}).idle_since == 990.0
    assert seen(slot(), busy={"grid-1.gridtide": 800.0}).idle_since == 900.0
    assert seen(slot(), busy={"another": 990.0}).idle_since == 900.0


@pytest.mark.parametrize("sender", ["grid-2@gridtide", "unauthenticated@unmapped"])
def test_an_ad_under_a_foreign_name_is_nobodys(sender: str) -> None:
    assert seen(slot(AuthenticatedIdentity=sender)).worker is None


def test_an_ad_that_came_through_another_collector_is_its_workers() -> None:
    forwarded = slot()
    del forwarded["AuthenticatedIdentity"]
    assert seen(forwarded).worker == ONE


def test_machines_that_sleep_are_not_there() -> None:
    assert machines([slot(Offline=True)]) == []


def test_two_startds_of_one_machine_are_two_nodes() -> None:
    found = machines([slot("slot1@a@host"), slot("slot1_1@a@host"), slot("slot1@b@host")])
    assert [each.name for each in found] == ["a@host", "b@host"]


def test_kinds_are_what_requirements_see_and_nothing_else() -> None:
    red, blue, large = (
        slot(f"slot1@{name}", GridtideWorker=None, colour=colour, Cpus=cores, Start='TARGET.Owner == "me"')
        for name, colour, cores in (("red", "red", 4), ("blue", "blue", 4), ("large", "red", 64))
    )
    found = machines([red, blue, large])
    names = {each.name: kind_of(each, ["colour", "cpus"]) for each in found}
    assert names["red"] == names["large"] != names["blue"]
    looks = kinds(found, ["colour", "cpus"])
    assert looks[names["red"]] == {"colour": '"red"', "Start": 'TARGET.Owner == "me"'}
    assert kinds(machines([slot()]), ["colour"]) == {}  # ours need none


def test_too_many_kinds_are_none() -> None:
    many = [slot(f"slot1@{number}", GridtideWorker=None, machine=f"node{number}") for number in range(300)]
    assert kinds(machines(many), ["machine"]) == {}


STATES = ("Unclaimed", "Claimed", "Preempting", "Matched", "Owner", "Drained")


@given(
    st.lists(st.tuples(st.sampled_from(["Static", "Partitionable", "Dynamic"]), st.sampled_from(STATES),
                       st.integers(0, 2), st.integers(0, 9), st.booleans(), st.sampled_from(["Idle", "Busy"])),
             min_size=1, max_size=6),
    st.sampled_from([None, Order(7, drain=False), DRAIN_7]), st.integers(0, 1), st.booleans(),
)  # fmt: skip
def test_drained_is_never_said_of_a_node_that_anybody_calls_busy(
    slots: list[tuple[str, str, int, int, bool, str]], order: Order | None, witness: int, witnessed: bool
) -> None:
    made = [
        slot(f"slot{number}@grid-1.gridtide", SlotType=kind, State=state, NumDynamicSlots=parts, GridtideDrain=drain,
             GridtideLeaseLost=lost, Activity=activity)
        for number, (kind, state, parts, drain, lost, activity) in enumerate(slots)
    ]  # fmt: skip
    orders = {} if order is None else {ONE: order}
    one = seen(*made, orders=orders, running={"grid-1.gridtide": witness}, witnessed=witnessed)
    if one.state is NodeState.DRAINED:
        assert witnessed
        assert not witness
        assert all(kind != "Dynamic" and state not in ("Claimed", "Preempting", "Matched") for kind, state, *_ in slots)
        if order == DRAIN_7:
            assert all(drain == 7 for kind, _, _, drain, *_ in slots)
    assert one.total.covers(one.free)


def test_only_nodes_that_look_drained_need_a_second_witness() -> None:
    assert [looks_drained(machines([each])[0]) for each in (slot(), slot(GridtideDrain=3), dynamic(1))] == [
        False,
        True,
        False,
    ]
