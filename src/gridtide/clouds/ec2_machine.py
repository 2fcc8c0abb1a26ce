"""Pure: what a launch asks EC2 for, and what a listing says of a machine. No calls are made here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gridtide.clouds.ec2_rate import Rates
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import MachineState

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        BlockDeviceMappingTypeDef,
        ImageTypeDef,
        InstanceTypeDef,
        ResponseLaunchTemplateDataTypeDef,
        RunInstancesRequestTypeDef,
        TagTypeDef,
    )

SITE: Final = "gridtide:site"
WORKER: Final = "gridtide:worker"
GROUP: Final = "gridtide:group"
"""Tags of our machines. A policy may allow to end machines with SITE only: see docs/how-to/use-ec2.md."""

USER_DATA_LIMIT: Final = 16_384
"""Bytes before the base64 encoding (EC2 user guide, "Run commands when you launch an EC2 instance")."""

_STATES: Final[Mapping[str, MachineState]] = MappingProxyType(
    {
        "pending": MachineState.STARTING,
        "running": MachineState.RUNNING,
        "shutting-down": MachineState.ENDING,
        "terminated": MachineState.GONE,
        "stopped": MachineState.STOPPED,
        # Endpoints that are not Amazon's have this one.
        "error": MachineState.BROKEN,
    }
)
"""Others ("stopping" as well: its programs may still run) are UNKNOWN."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What the site file says of one. Cores, memory and GPUs: None where the cloud is asked. Memory and disk in MiB."""

    name: ShapeName
    price: float = 0.0
    disk: int = 20_480
    cores: int | None = None
    memory: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class Ec2Settings:
    """What machines are made of, and how. Empty: as the account or the launch template has it."""

    types: tuple[InstanceType, ...]
    zones: tuple[Zone, ...] = ()
    """Availability zones, or subnets, which stand for theirs."""
    spot: bool = False
    launch_template: str = ""
    """``NAME`` or ``lt-ID``, with ``:VERSION`` if it is not the default one."""
    key_pair: str = ""
    security_groups: tuple[str, ...] = ()
    """Ids."""
    instance_profile: str = ""
    volume_type: str = ""
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rates: Rates = field(default_factory=Rates)
    page: int = 1000
    """Machines in one page of a listing; EC2 takes 5 to 1000."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One machine of a listing, before it is known what its type has."""

    id: MachineId
    worker: WorkerId | None
    state: MachineState
    type: ShapeName
    cores: int
    """As the listing tells; 0 when it does not."""
    zone: str
    subnet: str
    message: str
    spot: bool


def client_token(tag: str, worker: WorkerId) -> str:
    """What EC2 knows a repeated launch by: 64 characters, different for each site, cloud and worker."""
    return hashlib.sha256(f"{tag}/{worker}".encode()).hexdigest()


def template_of(written: str) -> dict[str, str]:
    """How EC2 is told of a launch template: ``NAME`` or ``lt-ID``, with ``:VERSION`` if it is not the default one."""
    name, _, version = written.partition(":")
    key = "LaunchTemplateId" if name.startswith("lt-") else "LaunchTemplateName"
    return {key: name, "Version": version or "$Default"}


