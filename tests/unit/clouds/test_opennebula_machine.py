"""What a launch asks for and a listing says, without any call."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyone import LCM_STATE, VM_STATE

from gridtide.clouds.opennebula_check import lasting, older
from gridtide.clouds.opennebula_machine import Template, context, extra_template, fraction, number, vectors
from gridtide.clouds.opennebula_quota import Limit, Room, as_quota, limits
from gridtide.clouds.opennebula_states import ACTIVE, LIFE_CYCLE, STATES, state_of
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import GroupName, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState, Quota
from gridtide.model.resources import Resources, Shape

SMALL = Template(5, Shape(ShapeName("small"), Resources(2, 4096, 10_240)), 1.0, {})


def request(user_data: bytes) -> LaunchRequest:
    return LaunchRequest(WorkerId("grid-1"), GroupName("grid"), ShapeName("small"), None, "image", user_data)


# --- states


def test_states_are_called_as_pyone_calls_them() -> None:
    assert {number: name for number, (name, _) in STATES.items()} == {
        each.value: each.name for each in VM_STATE if each.value != ACTIVE
    }
    known = {number: name for number, (name, _) in LIFE_CYCLE.items() if number <= max(LCM_STATE)}
    assert known == {each.value: each.name for each in LCM_STATE}


def test_only_what_cannot_run_a_program_is_taken_for_dead() -> None:
    dead = {MachineState.ENDING, MachineState.STOPPED, MachineState.BROKEN, MachineState.GONE}
    for name, state in [*STATES.values(), *LIFE_CYCLE.values()]:
        if any(word in name for word in ("SUSPEND", "SAVE_", "_STOP", "MIGRATE", "UNKNOWN")) and "FAILURE" not in name:
            assert state not in dead or "POWEROFF" in name, name
        if name.endswith("_POWEROFF") and name not in ("SHUTDOWN_POWEROFF", "BOOT_POWEROFF"):
            assert state is MachineState.STOPPED, name
    assert LIFE_CYCLE[61][1] is MachineState.UNKNOWN, "it may run on, on a host that does not answer"


@given(st.integers(), st.integers())
def test_states_of_a_later_version_are_unknown(state: int, life_cycle: int) -> None:
    name, found = state_of(state, life_cycle)
    assert name
    if state not in STATES and state != ACTIVE:
        assert found is MachineState.UNKNOWN
        assert str(state) in name


# --- what a launch asks for


@given(st.binary(max_size=300))
def test_user_data_arrives_whole_and_cannot_break_out(user_data: bytes) -> None:
    document = ElementTree.fromstring(extra_template(request(user_data), SMALL, 7, (1,), Zone("physics"), "torino/one"))  # noqa: S314 - ours
    assert [each.tag for each in document] == [
        "GRIDTIDE_SITE",
        "GRIDTIDE_WORKER",
        "GRIDTIDE_GROUP",
        "GRIDTIDE_SHAPE",
        "GRIDTIDE_ZONE",
        "DISK",
        "NIC",
        "CONTEXT",
        "SCHED_REQUIREMENTS",
    ]
    said = {each.tag: each.text or "" for each in document.iterfind("CONTEXT/*")}
    assert base64.b64decode(said.get("USER_DATA", "")) == user_data or set(said) == {
        line.partition("=")[0] for line in user_data.decode().splitlines()
    }
    assert "$" not in "".join(said.values()), "OpenNebula would fill it in"


def test_variables_of_a_context_sh() -> None:
    assert context(request(b"NETWORK=YES\nSET_HOSTNAME='grid-1'\nX=aGk=\n")) == {
        "NETWORK": "YES",
        "SET_HOSTNAME": "grid-1",
        "X": "aGk=",
    }


@pytest.mark.parametrize("user_data", [b"X=1", b"X='1'; reboot\n", b"x=1\n", b"X=$Y\n", b"X=1\n\n", b"1=X\n"])
def test_what_is_no_context_sh(user_data: bytes) -> None:
    assert base64.b64decode(context(request(user_data))["USER_DATA"]) == user_data


@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7), (" 7 ", 7), ("", 0), (None, 0), ("-7", 0), ("7.5", 0), ("٧", 0), ("9" * 10, 0), (["7"], 0), ({}, 0)],
)
def test_numbers(value: object, expected: int) -> None:
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [("7", 7.0), ("0.25", 0.25), ("nan", 0.0), ("1e9", 0.0), ("-1", 0.0), (None, 0.0), (".5", 0.0)],
)
def test_fractions(value: object, expected: float) -> None:
    assert fraction(value) == expected


def test_attributes_are_none_one_or_many() -> None:
    assert vectors({}, "DISK") == []
    assert vectors({"DISK": "text"}, "DISK") == []
    assert vectors({"DISK": {"SIZE": "1", "X": None}}, "DISK") == [{"SIZE": "1", "X": ""}]
    assert vectors({"DISK": [{"SIZE": "1"}, "text", {"SIZE": "2"}]}, "DISK") == [{"SIZE": "1"}, {"SIZE": "2"}]


# --- quotas


def entry(**figures: str) -> SimpleNamespace:
    return SimpleNamespace(VM=SimpleNamespace(**figures))


def limits_of(own: object, default: object) -> tuple[Limit, ...]:
    return limits("user", SimpleNamespace(VM_QUOTA=own), SimpleNamespace(VM_QUOTA=default))


@pytest.mark.parametrize(
    ("own", "default", "expected"),
    [
        ("5", "7", 5.0),
        ("0", "7", 0.0),
        ("-1", "7", 7.0),
        ("-2", "7", None),
        ("-1", "-1", None),
        ("-1", "-2", None),
        ("2.5", "-2", 2.5),
        ("", "7", 7.0),
    ],
)
def test_a_limit_is_the_default_one_or_none_or_its_own(own: str, default: str, expected: float | None) -> None:
    found = limits_of(entry(VMS=own, VMS_USED="1"), entry(VMS=default))
    assert [each.limit for each in found] == ([] if expected is None else [expected])
    assert all(each.used == 1.0 for each in found)


def test_without_an_entry_of_its_own_the_default_holds() -> None:
    assert limits_of(SimpleNamespace(VM=[]), entry(CPU="4")) == (Limit("user", "CPU", 4.0, 0.0),)
    assert limits_of(None, None) == ()
    assert limits("user", SimpleNamespace(VM_QUOTA=None), None) == ()


def test_a_quota_for_some_clusters_is_left_to_opennebula() -> None:
    rows = [SimpleNamespace(CLUSTER_IDS="1,2", VMS="1"), SimpleNamespace(CLUSTER_IDS=None, VMS="9")]
    assert [each.limit for each in limits_of(SimpleNamespace(VM=rows), None)] == [9.0]


@pytest.mark.parametrize("odd", ["nan", "inf", "many"])
def test_an_odd_quota_is_an_error(odd: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        limits_of(entry(VMS=odd), None)


def test_the_tightest_of_each_kind() -> None:
    given = [Limit("user", "VMS", 9, 0), Limit("group", "VMS", 5.0, 0, running=True), Limit("user", "CPU", 2.5, 0)]
    assert as_quota(given) == Quota(cores=2, machines=5)


@given(
    st.lists(
        st.builds(
            Limit, st.just("user"), st.sampled_from(["VMS", "CPU", "MEMORY"]), st.floats(0, 1e6), st.floats(0, 1e6)
        ),
        max_size=4,
    ),
    st.integers(0, 30),
)
def test_no_limit_is_passed(given_limits: list[Limit], number: int) -> None:
    room = Room(given_limits)
    taken = sum(room.take(SMALL) is None for _ in range(number))
    needs = {"VMS": 1.0, "CPU": 1.0, "MEMORY": 4096.0}
    for each in given_limits:
        assert taken == 0 or each.used + taken * needs[each.metric] <= each.limit * (1 + 1e-9)
    if taken < number:
        assert any(each.used + (taken + 1) * needs[each.metric] > each.limit * (1 - 1e-9) for each in given_limits)


# --- check


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("5.10.5", True),
        ("5.12.0", False),
        ("6.0", False),
        ("7.2.1", False),
        ("4", True),
        ("unknown", False),
        ("", False),
    ],
)
def test_versions(version: str, expected: bool) -> None:
    assert older(version) is expected


def test_a_token_that_ends_beyond_all_calendars() -> None:
    from datetime import UTC, datetime

    from gridtide.clouds.opennebula_catalogue import User
    from gridtide.clouds.protocol import Level

    user = User(2, "gridtide", (), (("t0ken", 10**18),))
    assert "t0ken" not in repr(user)
    assert lasting(user, "t0ken", datetime.now(UTC)).level is Level.OK
    assert "a password" in lasting(user, "other", datetime.now(UTC)).text
