"""Pure: what a launch asks OpenNebula for, and what a listing says of a machine. No calls are made here."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from xml.etree import ElementTree

from gridtide.clouds.opennebula_errors import shortened
from gridtide.clouds.opennebula_states import DONE, HOLD, PENDING, state_of
from gridtide.clouds.protocol import LaunchRequest
from gridtide.model.ids import MachineId, ShapeName, WorkerId, Zone
from gridtide.model.machines import Machine, MachineState
from gridtide.model.resources import Resources, Shape

SITE: Final = "GRIDTIDE_SITE"
WORKER: Final = "GRIDTIDE_WORKER"
GROUP: Final = "GRIDTIDE_GROUP"
SHAPE: Final = "GRIDTIDE_SHAPE"
ZONE: Final = "GRIDTIDE_ZONE"
"""Attributes of our machines, in their user template."""

USER_DATA_LIMIT: Final = 90_000
"""Bytes. OpenNebula sets no limit, but its contextualisation exports each variable, Linux takes 131 072 bytes of one
(MAX_ARG_STRLEN), and base64 makes four of three."""

ID: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)

_VARIABLES: Final = re.compile(rb"(?:[A-Z][A-Z0-9_]*='?[A-Za-z0-9+/=._-]*'?\n)+")
_VARIABLE: Final = re.compile(rb"([A-Z0-9_]+)='?([^'\n]*)'?\n")
"""User-data that is a ``context.sh`` of ours. No value has a ``$``, which OpenNebula would fill in."""
_OURS: Final = frozenset(
    {
        "START_SCRIPT",
        "START_SCRIPT_BASE64",
        "USERDATA",
        "USERDATA_ENCODING",
        "USER_DATA",
        "USER_DATA_ENCODING",
    }
)
"""Variables of a template's context that give way to the user-data."""
_IMAGE_OF_DISK: Final = frozenset({"IMAGE", "IMAGE_ID", "IMAGE_UID", "IMAGE_UNAME"})
_DISPLAY: Final = "03"
"""Class of PCI devices: display controllers."""


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    """What the site file says of a shape. None: as the template has it. Memory and disk in MiB."""

    name: ShapeName
    template: str
    """Its name, or its id."""
    price: float = 0.0
    cores: int | None = None
    memory: int | None = None
    disk: int | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class OpennebulaSettings:
    """What machines are made of, and how."""

    templates: tuple[TemplateChoice, ...]
    clusters: tuple[Zone, ...] = ()
    """Names or ids. Empty: as OpenNebula chooses."""
    networks: tuple[str, ...] = ()
    """Names or ids. Empty: as the template has it."""
    placement: float = 600.0
    """Seconds for which a machine may wait for a host before it counts as broken."""
    calls: int = 4
    """Launch or terminate calls under way at once."""
    page: int = 500
    """Machines in one page of a listing; more than 1."""


@dataclass(frozen=True, slots=True)
class Template:
    """As OpenNebula has it, with what the site file says of it."""

    id: int
    shape: Shape
    share: float
    """Of physical cores, for all virtual ones together: what quotas count."""
    capacity: Mapping[str, str]
    """What the site file has otherwise than the template."""
    disk: int | None = None
    """MiB of the disk to boot from, as the site file has it."""
    disks: tuple[Mapping[str, str], ...] = ()
    context: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    requirements: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """One machine of a listing, before it is known whose it is."""

    id: MachineId
    owner: int
    state: int
    name: str
    """Of the state, as OpenNebula calls it."""
    is_now: MachineState
    resources: Resources
    words: str
    """OpenNebula's on what went wrong, or on why it waits."""

    @property
    def held(self) -> bool:
        """Whether it waits to be released."""
        return self.state == HOLD

    @property
    def pending(self) -> bool:
        """Whether it waits for a host."""
        return self.state == PENDING

    @property
    def done(self) -> bool:
        """Whether it is gone for good."""
        return self.state == DONE


@dataclass(frozen=True, slots=True)
class Tags:
    """Whose a machine is. Never changes."""

    site: str = ""
    worker: str = ""
    shape: str = ""
    zone: str = ""


def template(id: int, body: Mapping[str, Any], choice: TemplateChoice, disk_size: int) -> Template:
    """``body``: its attributes. ``disk_size``: MiB of the image to boot from, 0 where that is not known."""
    cores, memory = number(body.get("VCPU")) or 1, number(body.get("MEMORY"))
    share = fraction(body.get("CPU")) or float(cores)
    disks = tuple(vectors(body, "DISK"))
    capacity: dict[str, str] = {}
    if choice.cores is not None and choice.cores != cores:
        share *= choice.cores / cores
        cores = choice.cores
        capacity |= {"VCPU": str(cores), "CPU": f"{share:g}"}
    if choice.memory is not None and choice.memory != memory:
        memory = choice.memory
        capacity["MEMORY"] = str(memory)
    boot, _ = boot_disk(disks)
    disk = number(boot.get("SIZE")) or disk_size
    gpus = sum(str(each.get("CLASS", "")).startswith(_DISPLAY) for each in vectors(body, "PCI"))
    resources = Resources(
        cores, memory, disk if choice.disk is None else choice.disk, gpus if choice.gpus is None else choice.gpus
    )
    context = next(iter(vectors(body, "CONTEXT")), {})
    return Template(
        id,
        Shape(choice.name, resources, choice.price),
        share,
        capacity,
        choice.disk,
        disks,
        {name: value for name, value in context.items() if name not in _OURS},
        text(body.get("SCHED_REQUIREMENTS")),
    )


