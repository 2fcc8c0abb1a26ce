"""Pure: what a launch asks Nova for, and what a listing says of a machine. No calls are made here."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from gridtide.clouds.openstack_errors import shortened
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, MachineState, Quota
from gridtide.model.resources import Resources, Shape

SITE: Final = "gridtide:site"
WORKER: Final = "gridtide:worker"
GROUP: Final = "gridtide:group"
"""Metadata of our machines."""
TAG: Final = "gridtide"
"""A tag of all of them, so that ``openstack server list --tags gridtide`` finds them."""

USER_DATA_LIMIT: Final = 49_149
"""Bytes before the encoding: Nova takes 65 535 characters of base64 (compute API reference, ``user_data``)."""

Json = Mapping[str, Any]
"""A decoded answer; what is read from it is checked where it is read."""

STATES: Final[Mapping[str, MachineState]] = MappingProxyType(
    {
        "BUILD": MachineState.STARTING,
        "ACTIVE": MachineState.RUNNING,
        "PASSWORD": MachineState.RUNNING,
        "MIGRATING": MachineState.RUNNING,
        # Powered off by somebody, or by itself: its programs are gone, the machine is not.
        "SHUTOFF": MachineState.STOPPED,
        "SHELVED": MachineState.STOPPED,
        "SHELVED_OFFLOADED": MachineState.STOPPED,
        "ERROR": MachineState.BROKEN,
        "DELETED": MachineState.GONE,
        "SOFT_DELETED": MachineState.GONE,
        # Its programs may go on, later or in another form. Not evidence of anything.
        "HARD_REBOOT": MachineState.UNKNOWN,
        "PAUSED": MachineState.UNKNOWN,
        "REBOOT": MachineState.UNKNOWN,
        "REBUILD": MachineState.UNKNOWN,
        "RESCUE": MachineState.UNKNOWN,
        "RESIZE": MachineState.UNKNOWN,
        "REVERT_RESIZE": MachineState.UNKNOWN,
        "SUSPENDED": MachineState.UNKNOWN,
        "UNKNOWN": MachineState.UNKNOWN,
        "VERIFY_RESIZE": MachineState.UNKNOWN,
    }
)
"""By Nova's status (nova/api/openstack/common.py). Others, of a later Nova, are UNKNOWN."""

_DELETING: Final = frozenset({"deleting", "soft-deleting"})
_STOPPING: Final = frozenset({"powering-off", "shelving", "suspending", "pausing"})
"""Task states: what is being done to a machine whose status is still the one before."""

_GPU: Final = re.compile(r"resources\d*:(?:VGPU|PGPU)")


@dataclass(frozen=True, slots=True)
class FlavorChoice:
    """What the site file says of a flavour. Disk in MiB and GPUs: None where the flavour's own count."""

    name: ShapeName
    price: float = 0.0
    disk: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class OpenstackSettings:
    """What machines are made of, and how. Empty: as the project has it."""

    flavors: tuple[FlavorChoice, ...] = ()
    """Empty: all that the project sees."""
    zones: tuple[Zone, ...] = ()
    networks: str | tuple[str, ...] = "auto"
    """Names or ids; "auto": the project's only one; "none"."""
    security_groups: tuple[str, ...] = ()
    key_pair: str = ""
    server_group: str = ""
    config_drive: bool = False
    volume: int | None = None
    """MiB of the volume to boot from; None: from the image, on the host's disk."""
    volume_type: str = ""
    image_properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    calls: int = 8
    """Launch or terminate calls under way at once."""
    page: int = 1000
    """Machines in one page of a listing. A cloud may give fewer: that is no end."""


@dataclass(frozen=True, slots=True)
class Flavor:
    """As the cloud has it, with what the site file says of it."""

    id: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Parts:
    """What a launch refers to, by id."""

    flavor: Flavor
    image: str
    networks: str | tuple[str, ...]
    server_group: str


def site_tag(site: str, cloud: str) -> str:
    """Of all machines of one cloud section of one site."""
    return f"{site}/{cloud}"