def launch_parameters(
    request: LaunchRequest,
    kind: InstanceType,
    image: ImageTypeDef,
    settings: Ec2Settings,
    tag: str,
    template: ResponseLaunchTemplateDataTypeDef | None = None,
) -> RunInstancesRequestTypeDef:
    """One machine: its user-data and tags are its own, so that it cannot share a call with others.

    Equal arguments give equal parameters: EC2 refuses a repeated client token with other ones.
    """
    tags = _tags({**settings.tags, "Name": request.worker, SITE: tag, WORKER: request.worker, GROUP: request.group})
    wanted: RunInstancesRequestTypeDef = {
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": client_token(tag, request.worker),
        "ImageId": image["ImageId"],
        "BlockDeviceMappings": _disks(image, template or {}, kind, settings),
        "InstanceType": kind.name,  # type: ignore[typeddict-item]  # the stubs know those of one day
        "UserData": request.user_data,  # type: ignore[typeddict-item]  # botocore takes and encodes bytes as well
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": tags},
            {"ResourceType": "volume", "Tags": tags},
        ],
        # Version 1 of the metadata service hands the join token to whatever a job can be talked into fetching.
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        # An agent that powers its machine off ends it: nothing is left to be paid, even while no controller runs.
        "InstanceInitiatedShutdownBehavior": "terminate",
    }
    if settings.launch_template:
        wanted["LaunchTemplate"] = template_of(settings.launch_template)  # type: ignore[typeddict-item]
    if settings.key_pair:
        wanted["KeyName"] = settings.key_pair
    if settings.security_groups:
        wanted["SecurityGroupIds"] = settings.security_groups
    if settings.instance_profile:
        wanted["IamInstanceProfile"] = {"Name": settings.instance_profile}
    if settings.spot:
        wanted["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        }
        if kind.price:  # what a budget counts with is never passed
            wanted["InstanceMarketOptions"]["SpotOptions"]["MaxPrice"] = f"{kind.price:.6f}"
    zone = request.zone or (settings.zones[0] if settings.zones else None)
    if zone is not None and zone.startswith("subnet-"):
        wanted["SubnetId"] = zone
    elif zone is not None:
        wanted["Placement"] = {"AvailabilityZone": zone}
    return wanted


def _tags(tags: Mapping[str, str]) -> list[TagTypeDef]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _disks(
    image: ImageTypeDef, template: ResponseLaunchTemplateDataTypeDef, kind: InstanceType, settings: Ec2Settings
) -> list[BlockDeviceMappingTypeDef]:
    """Every volume of image and template goes with its machine, whatever they say; the root has the shape's size.

    What the template says of a device is said again in full: then it does not matter whether EC2 puts this list in
    the place of the template's, or joins both by device.
    """
    disks: dict[str, BlockDeviceMappingTypeDef] = {
        name: {"DeviceName": name, "Ebs": {}}
        for each in image.get("BlockDeviceMappings", ())
        if each.get("Ebs") is not None and (name := each.get("DeviceName"))
    }
    for given in template.get("BlockDeviceMappings", ()):
        if name := given.get("DeviceName"):
            disks[name] = {**given}  # type: ignore[typeddict-item]  # its keys are a part of the others
    sizes = [
        each["Ebs"].get("VolumeSize", 0)
        for each in (*image.get("BlockDeviceMappings", ()), *template.get("BlockDeviceMappings", ()))
        if each.get("Ebs") is not None and each.get("DeviceName") == image.get("RootDeviceName")
    ]
    for name, disk in disks.items():
        if "Ebs" not in disk:
            continue
        disk["Ebs"] = {**disk["Ebs"], "DeleteOnTermination": True}
        if name == image.get("RootDeviceName"):
            disk["Ebs"]["VolumeSize"] = max(-(-kind.disk // 1024), *sizes)
            if settings.volume_type:
                disk["Ebs"]["VolumeType"] = settings.volume_type  # type: ignore[typeddict-item]
    return list(disks.values())


def seen(instance: InstanceTypeDef, tag: str) -> Seen:
    """KeyError when what every machine has is missing."""
    tags = tags_of(instance.get("Tags", ()))
    state = _STATES.get(instance["State"]["Name"], MachineState.UNKNOWN)
    processor = instance.get("CpuOptions", {})
    placement = instance.get("Placement", {})
    return Seen(
        MachineId(instance["InstanceId"]),
        WorkerId(tags[WORKER]) if tags.get(SITE) == tag and tags.get(WORKER) else None,
        state,
        ShapeName(str(instance["InstanceType"])),
        int(processor.get("CoreCount", 0)) * int(processor.get("ThreadsPerCore", 1)),
        placement.get("AvailabilityZone", ""),
        instance.get("SubnetId", ""),
        "" if state in (MachineState.STARTING, MachineState.RUNNING) else _message(instance),
        instance.get("InstanceLifecycle") == "spot",
    )


def _message(instance: InstanceTypeDef) -> str:
    """The cloud's own words on a machine that is not alive: never empty."""
    reason = instance.get("StateReason", {}).get("Message", "") or instance.get("StateTransitionReason", "")
    return reason or f"the cloud calls it {instance['State']['Name']}"


def tags_of(tags: Iterable[TagTypeDef]) -> dict[str, str]:
    """As a mapping."""
    return {each.get("Key", ""): each.get("Value", "") for each in tags}
