"""What a launch asks for, and what a listing says: pure functions."""

from copy import deepcopy
from typing import Any

import pytest

from gridtide.clouds.ec2_machine import (
    Ec2Settings,
    InstanceType,
    client_token,
    launch_parameters,
    seen,
)
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import GroupName, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState

KIND = InstanceType(ShapeName("m5.large"), price=0.107, disk=30_000)
IMAGE: Any = {
    "ImageId": "ami-1",
    "RootDeviceName": "/dev/xvda",
    "BlockDeviceMappings": [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8, "DeleteOnTermination": False}},
        {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 100}},
        {"DeviceName": "/dev/sdc", "VirtualName": "ephemeral0"},
    ],
}


def request(zone: str | None = None) -> LaunchRequest:
    return LaunchRequest(
        WorkerId("grid-1"), GroupName("grid"), KIND.name, None if zone is None else Zone(zone), "worker", b"gtj_secret"
    )


def asked(settings: Ec2Settings, zone: str | None = None, image: Any = IMAGE, template: Any = None) -> Any:
    return launch_parameters(request(zone), KIND, image, settings, "torino/burst", template)


def test_the_client_token_is_the_workers_own_and_fits() -> None:
    tokens = {
        client_token(tag, WorkerId(worker))
        for tag in ("torino/burst", "torino/spot", "milano/burst")
        for worker in ("grid-1", "grid-2", "g" * 63)
    }
    assert len(tokens) == 9
    assert {len(token) for token in tokens} == {64}, "EC2 takes at most 64 characters"


def test_equal_requests_are_equal() -> None:
    settings = Ec2Settings((KIND,))
    assert asked(settings) == asked(settings)


def test_every_volume_of_the_image_goes_with_the_machine() -> None:
    disks = asked(Ec2Settings((KIND,), volume_type="gp3"))["BlockDeviceMappings"]
    assert disks == [
        {"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": True, "VolumeSize": 30, "VolumeType": "gp3"}},
        {"DeviceName": "/dev/sdb", "Ebs": {"DeleteOnTermination": True}},
    ]
    larger = {**IMAGE, "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 50}}]}
    assert asked(Ec2Settings((KIND,)), image=larger)["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 50


def test_every_volume_of_the_launch_template_goes_with_the_machine() -> None:
    template: Any = {
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 80, "Encrypted": True, "DeleteOnTermination": False}},
            {"DeviceName": "/dev/sdb", "NoDevice": ""},
            {"DeviceName": "/dev/sdc", "Ebs": {"VolumeSize": 200, "VolumeType": "st1"}},
            {"DeviceName": "/dev/sdd", "VirtualName": "ephemeral0"},
        ]
    }
    before = deepcopy(template)
    disks = asked(Ec2Settings((KIND,), launch_template="worker", volume_type="gp3"), template=template)
    assert disks["BlockDeviceMappings"] == [
        {
            "DeviceName": "/dev/xvda",
            "Ebs": {"VolumeSize": 80, "Encrypted": True, "DeleteOnTermination": True, "VolumeType": "gp3"},
        },
        {"DeviceName": "/dev/sdb", "NoDevice": ""},
        {"DeviceName": "/dev/sdc", "Ebs": {"VolumeSize": 200, "VolumeType": "st1", "DeleteOnTermination": True}},
        {"DeviceName": "/dev/sdd", "VirtualName": "ephemeral0"},
    ]
    assert template == before, "it is kept for the next launch"