def launch_body(request: LaunchRequest, parts: Parts, settings: OpenstackSettings, tag: str) -> dict[str, Any]:
    """One machine. Holds the join token: never logged."""
    server: dict[str, Any] = {
        "name": request.worker,
        "flavorRef": parts.flavor.id,
        "user_data": base64.b64encode(request.user_data).decode(),
        "metadata": {**settings.tags, SITE: tag, WORKER: request.worker, GROUP: request.group},
        "tags": [TAG],
        "networks": [{"uuid": each} for each in parts.networks]
        if isinstance(parts.networks, tuple)
        else parts.networks,
    }
    if settings.config_drive:
        server["config_drive"] = True
    if settings.key_pair:
        server["key_name"] = settings.key_pair
    if settings.security_groups and parts.networks != "none":
        server["security_groups"] = [{"name": each} for each in settings.security_groups]
    zone = request.zone or (settings.zones[0] if settings.zones else None)
    if zone is not None:
        server["availability_zone"] = zone
    if settings.volume is None:
        server["imageRef"] = parts.image
    else:
        volume: dict[str, Any] = {
            "boot_index": 0,
            "uuid": parts.image,
            "source_type": "image",
            "destination_type": "volume",
            "volume_size": -(-settings.volume // 1024),
            "delete_on_termination": True,
        }
        if settings.volume_type:
            volume["volume_type"] = settings.volume_type
        server["block_device_mapping_v2"] = [volume]
    body: dict[str, Any] = {"server": server}
    if parts.server_group:
        body["os:scheduler_hints"] = {"group": parts.server_group}
    return body


def machine(server: Json, tag: str) -> Machine:
    """KeyError or TypeError when what every machine has is missing."""
    metadata = server["metadata"]
    ours = metadata.get(SITE) == tag and bool(metadata.get(WORKER))
    state = state_of(str(server["status"]), server.get("OS-EXT-STS:task_state"))
    flavor = server["flavor"]
    disk = 1024 * (int(flavor["disk"]) + int(flavor.get("ephemeral", 0)))
    zone = server.get("OS-EXT-AZ:availability_zone")
    return Machine(
        MachineId(str(server["id"])),
        WorkerId(str(metadata[WORKER])) if ours else None,
        state,
        Resources(int(flavor["vcpus"]), int(flavor["ram"]), disk),
        Zone(str(zone)) if zone else None,
        "" if state in (MachineState.STARTING, MachineState.RUNNING) else message(server),
    )


def state_of(status: str, task: object) -> MachineState:
    """Nova's status, and what is being done to the machine."""
    state = STATES.get(status, MachineState.UNKNOWN)
    if task in _DELETING and state is not MachineState.GONE:
        return MachineState.ENDING
    if task in _STOPPING and state is MachineState.RUNNING:
        return MachineState.UNKNOWN
    return state


def message(server: Json) -> str:
    """The cloud's own words on a machine that is not alive: never empty."""
    words = fault(server)
    if words:
        return words
    if server["status"] == "ERROR":
        return "the cloud calls it ERROR and gives no reason (an administrator may have set it)"
    return f"the cloud calls it {server['status']}"


def fault(server: Json) -> str:
    """Nova's words on what went wrong; empty where there are none."""
    found = server.get("fault")
    return shortened(str(found.get("message", ""))) if isinstance(found, Mapping) else ""


def volumes(server: Json) -> tuple[str, ...]:
    """Ids of those that are to go with the machine."""
    attached = server.get("os-extended-volumes:volumes_attached", ())
    return tuple(str(each["id"]) for each in attached if each.get("delete_on_termination"))


def flavor(document: Json, choice: FlavorChoice, settings: OpenstackSettings) -> Flavor:
    """One of the cloud's, as a shape."""
    disk = 1024 * (int(document["disk"]) + int(document.get("OS-FLV-EXT-DATA:ephemeral", 0)))
    if settings.volume is not None:
        disk = settings.volume
    given = gpus(document.get("extra_specs", {}))
    resources = Resources(
        int(document["vcpus"]),
        int(document["ram"]),
        disk if choice.disk is None else choice.disk,
        given if choice.gpus is None else choice.gpus,
    )
    return Flavor(str(document["id"]), Shape(ShapeName(str(document["name"])), resources, choice.price))


def gpus(specs: Json) -> int:
    """As far as a flavour's properties tell: virtual ones, and PCI devices whose alias is called after GPUs."""
    count = 0
    for key, value in specs.items():
        if _GPU.fullmatch(key):
            count += int(value)
        elif key == "pci_passthrough:alias":
            pairs = (each.partition(":") for each in str(value).split(","))
            count += sum(int(number or 1) for alias, _, number in pairs if "gpu" in alias.lower())
    return count


def quota(absolute: Json) -> Quota:
    """Nova's limits of the project; -1 is no limit."""

    def limit(key: str) -> int | None:
        value = int(absolute[key])
        return None if value < 0 else value

    return Quota(limit("maxTotalCores"), limit("maxTotalRAMSize"), limit("maxTotalInstances"))
