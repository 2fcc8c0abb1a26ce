"""What Nova is asked for, and what its listings say."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from gridtide.clouds.openstack_launching import Room, by_worker
from gridtide.clouds.openstack_machine import (
    STATES,
    USER_DATA_LIMIT,
    Flavor,
    FlavorChoice,
    OpenstackSettings,
    Parts,
    flavor,
    gpus,
    launch_body,
    machine,
    quota,
    state_of,
    volumes,
)
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import GroupName, MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, MachineState, Quota
from gridtide.model.resources import Resources, Shape

TAG = "torino/private"
REQUEST = LaunchRequest(WorkerId("grid-1"), GroupName("grid"), ShapeName("tiny"), None, "worker", b"secret")
PARTS = Parts(Flavor("f1", Shape(ShapeName("tiny"), Resources(1, 512, 1024))), "i1", "auto", "")


def server(**more: Any) -> dict[str, Any]:
    """A row of Nova's listing."""
    return {
        "id": "s1",
        "status": "ACTIVE",
        "OS-EXT-STS:task_state": None,
        "OS-EXT-AZ:availability_zone": "nova",
        "metadata": {"gridtide:site": TAG, "gridtide:worker": "grid-1"},
        "flavor": {"vcpus": 2, "ram": 4096, "disk": 10, "ephemeral": 5, "original_name": "tiny"},
        **more,
    }


# --- states

RUNNING, STARTING, UNKNOWN = MachineState.RUNNING, MachineState.STARTING, MachineState.UNKNOWN
STOPPED, ENDING, GONE, BROKEN = MachineState.STOPPED, MachineState.ENDING, MachineState.GONE, MachineState.BROKEN

MATRIX = {
    # status: at rest, while it is powered off, while it is deleted
    "ACTIVE": (RUNNING, UNKNOWN, ENDING),
    "BUILD": (STARTING, STARTING, ENDING),
    "DELETED": (GONE, GONE, GONE),
    "ERROR": (BROKEN, BROKEN, ENDING),
    "HARD_REBOOT": (UNKNOWN, UNKNOWN, ENDING),
    "MIGRATING": (RUNNING, UNKNOWN, ENDING),
    "PASSWORD": (RUNNING, UNKNOWN, ENDING),
    "PAUSED": (UNKNOWN, UNKNOWN, ENDING),
    "REBOOT": (UNKNOWN, UNKNOWN, ENDING),
    "REBUILD": (UNKNOWN, UNKNOWN, ENDING),
    "RESCUE": (UNKNOWN, UNKNOWN, ENDING),
    "RESIZE": (UNKNOWN, UNKNOWN, ENDING),
    "REVERT_RESIZE": (UNKNOWN, UNKNOWN, ENDING),
    "SHELVED": (STOPPED, STOPPED, ENDING),
    "SHELVED_OFFLOADED": (STOPPED, STOPPED, ENDING),
    "SHUTOFF": (STOPPED, STOPPED, ENDING),
    "SOFT_DELETED": (GONE, GONE, GONE),
    "SUSPENDED": (UNKNOWN, UNKNOWN, ENDING),
    "UNKNOWN": (UNKNOWN, UNKNOWN, ENDING),
    "VERIFY_RESIZE": (UNKNOWN, UNKNOWN, ENDING),
    "OF_A_LATER_NOVA": (UNKNOWN, UNKNOWN, ENDING),
}


@pytest.mark.parametrize(("status", "expected"), MATRIX.items())
def test_states(status: str, expected: tuple[MachineState, ...]) -> None:
    assert tuple(state_of(status, task) for task in (None, "powering-off", "deleting")) == expected


def test_every_state_of_the_table_is_in_the_matrix() -> None:
    assert MATRIX.keys() - STATES.keys() == {"OF_A_LATER_NOVA"}


@pytest.mark.parametrize("task", ["soft-deleting", "deleting"])
def test_a_machine_on_its_way_out_is_ending(task: str) -> None:
    assert state_of("ACTIVE", task) is ENDING