def extra_template(
    request: LaunchRequest, kind: Template, image: int | None, networks: Iterable[int], zone: Zone | None, tag: str
) -> str:
    """What is merged into the template: it replaces what has the same name there. Holds the join token."""
    root = ElementTree.Element("TEMPLATE")
    tags = {SITE: tag, WORKER: request.worker, GROUP: request.group, SHAPE: request.shape, ZONE: zone or ""}
    for name, value in {**kind.capacity, **tags}.items():
        _add(root, name, value)
    for disk in disks(kind, image):
        _add_vector(root, "DISK", disk)
    for network in networks:
        _add_vector(root, "NIC", {"NETWORK_ID": str(network)})
    _add_vector(root, "CONTEXT", {**kind.context, **context(request)})
    if zone is not None:
        place = f"CLUSTER_ID = {zone}" if ID.fullmatch(zone) else f'CLUSTER = "{zone}"'
        _add(root, "SCHED_REQUIREMENTS", f"({kind.requirements}) & ({place})" if kind.requirements else place)
    return ElementTree.tostring(root, encoding="unicode")


def disks(kind: Template, image: int | None) -> tuple[Mapping[str, str], ...]:
    """The template's, the one to boot from with this image and of the shape's size. Empty: nothing is to be changed."""
    boot, others = boot_disk(kind.disks)
    if image is not None:
        boot = {name: value for name, value in boot.items() if name not in _IMAGE_OF_DISK} | {"IMAGE_ID": str(image)}
    if not boot or (image is None and kind.disk is None):
        return ()
    return (boot if kind.disk is None else {**boot, "SIZE": str(kind.disk)}, *others)


def boot_disk(disks: Sequence[Mapping[str, str]]) -> tuple[dict[str, str], tuple[Mapping[str, str], ...]]:
    """The first with an image, and the others: those without one are made empty."""
    at = next((at for at, disk in enumerate(disks) if _IMAGE_OF_DISK & disk.keys()), None)
    return ({}, tuple(disks)) if at is None else (dict(disks[at]), (*disks[:at], *disks[at + 1 :]))


def context(request: LaunchRequest) -> dict[str, str]:
    """Variables: those of a ``context.sh`` of ours, else one with all of the user-data, as cloud-init reads it."""
    if _VARIABLES.fullmatch(request.user_data):
        return {name.decode(): value.decode() for name, value in _VARIABLE.findall(request.user_data)}
    return {
        "NETWORK": "YES",
        "SET_HOSTNAME": request.worker,
        "USER_DATA": base64.b64encode(request.user_data).decode(),
        "USERDATA_ENCODING": "base64",
    }


def _add(parent: ElementTree.Element, name: str, value: str) -> None:
    if value:
        ElementTree.SubElement(parent, name).text = value


def _add_vector(parent: ElementTree.Element, name: str, values: Mapping[str, str]) -> None:
    made = ElementTree.SubElement(parent, name)
    for key, value in values.items():
        _add(made, key, value)


def listed(row: Any) -> Listed:
    """``row``: pyone's. TypeError or ValueError when what every machine has is missing."""
    name, is_now = state_of(int(row.STATE), int(row.LCM_STATE))
    body, said = row.TEMPLATE or {}, row.USER_TEMPLATE or {}
    resources = Resources(
        number(body.get("VCPU")) or 1,
        number(body.get("MEMORY")),
        next((number(disk.get("SIZE")) for disk in vectors(body, "DISK")), 0),
    )
    words = shortened(text(said.get("ERROR")) or text(said.get("SCHED_MESSAGE")))
    return Listed(MachineId(str(int(row.ID))), int(row.UID), int(row.STATE), name, is_now, resources, words)


def tags(row: Any) -> Tags:
    """Of a machine that was asked for with all its attributes. ``row``: pyone's."""
    said = row.USER_TEMPLATE or {}
    return Tags(*(text(said.get(name)) for name in (SITE, WORKER, SHAPE, ZONE)))


def whole(row: Any) -> bool:
    """Whether it came with all its attributes. Each machine has its own number among those; a page leaves that out."""
    return "VMID" in (row.TEMPLATE or {})


def machine(each: Listed, tags: Tags, tag: str, owner: int) -> Machine:
    """Ours when it has our tag and belongs to our user: others of the group can write what they like."""
    ours = tags.site == tag and bool(tags.worker) and each.owner == owner
    alive = each.is_now in (MachineState.STARTING, MachineState.RUNNING)
    message = "" if alive else each.words or f"the cloud calls it {each.name}"
    worker = WorkerId(tags.worker) if ours else None
    return Machine(
        each.id, worker, each.is_now, each.resources, Zone(tags.zone) if ours and tags.zone else None, message
    )


def vectors(body: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    """All attributes of this name that have parts, whether there are none, one or many."""
    found = body.get(name)
    rows = found if isinstance(found, list) else [found]
    return [{str(key): text(value) for key, value in row.items()} for row in rows if isinstance(row, Mapping)]


def text(value: object) -> str:
    """Of an attribute; empty where it has parts, or is there more than once."""
    return value if isinstance(value, str) else ""


def number(value: object) -> int:
    """A whole number above zero; 0 for anything else."""
    found = text(value).strip()
    return int(found) if found.isascii() and found.isdigit() and len(found) < 10 else 0


def fraction(value: object) -> float:
    """A number above zero; 0 for anything else."""
    found = text(value).strip()
    return float(found) if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", found, re.ASCII) else 0.0