def test_what_is_not_set_is_not_sent() -> None:
    wanted = asked(Ec2Settings((KIND,)))
    assert not wanted.keys() & {
        "KeyName",
        "SecurityGroupIds",
        "SubnetId",
        "Placement",
        "LaunchTemplate",
        "IamInstanceProfile",
        "InstanceMarketOptions",
    }
    assert wanted["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert wanted["MetadataOptions"]["HttpTokens"] == "required"


def test_a_spot_machine_never_costs_more_than_its_price() -> None:
    market = asked(Ec2Settings((KIND,), spot=True))["InstanceMarketOptions"]
    assert market["SpotOptions"] == {
        "SpotInstanceType": "one-time",
        "InstanceInterruptionBehavior": "terminate",
        "MaxPrice": "0.107000",
    }
    free = launch_parameters(request(), InstanceType(KIND.name), IMAGE, Ec2Settings((KIND,), spot=True), "t")
    assert "MaxPrice" not in free["InstanceMarketOptions"]["SpotOptions"]


@pytest.mark.parametrize(
    ("given", "zones", "wanted"),
    [
        (None, (), {}),
        (None, ("eu-south-1a", "eu-south-1b"), {"Placement": {"AvailabilityZone": "eu-south-1a"}}),
        ("eu-south-1b", ("eu-south-1a", "eu-south-1b"), {"Placement": {"AvailabilityZone": "eu-south-1b"}}),
        ("subnet-0a", ("subnet-0a",), {"SubnetId": "subnet-0a"}),
    ],
)
def test_a_zone_is_a_zone_or_a_subnet(given: str | None, zones: tuple[str, ...], wanted: dict[str, object]) -> None:
    settings = Ec2Settings((KIND,), zones=tuple(Zone(zone) for zone in zones))
    parameters = asked(settings, given)
    assert {key: parameters[key] for key in ("Placement", "SubnetId") if key in parameters} == wanted


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("worker", {"LaunchTemplateName": "worker", "Version": "$Default"}),
        ("worker:3", {"LaunchTemplateName": "worker", "Version": "3"}),
        ("lt-0a:$Latest", {"LaunchTemplateId": "lt-0a", "Version": "$Latest"}),
    ],
)
def test_a_launch_template_by_name_or_id(written: str, wanted: dict[str, str]) -> None:
    assert asked(Ec2Settings((KIND,), launch_template=written))["LaunchTemplate"] == wanted


def listed(state: str, **more: object) -> Any:
    tags = [{"Key": "gridtide:site", "Value": "torino/burst"}, {"Key": "gridtide:worker", "Value": "grid-1"}]
    return {"InstanceId": "i-1", "InstanceType": "m5.large", "State": {"Name": state}, "Tags": tags, **more}


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("pending", MachineState.STARTING),
        ("running", MachineState.RUNNING),
        ("shutting-down", MachineState.ENDING),
        ("terminated", MachineState.GONE),
        ("stopped", MachineState.STOPPED),
        ("stopping", MachineState.UNKNOWN),
        ("error", MachineState.BROKEN),
        ("something-new", MachineState.UNKNOWN),
    ],
)
def test_a_state_has_one_of_ours(word: str, state: MachineState) -> None:
    found = seen(listed(word), "torino/burst")
    assert found.state is state
    assert bool(found.message) is (state not in (MachineState.STARTING, MachineState.RUNNING))


@pytest.mark.parametrize(
    "tags",
    [
        [],
        [{"Key": "gridtide:worker", "Value": "grid-1"}],
        [{"Key": "gridtide:site", "Value": "torino/burst"}],
        [{"Key": "gridtide:site", "Value": "torino/burst"}, {"Key": "gridtide:worker", "Value": ""}],
        [{"Key": "gridtide:site", "Value": "torino"}, {"Key": "gridtide:worker", "Value": "grid-1"}],
        [{"Key": "gridtide:site", "Value": "milano/burst"}, {"Key": "gridtide:worker", "Value": "grid-1"}],
    ],
)
def test_without_both_tags_a_machine_is_not_ours(tags: list[dict[str, str]]) -> None:
    assert seen(listed("running", Tags=tags), "torino/burst").worker is None


def test_what_the_listing_tells_of_a_machine() -> None:
    found = seen(
        listed(
            "terminated",
            CpuOptions={"CoreCount": 4, "ThreadsPerCore": 2},
            Placement={"AvailabilityZone": "eu-south-1a"},
            SubnetId="subnet-0a",
            InstanceLifecycle="spot",
            StateReason={"Code": "Server.SpotInstanceTermination", "Message": "Spot instance termination"},
        ),
        "torino/burst",
    )
    assert (found.worker, found.cores, found.zone, found.subnet) == ("grid-1", 8, "eu-south-1a", "subnet-0a")
    assert (found.spot, found.message) == (True, "Spot instance termination")


def test_a_machine_without_state_is_nonsense() -> None:
    with pytest.raises(KeyError):
        seen({"InstanceId": "i-1", "InstanceType": "m5.large"}, "torino/burst")