@pytest.mark.parametrize("task", ["shelving", "suspending", "pausing"])
def test_a_machine_on_its_way_to_a_stop_is_no_evidence(task: str) -> None:
    assert state_of("ACTIVE", task) is UNKNOWN


# --- listings


def test_a_machine_of_ours() -> None:
    found = machine(server(), TAG)
    assert found == Machine(
        MachineId("s1"), WorkerId("grid-1"), RUNNING, Resources(2, 4096, 15 * 1024), Zone("nova"), ""
    )


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"gridtide:site": "milano/private", "gridtide:worker": "grid-1"},
        {"gridtide:site": "torino/other", "gridtide:worker": "grid-1"},
        {"gridtide:worker": "grid-1"},
        {"gridtide:site": TAG},
        {"gridtide:site": TAG, "gridtide:worker": ""},
    ],
)
def test_others_have_no_worker(metadata: dict[str, str]) -> None:
    assert machine(server(metadata=metadata), TAG).worker is None


@pytest.mark.parametrize("missing", ["id", "status", "metadata", "flavor"])
def test_a_row_without_what_every_machine_has_is_no_machine(missing: str) -> None:
    row = server()
    del row[missing]
    with pytest.raises(KeyError):
        machine(row, TAG)


def test_words_on_what_is_wrong() -> None:
    fault = {"code": 500, "message": "No valid host was found. There are not enough hosts available.", "details": "x"}
    assert machine(server(status="ERROR", fault=fault), TAG).message.startswith("No valid host was found.")
    assert "administrator" in machine(server(status="ERROR"), TAG).message
    assert machine(server(status="SHUTOFF"), TAG).message == "the cloud calls it SHUTOFF"
    assert machine(server(status="BUILD", fault=fault), TAG).message == ""


def test_volumes_that_go_with_a_machine() -> None:
    attached = [{"id": "v1", "delete_on_termination": True}, {"id": "v2", "delete_on_termination": False}]
    assert volumes(server(**{"os-extended-volumes:volumes_attached": attached})) == ("v1",)
    assert volumes(server()) == ()


def test_of_several_machines_of_a_worker_one_that_lives() -> None:
    def each(name: str, state: MachineState, worker: str | None = "grid-1") -> Machine:
        return Machine(MachineId(name), None if worker is None else WorkerId(worker), state, Resources(1))

    rows = (each("a", RUNNING), each("b", ENDING), each("c", GONE), each("d", RUNNING, None))
    assert by_worker(rows) == {"grid-1": "a"}
    assert by_worker(rows[1:3]) == {"grid-1": "b"}
    assert by_worker(rows[2:3]) == {"grid-1": "c"}


# --- launches


def test_the_least_that_a_launch_asks_for() -> None:
    assert launch_body(REQUEST, PARTS, OpenstackSettings(), TAG) == {
        "server": {
            "name": "grid-1",
            "flavorRef": "f1",
            "imageRef": "i1",
            "networks": "auto",
            "metadata": {"gridtide:site": TAG, "gridtide:worker": "grid-1", "gridtide:group": "grid"},
            "tags": ["gridtide"],
            "user_data": base64.b64encode(b"secret").decode(),
        }
    }


def test_all_that_a_launch_can_ask_for() -> None:
    settings = OpenstackSettings(
        zones=(Zone("a"), Zone("b")),
        security_groups=("out",),
        key_pair="mine",
        config_drive=True,
        volume=10_241,
        volume_type="fast",
        tags={"department": "physics"},
    )
    parts = replace(PARTS, networks=("n1", "n2"), server_group="g1")
    body = launch_body(REQUEST, parts, settings, TAG)
    asked = body["server"]
    assert asked["networks"] == [{"uuid": "n1"}, {"uuid": "n2"}]
    assert asked["security_groups"] == [{"name": "out"}]
    assert (asked["availability_zone"], asked["key_name"], asked["config_drive"]) == ("a", "mine", True)
    assert asked["metadata"]["department"] == "physics"
    assert "imageRef" not in asked
    assert asked["block_device_mapping_v2"] == [
        {
            "boot_index": 0,
            "uuid": "i1",
            "source_type": "image",
            "destination_type": "volume",
            "volume_size": 11,
            "volume_type": "fast",
            "delete_on_termination": True,
        }
    ]
    assert body["os:scheduler_hints"] == {"group": "g1"}
    assert launch_body(replace(REQUEST, zone=Zone("b")), parts, settings, TAG)["server"]["availability_zone"] == "b"


def test_without_a_network_there_are_no_security_groups() -> None:
    settings = OpenstackSettings(security_groups=("out",))
    assert "security_groups" not in launch_body(REQUEST, replace(PARTS, networks="none"), settings, TAG)["server"]


def test_the_limit_of_user_data_is_that_of_its_encoding() -> None:
    assert len(base64.b64encode(bytes(USER_DATA_LIMIT))) <= 65_535 < len(base64.b64encode(bytes(USER_DATA_LIMIT + 1)))


# --- flavours and quota

FLAVOR = {"id": "f1", "name": "tiny", "vcpus": 2, "ram": 4096, "disk": 10, "OS-FLV-EXT-DATA:ephemeral": 5}


def test_a_flavour_is_a_shape() -> None:
    name = ShapeName("tiny")
    assert flavor(FLAVOR, FlavorChoice(name, 0.5), OpenstackSettings()) == Flavor(
        "f1", Shape(name, Resources(2, 4096, 15 * 1024), 0.5)
    )
    on_volume = flavor(FLAVOR, FlavorChoice(name), OpenstackSettings(volume=40_960))
    assert on_volume.shape.resources.disk == 40_960
    given = flavor(FLAVOR, FlavorChoice(name, disk=7, gpus=3), OpenstackSettings(volume=40_960))
    assert (given.shape.resources.disk, given.shape.resources.gpus) == (7, 3)


@pytest.mark.parametrize(
    ("specs", "number"),
    [
        ({}, 0),
        ({"hw:cpu_policy": "dedicated"}, 0),
        ({"resources:VGPU": "2"}, 2),
        ({"resources1:VGPU": "1", "resources2:VGPU": "1"}, 2),
        ({"pci_passthrough:alias": "a100-gpu:2,nic:1"}, 2),
        ({"pci_passthrough:alias": "GPU"}, 1),
    ],
)
def test_gpus_of_a_flavour(specs: dict[str, str], number: int) -> None:
    assert gpus(specs) == number


def test_limits_of_the_project() -> None:
    limits = {"maxTotalCores": 10, "maxTotalRAMSize": -1, "maxTotalInstances": 0}
    assert quota(limits) == Quota(cores=10, memory=None, machines=0)


def test_room_counts_what_is_listed_and_what_is_under_way() -> None:
    def each(name: str, state: MachineState, worker: str | None = None) -> Machine:
        return Machine(MachineId(name), None if worker is None else WorkerId(worker), state, Resources(2, 1000))

    machines = (each("a", BROKEN), each("b", STOPPED), each("c", GONE), each("d", RUNNING, "grid-1"))
    under_way = {WorkerId("grid-1"): Resources(2, 1000), WorkerId("grid-2"): Resources(2, 1000)}
    shape = Shape(ShapeName("tiny"), Resources(2, 1000))
    room = Room(Quota(cores=12, memory=None, machines=None), machines, under_way)
    assert room.take(shape) is None
    assert room.take(shape) is None
    refused = room.take(shape)
    assert refused is not None
    assert refused.scope == "cores"
    assert "12 of the project's 12 cores are used, tiny needs 2" in str(refused)
    assert room.take(Shape(ShapeName("none"), Resources(0, 1))) is None

    for limit, scope in ((Quota(machines=4), "machines"), (Quota(memory=4500), "memory")):
        refused = Room(limit, machines, under_way).take(shape)
        assert refused is not None
        assert refused.scope == scope
    assert Room(Quota(), machines, under_way).take(shape) is None
